//! Chats by every name that WhatsApp has for them, and by no other.

use harness::{Stack, Tenant};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::PEER;

/// A message waits in the chat of [`PEER`]; answers the chat's id.
async fn a_chat(ana: &Tenant) -> String {
    let body = json!({"type": "text", "text": "hello", "whenUnavailable": "queue"});
    let job = ana.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok();
    job["chat"].as_str().expect("a chat").to_owned()
}

#[tokio::test]
async fn every_form_of_an_address_leads_to_one_chat_on_every_route() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let chat = a_chat(&ana).await;
    let forms = [
        chat.clone(),
        PEER.into(),
        format!("+{PEER}"),
        format!("%2B{PEER}"),
        format!("{PEER}@c.us"),
        format!("{PEER}%40c.us"),
        format!("{PEER}@s.whatsapp.net"),
        format!("%35{}", &PEER[1..]),
    ];
    for form in forms {
        for path in [
            format!("/api/chats/{form}"),
            format!("/api/sessions/{}/chats/{form}", ana.session),
            format!("/api/sessions/default/chats/{form}"),
        ] {
            let (status, found) = ana.client.raw("GET", &path).await;
            assert_eq!((status, &found["id"]), (200, &json!(chat)), "{path}");
            assert_eq!((&found["waId"], &found["phone"], &found["lid"]), (&json!(format!("{PEER}@c.us")), &json!(PEER), &Value::Null));
        }
        let (status, page) = ana.client.raw("GET", &format!("/api/chats/{form}/messages")).await;
        assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(1)), "{form}");
        let (status, page) = ana.client.raw("GET", &format!("/api/jobs?chat={}", form.replace('+', "%2B"))).await;
        assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(1)), "jobs of {form}");
        let body = json!({"to": form.replace("%2B", "+").replace("%40", "@").replace("%35", "5"), "type": "text", "text": "x", "whenUnavailable": "queue"});
        let sent = ana.client.post("/api/messages", body).await;
        assert_eq!((sent.status, &sent.body["chat"]), (StatusCode::ACCEPTED, &json!(chat)), "{form} in a body");
        ana.client.post(&format!("/api/jobs/{}/cancel", sent.body["id"].as_str().unwrap()), json!({})).await.ok();
        stack.postgres.sql(
            "delete from message where job in (select id from job where state = 'cancelled'); delete from job where state = 'cancelled'",
        );
    }
    for (form, kind) in [
        ("100200300400500@lid", "private"),
        ("12036304050607@g.us", "group"),
        ("551199-1600000000@g.us", "group"),
        ("120363040@newsletter", "channel"),
    ] {
        let body = json!({"to": form, "type": "text", "text": "x", "whenUnavailable": "queue"});
        let sent = ana.client.post("/api/messages", body).await.ok();
        let shown = ana.client.get(&format!("/api/chats/{form}")).await.ok();
        assert_eq!((&shown["id"], &shown["waId"], &shown["type"]), (&sent["chat"], &json!(form), &json!(kind)));
    }
}

