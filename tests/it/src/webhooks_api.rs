//! Webhooks as their tenant makes, sees and changes them: what is refused, what is shown to nobody, what a replay moves.

use futures::future::join_all;
use harness::{Stack, Tenant, client::Answer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

fn hook(name: &str) -> Value {
    json!({"name": name, "url": "https://hooks.example.com/in"})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

async fn make(tenant: &Tenant, more: Value) -> Answer {
    tenant.client.post("/api/webhooks", with(hook("mine"), more)).await
}

async fn made(tenant: &Tenant, more: Value) -> String {
    let answer = make(tenant, more).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    answer.body["id"].as_str().expect("it has an id").to_owned()
}

fn refusal(answer: &Answer) -> (u16, String, String) {
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), text("code"), text("field"))
}

fn invalid(field: &str) -> (u16, String, String) {
    (422, "invalid_body".to_owned(), field.to_owned())
}

fn uuid_of(id: &str) -> String {
    id.parse::<contract::WebhookId>().expect("an id").uuid().to_string()
}

#[tokio::test]
async fn a_secret_is_shown_once_and_neither_it_nor_a_header_is_found_anywhere_afterwards() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let body = with(hook("billing"), json!({"headers": {"Authorization": "Bearer s3cr3t-of-theirs", "X-Team": "blue-team-value"}}));
    let once = [("idempotency-key", "k1")];
    let first = ana.client.ask(Method::POST, "/api/webhooks", &once, Some(body.clone())).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    let (id, secret) = (first.body["id"].as_str().unwrap().to_owned(), first.body["secret"].as_str().unwrap().to_owned());
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!((bytes.len(), &first.headers["cache-control"], &first.body["state"]), (32, &"no-store".parse().unwrap(), &json!("active")));
    assert_eq!(first.headers["location"].to_str().unwrap(), format!("/api/webhooks/{id}"));
    assert_eq!(first.body["headers"], json!(["authorization", "x-team"]));

    let again = ana.client.ask(Method::POST, "/api/webhooks", &once, Some(body)).await;
    assert_eq!((again.status, &again.body["id"], &again.body["secret"]), (StatusCode::CREATED, &json!(id), &Value::Null));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = ana.client.ask(Method::POST, "/api/webhooks", &once, Some(hook("other"))).await;
    assert_eq!(refusal(&other).1, "idempotency_key_reused");

    let path = format!("/api/webhooks/{id}/secret");
    let turn = [("idempotency-key", "k2")];
    let rotated = ana.client.ask(Method::POST, &path, &turn, None).await;
    let second = rotated.body["secret"].as_str().unwrap().to_owned();
    assert!(second.starts_with("whsec_") && second != secret && rotated.body["previousSecretUntil"].is_string(), "{}", rotated.body);
    let again = ana.client.ask(Method::POST, &path, &turn, None).await;
    assert_eq!((again.status, &again.body["secret"]), (StatusCode::OK, &Value::Null), "a repeated rotation turns nothing");
    assert_eq!(again.body["previousSecretUntil"], rotated.body["previousSecretUntil"]);

    let db = stack.db().await;
    let (sealed, previous, day): (Vec<u8>, Option<Vec<u8>>, bool) = sqlx::query_as(
        "select secret || headers, previous_secret, previous_until between clock_timestamp() + interval '23 hours' and clock_timestamp() + interval '25 hours'
           from webhook",
    )
    .fetch_one(&db)
    .await
    .unwrap();
    assert!(previous.is_some() && day, "two live secrets for a day");
    let told = [
        ana.client.get("/api/webhooks").await.ok().to_string(),
        ana.client.get(&format!("/api/webhooks/{id}")).await.ok().to_string(),
        ana.client.patch(&format!("/api/webhooks/{id}"), json!({"name": "renamed"})).await.ok().to_string(),
        ana.client.get("/api/audit?limit=200").await.ok().to_string(),
        serde_json::to_string(&ana.client.events(0).await).unwrap(),
        stack.api.process.log(),
        String::from_utf8_lossy(&[sealed, previous.unwrap()].concat()).into_owned(),
    ];
    for hidden in [&secret[6..], &second[6..], "s3cr3t-of-theirs", "blue-team-value"] {
        assert!(told.iter().all(|text| !text.contains(hidden)), "{hidden}");
    }
    let audit = ana.client.get(&format!("/api/audit?target={id}")).await.ok();
    let acts: Vec<_> = audit["items"].as_array().unwrap().iter().map(|a| a["action"].as_str().unwrap()).collect();
    assert_eq!(acts, ["webhook.changed", "webhook.secret_rotated", "webhook.created"]);

    let leaked = ana.client.post(&path, json!({"overlap": 0})).await.ok();
    assert_eq!((&leaked["previousSecretUntil"], leaked["secret"].is_string()), (&Value::Null, true));
    let kept: bool = sqlx::query_scalar("select previous_secret is not null from webhook").fetch_one(&db).await.unwrap();
    assert!(!kept, "a secret that has leaked ends at once");
    assert_eq!(refusal(&ana.client.post(&path, json!({"overlap": 604_801})).await), invalid("overlap"));
}

