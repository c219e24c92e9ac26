//! A chat as a file: it says what the API says, nobody finds it who may not make it, nobody reads it from the disk, and it goes in time.

use std::{path::Path, time::Duration};

use harness::{Stack, Tenant, client::ApiClient, faults::Word, services::Worker, until_true};
use reqwest::{Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::PEER;

const SOON: Duration = Duration::from_secs(30);
const QUICK: &str = r#"{"lookEveryMs": 100, "claimMs": 3000, "heartbeatEveryMs": 1000, "everyMs": {"exports.sweep": 300}}"#;
/// More than two pages.
const MANY: usize = 1203;
/// What breaks careless writers of lines.
const ODD: [&str; 6] = [
    "a\r\nb\n{\"id\": \"forged\"}",
    "\u{2028}\u{2029}\u{85}",
    "\\\" \u{1b}[31m __proto__",
    "\u{202E}abc\u{1F600}\u{0301}",
    " ",
    "café — niño 👩‍👩‍👧",
];

/// Messages of two years' days, five a second, of both sides.
fn fill(stack: &Stack, chat: &str, many: usize) {
    let chat = chat.parse::<contract::ChatId>().expect("an id").uuid();
    let odd: Vec<String> = ODD.iter().map(|text| format!("$odd${text}$odd$")).collect();
    stack.postgres.sql(&format!(
        "insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, body, status, source, sent_at, recovered)
         select gen_random_uuid(), c.tenant, c.session, c.account, c.id, n % 3 = 0, '', 'W' || n, case when n % 7 = 0 then 'image' else 'text' end,
                case when n % 7 = 0 then null when n % 50 = 1 then repeat('x', 70000) when n % 5 = 0 then (array[{}])[1 + n / 5 % 6] else 'spoken ' || n end,
                case when n % 3 = 0 then 'read' else 'received' end, 'phone', date_trunc('second', now()) - make_interval(secs => 9000 - n / 5), n % 11 = 0
           from chat c, generate_series(1, {many}) n where c.id = '{chat}';
         update chat set last_message_at = now(), name = $odd$Bea \"la\" Ñ$odd$ where id = '{chat}'",
        odd.join(", ")
    ));
}

/// What the API lists, oldest first.
async fn listed(client: &ApiClient, chat: &str) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/chats/{chat}/messages?limit=200{next}")).await.ok();
        all.extend(page["items"].as_array().expect("a list").iter().cloned());
        let Some(before) = page["next"].as_str() else { break };
        next = format!("&before={before}");
    }
    all.reverse();
    all
}