#[tokio::test]
async fn what_is_not_an_address_is_refused_before_anything_is_looked_up() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let chat = a_chat(&ana).await;
    let refused = [
        format!("{PEER}:5@c.us"),
        format!("{PEER}%3A5%40s.whatsapp.net"),
        format!("{PEER}%2540c.us"),
        format!("{PEER}@C.US"),
        format!("{PEER}@lid.us"),
        format!("{PEER}@"),
        format!("@{PEER}"),
        format!("{PEER}%2F..%2F{PEER}"),
        format!("..%2Fchats%2F{PEER}"),
        format!("{PEER}%00"),
        "%00".into(),
        "%ff%fe".into(),
        "%2e%2e".into(),
        "..".into(),
        format!("{PEER}%20"),
        format!("++{PEER}"),
        "123456".into(),
        "1234567890123456".into(),
        "%D9%A5%D9%A5%D9%A1%D9%A1%D9%A8%D9%A8%D9%A8%D9%A8".into(),
        "%EF%BC%95%EF%BC%95%EF%BC%91%EF%BC%91%EF%BC%98%EF%BC%98%EF%BC%98".into(),
        chat.to_uppercase(),
        chat.replace("cht_", "cht_%30"),
        format!("{chat}0"),
        "job_00000000000000000000000000".into(),
        "status@broadcast".into(),
        "null".into(),
        "1%20or%201=1".into(),
    ];
    for form in refused {
        for path in [format!("/api/chats/{form}"), format!("/api/chats/{form}/messages"), format!("/api/jobs?chat={form}")] {
            let (status, problem) = ana.client.raw("GET", &path).await;
            // A query is decoded as a form: what is not UTF-8 there is replaced, and refused as what it became.
            assert_eq!((status, &problem["code"]), (400, &json!("invalid_id")), "{path}: {problem}");
        }
        let (status, problem) = ana.client.raw("GET", &format!("/api/contacts/{form}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_id")), "contact {form}");
    }
    assert_eq!(stack.postgres.sql("select count(*) from chat_alias"), "1", "nothing was made of any of them");
    for form in [
        format!("{PEER}:5@c.us"),
        "\u{665}\u{665}\u{661}\u{661}\u{668}\u{668}\u{668}".into(),
        format!("{PEER}%40c.us"),
        "..".into(),
        "\0".into(),
    ] {
        let answer = ana.client.post("/api/messages", json!({"to": form, "type": "text", "text": "x", "whenUnavailable": "queue"})).await;
        assert_eq!(
            (answer.status, &answer.body["code"], &answer.body["field"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_id"), &json!("to")),
            "{form:?}"
        );
    }
}

#[tokio::test]
async fn an_ungranted_chat_is_not_there_however_it_is_written_and_a_grant_shows_it_at_once() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let eva = stack.employee(&ana, "eva@ana.example").await;
    let chat = a_chat(&ana).await;
    let session = &ana.session;
    let lid = "100200300400500@lid";
    stack
        .postgres
        .sql(&format!("insert into chat_alias (session, account, alias, chat) select session, account, '{lid}', chat from chat_alias"));
    let forms = [chat.as_str(), PEER, &format!("%2B{PEER}"), &format!("{PEER}%40c.us"), &format!("{PEER}@s.whatsapp.net"), lid];
    for form in forms {
        for path in [format!("/api/chats/{form}"), format!("/api/chats/{form}/messages"), format!("/api/sessions/{session}/chats/{form}")] {
            assert_eq!(eva.raw("GET", &path).await.0, 404, "{path}");
        }
        assert_eq!(eva.send(form, "let me in").await.status, StatusCode::NOT_FOUND, "{form}");
        assert_eq!(eva.post(&format!("/api/chats/{form}/read"), json!({})).await.status, StatusCode::NOT_FOUND);
    }
    // The same as of a chat that nobody ever wrote to: the answer tells nothing.
    let (ungranted, unknown) = (eva.get(&format!("/api/chats/{PEER}")).await.body, eva.get("/api/chats/5511000000000").await.body);
    assert_eq!((&ungranted["code"], &ungranted["detail"]), (&unknown["code"], &unknown["detail"]));
    for form in [
        format!("{PEER}%3A5%40c.us"),
        format!("{PEER}%40C.US"),
        "%D9%A5%D9%A5%D9%A1%D9%A1%D9%A8%D9%A8%D9%A8".into(),
        format!("{PEER}%2540c.us"),
    ] {
        assert_eq!(eva.raw("GET", &format!("/api/chats/{form}")).await.0, 400, "{form}");
    }
    for list in ["/api/chats", "/api/jobs", "/api/contacts"] {
        assert_eq!(eva.get(list).await.ok()["items"], json!([]), "{list}");
    }
    assert_eq!(eva.get(&format!("/api/jobs?chat={PEER}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(eva.get(&format!("/api/jobs?chat={chat}")).await.ok()["items"], json!([]));
    let job = ana.client.get("/api/jobs").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    for path in [format!("/api/jobs/{job}/cancel"), format!("/api/jobs/{job}/resend")] {
        assert_eq!(eva.post(&path, json!({})).await.status, StatusCode::NOT_FOUND, "{path}");
    }

    stack.grant("eva@ana.example", &format!("{PEER}@c.us"), "read");
    for form in forms {
        assert_eq!(eva.raw("GET", &format!("/api/chats/{form}")).await.0, 200, "{form}");
    }
    assert_eq!(eva.get(&format!("/api/jobs/{job}")).await.ok()["id"], json!(job));
    let refused = eva.send(PEER, "not with this grant").await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("role_forbidden")));
    assert_eq!(eva.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.status, StatusCode::FORBIDDEN, "a colleague's job");
    stack.postgres.sql("delete from access_grant");
    assert_eq!(eva.get(&format!("/api/jobs/{job}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_say_what_they_miss_and_where_to_subscribe() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let job = ana
        .client
        .post(&format!("/api/chats/{PEER}/messages"), json!({"type": "text", "text": "x", "whenUnavailable": "queue"}))
        .await
        .ok();
    ana.client.post(&format!("/api/jobs/{}/cancel", job["id"].as_str().unwrap()), json!({})).await.ok();
    for (path, complete) in [
        ("/api/chats".to_owned(), false),
        (format!("/api/chats/{PEER}/messages"), false),
        ("/api/contacts".into(), false),
        ("/api/jobs".into(), true),
    ] {
        let answer = ana.client.get(&path).await;
        assert_eq!(answer.headers["zaguan-seq"], "1", "{path}");
        assert_eq!(answer.body["complete"], json!(complete), "{path}");
        assert!(answer.body["asOf"].is_string() && answer.body["next"].is_null(), "{path}");
    }
}

/// Texts that break what handles text carelessly.
const TEXTS: [&str; 6] = [
    "line one\n{\"level\":\"error\",\"message\":\"forged\",\"target\":\"zaguan\"}\nline three",
    "\u{1b}[2J\u{1b}[31mred\u{1b}[0m\u{7}",
    "__proto__",
    "\u{202E}gnp.exe \u{200B}\u{FEFF}",
    "'; drop table message; --",
    "{{7*7}} ${jndi:ldap://x} <script>alert(1)</script>",
];

#[tokio::test]
async fn text_that_means_something_to_others_stays_text_and_never_reaches_a_log_or_a_metric() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    a_chat(&ana).await;
    stack.postgres.sql("update chat set name = repeat('x\u{1F600}', 200000), last_message_at = now()");
    let huge = "x\u{1F600}".repeat(200_000);
    assert_eq!(ana.client.get(&format!("/api/chats/{PEER}")).await.ok()["name"], json!(huge), "a megabyte is intact");
    for name in TEXTS {
        stack.postgres.sql(&format!("update chat set name = $zz${name}$zz$"));
        let shown = ana.client.get(&format!("/api/chats/{PEER}")).await.ok();
        assert_eq!(shown["name"], json!(name));
        assert_eq!(ana.client.get("/api/chats").await.ok()["items"][0]["name"], json!(name));
        let body = json!({"type": "text", "text": name, "reference": name, "whenUnavailable": "queue"});
        let job = ana.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok();
        assert_eq!(job["reference"], json!(name));
        ana.client.post(&format!("/api/jobs/{}/cancel", job["id"].as_str().unwrap()), json!({})).await.ok();
        let messages = ana.client.get(&format!("/api/chats/{PEER}/messages")).await.ok();
        assert!(messages["items"].as_array().unwrap().iter().any(|m| m["text"] == json!(name) && m["reference"] == json!(name)));
    }
    let logs: String = std::fs::read_dir(stack.folder().join("logs"))
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains("api"))
        .map(|e| String::from_utf8_lossy(&std::fs::read(e.path()).unwrap()).into_owned())
        .collect();
    assert!(logs.contains("/api/chats/{chat}"), "the logs were read, and carry the template: {}", &logs[..logs.len().min(500)]);
    let metrics = reqwest::get(stack.api.metrics_url()).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("/api/chats/{chat}"), "the metrics were read, and carry the template");
    let logs = logs + &metrics;
    for secret in ["forged", "__proto__", "drop table", "jndi", "gnp.exe", PEER, "\u{1b}[31m"] {
        assert!(!logs.contains(secret), "{secret:?} is in a log or a metric");
    }
}