#[tokio::test]
async fn a_webhook_to_the_inside_or_with_headers_of_ours_is_refused_and_the_field_is_named() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    for url in [
        "https://[::ffff:169.254.169.254]/latest/meta-data/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://2852039166/",
        "https://0251.0376.0251.0376/",
        "https://0xa9fea9fe/",
        "https://169.254.169.254/",
        "https://10.1/",
        "https://127.0.0.2/",
        "https://[::1]/",
        "https://user:word@example.com/",
        "https://user@example.com/",
        "https://example.com/#fragment",
        "https://example.com:6379/",
        "https://127.0.0.1:6379/",
        "https://exa\tmple.com/",
        "ftp://example.com/",
        "example.com",
        "",
    ] {
        assert_eq!(refusal(&make(&ana, json!({"url": url})).await), invalid("url"), "{url}");
    }
    for (headers, field) in [
        (json!({"x-a": "b\r\nx-c: d"}), "headers.x-a"),
        (json!({"x-a": "b\nc"}), "headers.x-a"),
        (json!({"x-a": "b\u{0}"}), "headers.x-a"),
        (json!({"Host": "inside"}), "headers.Host"),
        (json!({"Content-Length": "5"}), "headers.Content-Length"),
        (json!({"Transfer-Encoding": "chunked"}), "headers.Transfer-Encoding"),
        (json!({"webhook-signature": "v1,x"}), "headers.webhook-signature"),
        (json!({"a b": "c"}), "headers.ab"),
        (json!({"x\r\ny": "z"}), "headers.xy"),
    ] {
        assert_eq!(refusal(&make(&ana, json!({"headers": headers})).await), invalid(field));
    }
    let id = made(&ana, json!({})).await;
    let path = format!("/api/webhooks/{id}");
    assert_eq!(refusal(&ana.client.patch(&path, json!({"url": "https://169.254.169.254/"})).await), invalid("url"));
    assert_eq!(refusal(&ana.client.patch(&path, json!({"headers": {"x-a": "b\r\nc"}})).await), invalid("headers.x-a"));
    assert_eq!(ana.client.get("/api/webhooks").await.ok()["items"].as_array().unwrap().len(), 1, "nothing of it stayed");
}