async fn asked(client: &ApiClient, chat: &str) -> String {
    let answer = client.post(&format!("/api/chats/{chat}/exports"), json!({})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    answer.body["id"].as_str().expect("an id").to_owned()
}

/// The job's result, once it succeeded.
async fn made(client: &ApiClient, chat: &str) -> Value {
    let job = client.ended(&asked(client, chat).await, SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    job["result"].clone()
}

async fn downloaded(client: &ApiClient, result: &Value) -> Vec<Value> {
    let (status, bytes) = client.bytes(&format!("/api/exports/{}/content", result["export"].as_str().expect("an id")), "*/*").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(bytes.len() as u64, result["size"]);
    let sha256: String = digest(&SHA256, &bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(sha256, result["sha256"]);
    assert_eq!(bytes.last(), Some(&b'\n'));
    let text = String::from_utf8(bytes).expect("it is text");
    text.split_terminator('\n').map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

async fn worker(stack: &mut Stack) -> Worker {
    stack.try_worker(QUICK).await.expect("a worker starts")
}

async fn company(stack: &Stack) -> (Tenant, String) {
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat(PEER).await;
    fill(stack, &chat, MANY);
    (ana, chat)
}

#[tokio::test]
async fn an_export_says_what_the_api_lists_line_by_line_and_its_object_tells_nothing() {
    let mut stack = Stack::start().await;
    let (ana, chat) = company(&stack).await;
    let path = format!("/api/chats/{chat}/exports");
    let first = ana.client.ask(Method::POST, &path, &[("idempotency-key", "k")], None).await;
    assert_eq!(
        (first.status, &first.body["kind"], &first.body["waitingFor"]),
        (StatusCode::ACCEPTED, &json!("exportChat"), &json!("worker"))
    );
    let again = ana.client.ask(Method::POST, &path, &[("idempotency-key", "k")], None).await;
    assert_eq!((&again.body["id"], &again.headers["idempotency-replayed"]), (&first.body["id"], &"true".parse().unwrap()));
    let _worker = worker(&mut stack).await;
    let job = ana.client.ended(first.body["id"].as_str().unwrap(), SOON).await;
    assert_eq!((&job["state"], &job["progress"]), (&json!("succeeded"), &json!({"done": MANY + 1, "total": MANY + 1})), "{job}");
    let result = &job["result"];
    assert_eq!((&result["messages"], &result["chat"]), (&json!(MANY + 1), &json!(chat)));

    let lines = downloaded(&ana.client, result).await;
    assert_eq!((&lines[0]["export"]["id"], &lines[0]["export"]["format"]), (&result["export"], &json!("zaguan.chat.v1")));
    let mut shown = ana.client.get(&format!("/api/chats/{chat}")).await.ok();
    for of_the_answer in ["asOf", "complete"] {
        shown.as_object_mut().unwrap().remove(of_the_answer);
    }
    assert_eq!(lines[0]["chat"], shown);
    let listed = listed(&ana.client, &chat).await;
    assert_eq!(listed.len(), MANY + 1);
    assert!(lines[1..] == listed[..], "each line is what the list shows, in its order");
    assert!(ODD.iter().all(|odd| listed.iter().any(|m| m["text"] == *odd)), "with all the odd texts");

    let export = ana.client.get(&format!("/api/exports/{}", result["export"].as_str().unwrap())).await.ok();
    let all = ana.client.get(&format!("/api/exports?chat={chat}")).await.ok();
    assert_eq!(all["items"], json!([export]));
    for same in ["size", "sha256", "messages", "chat", "expiresAt"] {
        assert_eq!(export[same], result[same]);
    }
    let answer = ana.client.get(&format!("/api/exports/{}/content", export["id"].as_str().unwrap())).await;
    let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("etag"), format!("\"{}\"", result["sha256"].as_str().unwrap()));
    assert_eq!(header("content-disposition"), format!("attachment; filename=\"{}\"", export["fileName"].as_str().unwrap()));
    assert_eq!((header("content-type"), header("cache-control")), ("application/x-ndjson".into(), "no-store".into()));

    // Sealed where it lies; and the logs know nothing of it.
    let objects = files(stack.objects());
    assert_eq!(objects.len(), 1);
    let sealed = std::fs::read(&objects[0]).unwrap();
    assert!(sealed.len() as u64 > result["size"].as_u64().unwrap());
    let said = files(&stack.folder().join("logs")).iter().map(|log| std::fs::read(log).unwrap()).collect::<Vec<_>>().concat();
    for hidden in [&b"spoken"[..], PEER.as_bytes(), b"waId"] {
        assert!(![&sealed, &said].iter().any(|bytes| bytes.windows(hidden.len()).any(|w| w == hidden)));
    }
}

#[tokio::test]
async fn an_export_is_there_for_an_admin_and_for_a_key_that_sees_its_chat_and_for_nobody_else() {
    let mut stack = Stack::start().await;
    let (ana, chat) = company(&stack).await;
    let (other, _) = ana.chat("5511777770000").await;
    let bea = stack.tenant("bea").await;
    let _worker = worker(&mut stack).await;
    let result = made(&ana.client, &chat).await;
    let export = result["export"].as_str().unwrap();
    let paths = [format!("/api/exports/{export}"), format!("/api/exports/{export}/content")];
    let code = async |client: &ApiClient, path: &str| {
        let answer = client.get(path).await;
        (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or_default().to_owned())
    };

    // An EMPLEADO of the chat: neither the export, nor its job, nor what is told of it.
    let employee = ana.person("EMPLEADO").await;
    ana.grant(&employee.id, &chat, "write").await;
    let job = ana.client.get("/api/jobs?limit=1").await.ok()["items"][0].clone();
    assert_eq!((&job["kind"], &job["chat"]), (&json!("exportChat"), &Value::Null));
    for path in paths.iter().map(String::as_str).chain(["/api/exports"]) {
        assert_eq!(code(&employee.client, path).await, (403, "role_forbidden".into()), "{path}");
    }
    assert_eq!(employee.client.post(&format!("/api/chats/{chat}/exports"), json!({})).await.status, StatusCode::FORBIDDEN);
    assert_eq!(code(&employee.client, &format!("/api/jobs/{}", job["id"].as_str().unwrap())).await.0, 404);
    assert!(ana.client.events(0).await.iter().any(|e| e["data"]["job"]["id"] == job["id"]));
    assert!(!employee.client.events(0).await.iter().any(|e| e["data"]["job"]["id"] == job["id"]));

    // Keys: the scope alone is not enough, nor is another chat, nor one that begins now.
    let all = ana.key(json!({"scopes": ["export"]})).await;
    let right = ana.key(json!({"scopes": ["export"], "chats": [chat]})).await;
    let elsewhere = ana.key(json!({"scopes": ["export"], "chats": [other]})).await;
    let unscoped = ana.key(json!({"scopes": ["chats:read", "messages:read", "media"]})).await;
    let late = ana.key(json!({"scopes": ["export"], "chats": []})).await;
    let from_now = json!({"session": "default", "chat": chat, "access": "read", "history": "fromNow"});
    ana.client.post(&format!("/api/keys/{}/grants", late.id), from_now).await.ok();
    for path in &paths {
        assert_eq!(code(&all.client, path).await.0, 200);
        assert_eq!(code(&right.client, path).await.0, 200);
        assert_eq!(code(&unscoped.client, path).await, (403, "scope_missing".into()));
        for stranger in [&elsewhere.client, &late.client, &bea.client, &bea.key(json!({"scopes": ["export"]})).await.client] {
            assert_eq!(code(stranger, path).await, (404, "not_found".into()), "{path}");
        }
        assert_eq!(code(&ana.client.stranger(), path).await.0, 401);
    }
    for client in [&elsewhere.client, &late.client, &bea.client] {
        assert_eq!(client.get("/api/exports").await.ok()["items"], json!([]));
        assert_eq!(client.delete(&paths[0]).await.status, StatusCode::NOT_FOUND);
    }
    for client in [&elsewhere.client, &bea.client] {
        assert_eq!(client.post(&format!("/api/chats/{chat}/exports"), json!({})).await.status, StatusCode::NOT_FOUND);
    }

    // Who sees the chat from now on exports what it sees, and finds the job that it made.
    let mine = made(&late.client, &chat).await;
    assert_eq!(mine["messages"], 0);
    let lines = downloaded(&late.client, &mine).await;
    assert_eq!((lines.len(), lines[0]["export"]["since"].is_string()), (1, true));
    assert_eq!(ana.client.get("/api/exports?limit=1").await.ok()["items"][0]["id"], mine["export"]);

    // What is asked for wrongly, and too often.
    for (path, status, why) in [
        ("/api/exports/exp_1", 400, "invalid_id"),
        ("/api/exports/exp_00000000000000000000000000", 404, "not_found"),
        ("/api/exports?limit=0", 400, "invalid_parameter"),
        ("/api/exports?cursor=x", 400, "invalid_parameter"),
        ("/api/exports?chat=x", 400, "invalid_id"),
        ("/api/exports?session=nobody", 404, "not_found"),
    ] {
        assert_eq!(code(&ana.client, path).await, (status, why.to_owned()), "{path}");
    }
    assert_eq!(ana.client.post("/api/chats/%2500/exports", json!({})).await.status, StatusCode::BAD_REQUEST);
    let tenant = ana.id.parse::<contract::TenantId>().unwrap().uuid();
    stack.postgres.sql(&format!("insert into usage_limit (tenant, name, value) values ('{tenant}', 'exports', 2)"));
    let full = ana.client.post(&format!("/api/chats/{chat}/exports"), json!({})).await;
    assert_eq!((full.status.as_u16(), &full.body["code"]), (429, &json!("quota_exceeded")));

    // Deleted before its time: row, key and object.
    assert_eq!(ana.client.delete(&paths[0]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(code(&ana.client, &paths[1]).await.0, 404);
    assert_eq!(files(stack.objects()).len(), 1);
    let audit = ana.client.get("/api/audit").await.ok();
    let acts: Vec<_> =
        audit["items"].as_array().unwrap().iter().filter_map(|a| a["action"].as_str()).filter(|a| a.starts_with("export.")).collect();
    assert_eq!(acts, ["export.deleted", "export.downloaded", "export.created", "export.downloaded", "export.downloaded", "export.created"]);
}

#[tokio::test]
async fn an_export_whose_worker_is_killed_in_the_middle_is_made_again_and_shows_one_moment() {
    let mut stack = Stack::start().await;
    let (ana, chat) = company(&stack).await;
    let mut page = stack.points().arm("worker.export.page");
    let mut written = stack.points().arm("worker.export.written");
    let mut first = worker(&mut stack).await;
    let job = asked(&ana.client, &chat).await;
    page.arrived().await.reply(Word::Go).await;
    page.arrived().await.reply(Word::Die).await;
    assert!(!first.process.wait(SOON).await.expect("it dies").success());
    assert_eq!(ana.client.job(&job).await["state"], "running");
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"], json!([]));

    let mut second = worker(&mut stack).await;
    let before = listed(&ana.client, &chat).await;
    let arrival = page.arrived().await;
    // What comes now, however old it says it is, is of a later moment.
    fill_late(&stack, &chat);
    arrival.reply(Word::Go).await;
    let paging = tokio::spawn(async move {
        loop {
            page.arrived().await.reply(Word::Go).await;
        }
    });
    // Whole, and not yet there: its worker dies again.
    written.arrived().await.reply(Word::Die).await;
    second.process.wait(SOON).await.expect("it dies");
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"], json!([]));
    stack.postgres.sql("delete from message where wa_id like 'LATE%'");
    let _third = worker(&mut stack).await;
    written.arrived().await.reply(Word::Go).await;
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(3)), "{job}");
    assert!(downloaded(&ana.client, &job["result"]).await[1..] == before[..]);
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"].as_array().unwrap().len(), 1);
    paging.abort();

    // What the second left has no row: it goes after a day, and the other stays.
    let objects = files(stack.objects());
    assert_eq!(objects.iter().filter(|o| !o.to_string_lossy().contains('#')).count(), 2);
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for object in &objects {
        std::fs::File::options().write(true).open(object).unwrap().set_modified(long_ago).unwrap();
    }
    until_true("what no row names to go", SOON, || async { files(stack.objects()).len() == 1 }).await;
    downloaded(&ana.client, &job["result"]).await;
}

fn fill_late(stack: &Stack, chat: &str) {
    let chat = chat.parse::<contract::ChatId>().expect("an id").uuid();
    stack.postgres.sql(&format!(
        "insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, body, status, source, sent_at)
         select gen_random_uuid(), c.tenant, c.session, c.account, c.id, false, '', 'LATE' || n, 'text', 'late', 'received', 'phone',
                now() - make_interval(secs => n) from chat c, unnest(array[0, 9000]) n where c.id = '{chat}'"
    ));
}

#[tokio::test]
async fn what_comes_while_a_chat_is_exported_is_not_in_it() {
    let mut stack = Stack::start().await;
    let (ana, chat) = company(&stack).await;
    let before = listed(&ana.client, &chat).await;
    let mut page = stack.points().arm_once("worker.export.page");
    let _worker = worker(&mut stack).await;
    let job = asked(&ana.client, &chat).await;
    let arrival = page.arrived().await;
    fill_late(&stack, &chat);
    arrival.reply(Word::Go).await;
    let job = ana.client.ended(&job, SOON).await;
    assert!(downloaded(&ana.client, &job["result"]).await[1..] == before[..]);

    // Its time is over: nobody finds it, and before long nothing is left of it.
    let id = job["result"]["export"].as_str().unwrap();
    stack.postgres.sql("update export set expires_at = now() - interval '1 second'");
    for path in [format!("/api/exports/{id}"), format!("/api/exports/{id}/content")] {
        assert_eq!(ana.client.get(&path).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"], json!([]));
    until_true("its object to go", SOON, || async { files(stack.objects()).is_empty() }).await;
    assert_eq!(stack.postgres.sql("select count(*) from export"), "0");
}