#[tokio::test]
async fn only_admins_and_keys_for_webhooks_of_the_whole_tenant_reach_them_and_nobody_elses() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let id = made(&ana, json!({})).await;
    let (base, one) = ("/api/webhooks".to_owned(), format!("/api/webhooks/{id}"));
    let (chat, _) = ana.chat(PEER).await;
    let code = async |client: &harness::ApiClient, path: &str| client.get(path).await.body["code"].clone();
    let employee = ana.person("EMPLEADO").await;
    let sends = ana.key(json!({"scopes": ["messages:send"]})).await;
    let of_chats = ana.key(json!({"scopes": ["webhooks"], "chats": [chat]})).await;
    let of_sessions = ana.key(json!({"scopes": ["webhooks"], "sessions": ["default"]})).await;
    for path in [&base, &one] {
        assert_eq!(code(&employee.client, path).await, "role_forbidden");
        assert_eq!(code(&sends.client, path).await, "scope_missing");
        assert_eq!(code(&of_chats.client, path).await, "role_forbidden");
        assert_eq!(code(&of_sessions.client, path).await, "role_forbidden");
    }
    assert_eq!(refusal(&of_chats.client.post(&base, hook("x")).await).1, "role_forbidden");
    let delivery = format!("{one}/deliveries/dlv_00000000000000000000000000");
    for (method, path, body) in [
        (Method::GET, one.clone(), None),
        (Method::PATCH, one.clone(), Some(json!({"state": "paused"}))),
        (Method::DELETE, one.clone(), None),
        (Method::POST, format!("{one}/secret"), Some(json!({}))),
        (Method::POST, format!("{one}/replay"), Some(json!({"seq": 1}))),
        (Method::POST, format!("{one}/test"), None),
        (Method::GET, format!("{one}/deliveries"), None),
        (Method::GET, delivery.clone(), None),
        (Method::POST, format!("{delivery}/redeliver"), None),
    ] {
        let answer = bea.client.ask(method.clone(), &path, &[], body).await;
        assert_eq!(refusal(&answer).1, "not_found", "{method} {path}");
    }
    assert_eq!(ana.client.get(&one).await.ok()["state"], "active");
    assert_eq!(bea.client.get(&base).await.ok()["items"], json!([]));

    let machine = ana.key(json!({"scopes": ["webhooks"]})).await;
    let by_key = machine.client.post(&base, hook("by a machine")).await.ok();
    assert_eq!(by_key["createdBy"], json!(machine.id));
    ana.client.delete(&format!("/api/keys/{}", machine.id)).await.ok();
    let kept = ana.client.get(&format!("/api/webhooks/{}", by_key["id"].as_str().unwrap())).await.ok();
    assert_eq!((&kept["state"], &kept["createdBy"]), (&json!("active"), &json!(machine.id)), "it outlives its maker");
}

#[tokio::test]
async fn a_filter_names_what_the_tenant_has_and_a_merge_patch_changes_what_it_names() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let (chat, _) = ana.chat(PEER).await;
    let (foreign, _) = bea.chat("5511666660000").await;
    for (more, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"types": []}), "types"),
        (json!({"types": ["message", "session.qr"]}), "types[1]"),
        (json!({"types": ["moon.landed"]}), "types[0]"),
        (json!({"types": ["stream.gap"]}), "types[0]"),
        (json!({"sessions": []}), "sessions"),
        (json!({"chats": []}), "chats"),
        (json!({"concurrency": 0}), "concurrency"),
        (json!({"concurrency": 33}), "concurrency"),
        (json!({"orderedBy": "luck"}), "orderedBy"),
        (json!({"secret": "whsec_mine"}), "secret"),
    ] {
        assert_eq!(refusal(&make(&ana, more.clone()).await), invalid(field), "{more}");
    }
    for (more, field) in [
        (json!({"sessions": ["default", bea.session]}), "sessions[1]"),
        (json!({"chats": [chat, foreign]}), "chats[1]"),
        (json!({"chats": ["5511333330000"]}), "chats[0]"),
    ] {
        assert_eq!(refusal(&make(&ana, more).await), (404, "not_found".to_owned(), field.to_owned()));
    }
    assert_eq!(refusal(&make(&ana, json!({"chats": ["not a chat"]})).await), (400, "invalid_id".to_owned(), "chats[0]".to_owned()));

    let id = made(
        &ana,
        json!({"types": ["message", "message.ack", "message"], "sessions": ["default"], "chats": [PEER, chat], "ignoreOwn": true,
            "orderedBy": "chat", "headers": {"x-a": "1", "x-b": "2"}}),
    )
    .await;
    let path = format!("/api/webhooks/{id}");
    let shown = ana.client.get(&path).await.ok();
    assert_eq!((&shown["types"], &shown["sessions"]), (&json!(["message", "message.ack"]), &json!([ana.session])));
    assert_eq!((&shown["chats"], &shown["orderedBy"], &shown["concurrency"]), (&json!([chat]), &json!("chat"), &json!(4)));
    assert_eq!((&shown["ignoreOwn"], &shown["ignoreGroups"], &shown["reason"]), (&json!(true), &json!(false), &Value::Null));

    let patch = json!({"name": "renamed", "types": null, "chats": null, "headers": {"X-A": null, "x-c": "3"}, "ignoreOwn": false});
    let changed = ana.client.patch(&path, patch).await.ok();
    assert_eq!((&changed["name"], &changed["types"], &changed["chats"]), (&json!("renamed"), &Value::Null, &Value::Null));
    assert_eq!((&changed["headers"], &changed["sessions"]), (&json!(["x-b", "x-c"]), &shown["sessions"]));
    assert_eq!(ana.client.patch(&path, json!({"headers": null})).await.ok()["headers"], json!([]));
    for (patch, field) in [
        (json!({"url": null}), "url"),
        (json!({"state": "disabled"}), "state"),
        (json!({"types": []}), "types"),
        (json!({"ignoreOwn": null}), "ignoreOwn"),
        (json!({"cursor": 0}), "cursor"),
    ] {
        assert_eq!(refusal(&ana.client.patch(&path, patch).await), invalid(field));
    }
    let patches = (0..8).map(|n| {
        let (ana, path) = (&ana, &path);
        async move { ana.client.patch(path, json!({"headers": {format!("x-{n}"): "v"}})).await.status }
    });
    assert!(join_all(patches).await.iter().all(StatusCode::is_success));
    let all = ana.client.get(&path).await.ok();
    assert_eq!(all["headers"].as_array().unwrap().len(), 8, "no header is lost between those who add one at once: {}", all["headers"]);
}

#[tokio::test]
async fn the_limit_holds_exactly_however_many_are_made_at_once() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let answers = join_all((0..50).map(|n| {
        let ana = &ana;
        async move {
            let key = format!("key-{n}");
            ana.client.ask(Method::POST, "/api/webhooks", &[("idempotency-key", &key)], Some(hook(&format!("number {n}")))).await
        }
    }))
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == StatusCode::CREATED);
    assert_eq!(made.len(), 10);
    for answer in refused {
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (429, &json!("quota_exceeded")), "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
    }
    let limits = ana.client.get("/api/limits").await.ok();
    let ours = limits["items"].as_array().unwrap().iter().find(|l| l["name"] == "webhooks").unwrap().clone();
    assert_eq!((&ours["value"], &ours["used"]), (&json!(10), &json!(10)));
    let page = ana.client.get("/api/webhooks?limit=4").await.ok();
    let rest = ana.client.get(&format!("/api/webhooks?limit=200&cursor={}", page["next"].as_str().unwrap())).await.ok();
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len(), &rest["next"]), (4, 6, &Value::Null));

    assert_eq!(make(&bea, json!({})).await.status, StatusCode::CREATED, "another tenant has its own");
    let id = made[0].body["id"].as_str().unwrap();
    assert_eq!(ana.client.delete(&format!("/api/webhooks/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ana.client.delete(&format!("/api/webhooks/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(make(&ana, json!({})).await.status, StatusCode::CREATED, "what is deleted makes room");
}

#[tokio::test]
async fn pausing_and_resuming_is_told_in_the_log_and_said_twice_it_is_told_once() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let id = made(&ana, json!({})).await;
    let path = format!("/api/webhooks/{id}");
    let turn = async |state: &str| ana.client.patch(&path, json!({"state": state})).await.ok();
    assert_eq!(turn("active").await["state"], "active");
    let paused = turn("paused").await;
    assert_eq!((&paused["state"], &paused["reason"]), (&json!("paused"), &json!("requested")));
    assert_eq!(turn("paused").await["stateAt"], paused["stateAt"]);
    stack.sql("update webhook set state = 'disabled', reason = 'gone', failing_since = clock_timestamp()").await.unwrap();
    let back = turn("active").await;
    assert_eq!((&back["state"], &back["reason"], &back["failingSince"]), (&json!("active"), &Value::Null, &Value::Null));
    let events = ana.client.events(0).await;
    let told: Vec<_> = events.iter().filter(|e| e["type"] == "webhook.status").map(|e| e["data"].clone()).collect();
    assert_eq!(
        told,
        [json!({"webhook": id, "state": "paused", "reason": "requested"}), json!({"webhook": id, "state": "active", "reason": null})]
    );
}

/// Five events of a tenant whose sessions no host runs.
async fn five_events(tenant: &Tenant) -> i64 {
    for n in 0..5 {
        let path = if n % 2 == 0 { "/api/whatsapp/init" } else { "/api/whatsapp/stop" };
        tenant.client.post(path, json!({})).await.ok();
    }
    tenant.client.events(0).await.last().and_then(|e| e["seq"].as_i64()).expect("there are events")
}

#[tokio::test]
async fn a_replay_turns_the_cursor_back_and_never_forward() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let head = five_events(&ana).await;
    let id = made(&ana, json!({})).await;
    let path = format!("/api/webhooks/{id}/replay");
    let replay = async |body: Value| ana.client.post(&path, body).await;
    assert_eq!(ana.client.get(&format!("/api/webhooks/{id}")).await.ok()["cursor"], json!(head), "it is told of what comes");
    for kind in ["live", "redelivery"] {
        stack.postgres.sql(&format!(
            "insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state)
             select gen_random_uuid(), w.tenant, w.id, e.id, e.seq, e.type, '{kind}', 'waiting' from webhook w join event e on e.tenant = w.tenant
              where e.seq in ({}, {head})",
            head - 3
        ));
    }

    let back = replay(json!({"seq": head - 2})).await.ok();
    assert_eq!((&back["cursor"], &back["waiting"]), (&json!(head - 3), &json!(3)), "what waits from there on is read from the log again");
    assert_eq!(replay(json!({"seq": head})).await.ok()["cursor"], json!(head - 3), "never forward");
    let remembered: i64 = sqlx::query_scalar("select replay_until from webhook").fetch_one(&stack.db().await).await.unwrap();
    assert_eq!(remembered, head);
    let ahead = replay(json!({"seq": head + 1})).await;
    assert_eq!((refusal(&ahead), &ahead.body["head"]), ((409, "cursor_ahead".into(), "seq".into()), &json!(head)));
    assert_eq!(replay(json!({"since": "2100-01-01T00:00:00Z"})).await.ok()["cursor"], json!(head - 3));
    assert_eq!(replay(json!({"since": "2020-01-01T00:00:00Z"})).await.ok()["cursor"], json!(0), "all of a log that has lost nothing");
    let since = ana.client.events(head - 2).await[0]["timestamp"].clone();
    stack.postgres.sql(&format!("update webhook set cursor_seq = {head}"));
    let back = replay(json!({"since": since})).await.ok()["cursor"].as_i64().unwrap();
    assert!((head - 3..=head - 2).contains(&back), "{back}: the first of that millisecond");

    stack.postgres.sql(&format!("update tenant_counter set floor_seq = {}", head - 1));
    for (body, field) in [(json!({"seq": head - 2}), "seq"), (json!({"since": "2020-01-01T00:00:00Z"}), "since")] {
        let expired = replay(body).await;
        assert_eq!((refusal(&expired), &expired.body["oldest"]), ((410, "cursor_expired".into(), field.into()), &json!(head - 1)));
    }
    for (body, field) in [
        (json!({}), "seq"),
        (json!({"seq": 1, "since": "2020-01-01T00:00:00Z"}), "seq"),
        (json!({"seq": 0}), "seq"),
        (json!({"since": "yesterday"}), "since"),
        (json!({"seq": 1, "until": 2}), "until"),
    ] {
        assert_eq!(refusal(&replay(body).await), invalid(field));
    }
}

#[tokio::test]
async fn a_delivery_is_found_by_state_and_type_and_sent_again_while_its_event_is_in_the_log() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let head = five_events(&ana).await;
    let id = made(&ana, json!({})).await;
    let base = format!("/api/webhooks/{id}/deliveries");
    let row = |n: i64, seq: &str, kind: &str, state: &str| {
        let delivery = contract::DeliveryId::new();
        stack.postgres.sql(&format!(
            "insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state, attempt, status, error, duration_ms, answer, finished_at)
             select '{}', w.tenant, w.id, gen_random_uuid(), {seq}, 'session.status', '{kind}', '{state}', {n}, 503, null, 12, 'sorry', clock_timestamp()
               from webhook w where w.id = '{}'",
            delivery.uuid(),
            uuid_of(&id)
        ));
        delivery.to_string()
    };
    let dead = row(20, &head.to_string(), "live", "dead");
    let dropped = row(1, "999999", "live", "delivered");
    let tested = row(1, "null", "test", "delivered");
    let waiting = row(3, &(head - 1).to_string(), "live", "waiting");
    let listed = async |query: &str| {
        let page = ana.client.get(&format!("{base}?{query}")).await.ok();
        page["items"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, [waiting.clone(), tested.clone(), dropped.clone(), dead.clone()]);
    assert_eq!(listed("state=dead").await, std::slice::from_ref(&dead));
    assert_eq!(listed("state=delivered&type=session.status").await, [tested.clone(), dropped.clone()]);
    assert_eq!(listed("type=message").await, Vec::<String>::new());
    let page = ana.client.get(&format!("{base}?limit=3")).await.ok();
    assert_eq!(listed(&format!("cursor={}", page["next"].as_str().unwrap())).await, std::slice::from_ref(&dead));
    let shown = ana.client.get(&format!("{base}/{dead}")).await.ok();
    assert_eq!((&shown["state"], &shown["attempts"], &shown["status"]), (&json!("dead"), &json!(20), &json!(503)));
    assert_eq!((&shown["answer"], &shown["durationMs"], &shown["seq"]), (&json!("sorry"), &json!(12), &json!(head)));

    let path = |delivery: &str| format!("{base}/{delivery}/redeliver");
    let once = [("idempotency-key", "again")];
    let asked = ana.client.ask(Method::POST, &path(&dead), &once, None).await;
    assert_eq!((asked.status, &asked.body["kind"], &asked.body["state"]), (StatusCode::ACCEPTED, &json!("redelivery"), &json!("waiting")));
    assert_eq!((&asked.body["event"], &asked.body["seq"], &asked.body["attempts"]), (&shown["event"], &shown["seq"], &json!(0)));
    assert_eq!(asked.headers["location"].to_str().unwrap(), format!("{base}/{}", asked.body["id"].as_str().unwrap()));
    let repeated = ana.client.ask(Method::POST, &path(&dead), &once, None).await;
    assert_eq!((&repeated.body["id"], &repeated.headers["idempotency-replayed"]), (&asked.body["id"], &"true".parse().unwrap()));
    assert_eq!(listed("state=waiting").await.len(), 2);
    for (delivery, status, code) in
        [(&waiting, 409, "delivery_not_repeatable"), (&tested, 409, "delivery_not_repeatable"), (&dropped, 410, "event_expired")]
    {
        let answer = ana.client.post(&path(delivery), json!({})).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (status, &json!(code)));
    }
    let missing = ana.client.post(&path("dlv_00000000000000000000000000"), json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_test_call_waits_for_its_end_as_long_as_it_is_asked_to_and_a_paused_webhook_has_none() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let id = made(&ana, json!({})).await;
    let path = format!("/api/webhooks/{id}/test");
    // No worker runs here.
    let asked = ana.client.ask(Method::POST, &path, &[("prefer", "wait=1"), ("idempotency-key", "t")], None).await;
    assert_eq!((asked.status, &asked.body["kind"], &asked.body["type"]), (StatusCode::ACCEPTED, &json!("test"), &json!("webhook.test")));
    assert_eq!((&asked.body["seq"], &asked.body["state"]), (&Value::Null, &json!("waiting")));
    let body: Value = sqlx::query_scalar("select body from webhook_delivery").fetch_one(&stack.db().await).await.unwrap();
    assert_eq!((&body["id"], &body["seq"], &body["type"]), (&asked.body["event"], &Value::Null, &json!("webhook.test")));
    assert_eq!((&body["tenant"], &body["data"]["webhook"]), (&json!(ana.id), &json!(id)));
    assert!(chrono::DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());

    let held = [("prefer", "wait=20"), ("idempotency-key", "t")];
    let (answer, ()) = tokio::join!(ana.client.ask(Method::POST, &path, &held, None), async {
        stack.sql("update webhook_delivery set state = 'delivered', status = 204, attempt = 1").await.unwrap();
    });
    assert_eq!((answer.status, &answer.body["id"], &answer.body["status"]), (StatusCode::OK, &asked.body["id"], &json!(204)));

    ana.client.patch(&format!("/api/webhooks/{id}"), json!({"state": "paused"})).await.ok();
    let refused = ana.client.post(&path, json!({})).await;
    assert_eq!(refusal(&refused), (409, "webhook_not_active".to_owned(), String::new()));
    let rows: i64 = sqlx::query_scalar("select count(*) from webhook_delivery").fetch_one(&stack.db().await).await.unwrap();
    assert_eq!(rows, 1);
}
