//! A key does what its scopes, its lists and its maker allow, and nothing else.

use std::time::Duration;

use contract::Scope;
use harness::{Stack, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text, "whenUnavailable": "queue"})
}

#[tokio::test]
async fn a_key_is_shown_once_and_does_what_its_scopes_say() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat(PEER).await;
    let key = ana.key(json!({"scopes": ["messages:send"]})).await;
    let secret = key.client.token().to_owned();
    assert!(secret.starts_with(&format!("{}_", key.id)));
    let shown = ana.client.get(&format!("/api/keys/{}", key.id)).await.ok();
    assert!(!shown.to_string().contains(&secret[31..]), "the secret is shown once");

    let sent = key.client.post(&format!("/api/chats/{PEER}/messages"), text("by a machine")).await;
    assert_eq!((sent.status.as_u16(), &sent.body["createdBy"]), (202, &json!(key.id)));
    let messages = ana.client.get(&format!("/api/chats/{chat}/messages")).await.ok();
    assert_eq!(messages["items"][0]["sentBy"], json!(key.id));
    let by_header = ana.client.stranger();
    let sent =
        by_header.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &[("x-api-key", &secret)], Some(text("by header"))).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    until("its use to be noted", Duration::from_secs(2), || async {
        ana.client.get(&format!("/api/keys/{}", key.id)).await.ok()["lastUsedAt"].is_string().then_some(())
    })
    .await;

    for path in ["/api/events", "/api/chats", "/api/jobs", "/api/sessions", "/api/audit", "/api/keys", "/api/users", "/api/whatsapp/qr"] {
        let answer = key.client.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (403, &json!("scope_missing")), "{path}");
    }
    let me = key.client.get("/api/me").await.ok();
    assert_eq!((&me["id"], &me["scopes"], &me["email"]), (&json!(key.id), &json!(["messages:send"]), &Value::Null));
}

#[tokio::test]
async fn no_key_manages_people_grants_or_keys_whatever_its_scopes() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let all = Scope::ALL;
    let key = ana.key(json!({"scopes": all})).await;
    let me = ana.client.get("/api/me").await.ok()["id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        (Method::GET, "/api/users".to_owned(), None),
        (Method::POST, "/api/users".to_owned(), Some(json!({"email": "a@b", "name": "a", "rol": "ADMIN"}))),
        (Method::PATCH, format!("/api/users/{me}"), Some(json!({"name": "x"}))),
        (Method::POST, format!("/api/users/{me}/password-reset"), None),
        (Method::POST, format!("/api/users/{me}/grants"), Some(json!({"session": "default", "all": true, "access": "read"}))),
        (Method::POST, "/api/keys".to_owned(), Some(json!({"name": "x", "scopes": all}))),
        (Method::POST, format!("/api/keys/{}/grants", key.id), Some(json!({"session": "default", "all": true, "access": "read"}))),
        (Method::DELETE, format!("/api/keys/{}", key.id), None),
        (Method::POST, "/api/auth/password".to_owned(), Some(json!({"currentPassword": "x", "newPassword": "y"}))),
    ] {
        let answer = key.client.ask(method.clone(), &path, &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (403, &json!("scope_missing")), "{method} {path}");
    }
}

#[tokio::test]
async fn a_key_with_lists_reaches_what_they_name_and_sends_nothing_elsewhere() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let (chat, job) = ana.chat(PEER).await;
    let (other, _) = ana.chat("5511777770000").await;
    let (foreign, _) = bea.chat(PEER).await;
    stack.sql("update chat set last_message_at = clock_timestamp()").await.unwrap();
    let second = ana.client.post("/api/sessions", json!({"name": "second"})).await.ok()["id"].as_str().unwrap().to_owned();
    let scopes = json!(["messages:send", "messages:read", "chats:read", "events:read", "sessions:read", "sessions:control"]);

    for lists in [json!({"chats": [foreign]}), json!({"chats": [chat], "sessions": ["second"]}), json!({"sessions": [bea.session]})] {
        let mut body = json!({"name": "x", "scopes": scopes});
        body.as_object_mut().unwrap().extend(lists.as_object().unwrap().clone());
        assert_eq!(ana.client.post("/api/keys", body).await.status, StatusCode::NOT_FOUND, "{lists}");
    }

    let key = ana.key(json!({"scopes": scopes, "chats": [chat]})).await;
    assert_eq!(key.client.get("/api/chats").await.ok()["items"].as_array().unwrap().len(), 1);
    assert!(key.client.post(&format!("/api/chats/{chat}/messages"), text("allowed")).await.status.is_success());
    assert!(key.client.get(&format!("/api/jobs/{job}")).await.status.is_success());
    for path in [format!("/api/chats/{other}"), "/api/chats/5511777770000/messages".to_owned()] {
        assert_eq!(key.client.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for to in [other.as_str(), "5511777770000", "5511333330000"] {
        assert_eq!(key.client.post(&format!("/api/chats/{to}/messages"), text("no")).await.status, StatusCode::NOT_FOUND, "{to}");
    }
    for (path, body) in [("/api/sessions", json!({"name": "third"})), ("/api/whatsapp/stop", json!({}))] {
        assert_eq!(key.client.post(path, body).await.body["code"], "role_forbidden", "{path}");
    }
    let grant = ana.grant(&key.id, &other, "read").await;
    assert!(key.client.get(&format!("/api/chats/{other}")).await.status.is_success());
    ana.client.delete(&format!("/api/keys/{}/grants/{grant}", key.id)).await.ok();
    assert_eq!(key.client.get(&format!("/api/chats/{other}")).await.status, StatusCode::NOT_FOUND);

    let key = ana.key(json!({"scopes": scopes, "sessions": ["second"]})).await;
    let shown = key.client.get("/api/sessions").await.ok();
    assert_eq!((shown["items"].as_array().unwrap().len(), &shown["items"][0]["id"]), (1, &json!(second)));
    for path in ["/api/chats", "/api/sessions/default", "/api/whatsapp/status", "/api/events?session=default"] {
        assert_eq!(key.client.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(key.client.post("/api/whatsapp/stop", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(key.client.post("/api/sessions/second/stop", json!({})).await.status, StatusCode::ACCEPTED);
    let sent = key.client.post(&format!("/api/sessions/second/chats/{PEER}/messages"), text("here")).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "all chats of the session, those to come too: {}", sent.body);
    assert_eq!(key.client.get("/api/jobs").await.ok()["items"].as_array().unwrap().len(), 1);
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    assert!(key.client.events(0).await.iter().all(|e| e["session"] == json!(second)), "no event of a session that it does not reach");
    let unlimited = ana.key(json!({"scopes": ["chats:read"]})).await;
    let path = format!("/api/keys/{}/grants", unlimited.id);
    let body = json!({"session": "default", "chat": chat, "access": "read"});
    assert_eq!(ana.client.post(&path, body).await.body["code"], "key_unlimited");
}

#[tokio::test]
async fn a_key_ends_with_its_time_its_revocation_and_its_maker_and_follows_its_makers_rights() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat(PEER).await;
    let (other, _) = ana.chat("5511777770000").await;
    let maker = ana.person("ADMIN").await;
    let make = async |body: Value| {
        let made = maker.client.post("/api/keys", body).await.ok();
        (made["id"].as_str().unwrap().to_owned(), ana.client.with_token(made["secret"].as_str().unwrap()))
    };
    let read = json!({"name": "r", "scopes": ["chats:read", "sessions:read", "sessions:control"]});
    let (id, key) = make(read.clone()).await;
    let (_, listed) = make(json!({"name": "l", "scopes": ["chats:read"], "chats": [chat, other]})).await;
    let (_, expired) = make(json!({"name": "e", "scopes": ["chats:read"], "expiresAt": "2001-01-01T00:00:00Z"})).await;
    assert_eq!(expired.get("/api/chats").await.body["code"], "token_expired");
    assert!(key.get(&format!("/api/chats/{chat}")).await.status.is_success());
    assert!(listed.get(&format!("/api/chats/{other}")).await.status.is_success());

    // Demoted: both keys see what their maker sees, and control no sessions.
    ana.client.patch(&format!("/api/users/{}", maker.id), json!({"rol": "EMPLEADO"})).await.ok();
    ana.grant(&maker.id, &chat, "read").await;
    let within = Duration::from_secs(2);
    until("the keys to follow their maker", within, || async {
        (key.get(&format!("/api/chats/{other}")).await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    assert_eq!(listed.get(&format!("/api/chats/{other}")).await.status, StatusCode::NOT_FOUND);
    assert!(key.get(&format!("/api/chats/{chat}")).await.status.is_success());
    assert_eq!(listed.get(&format!("/api/chats/{chat}")).await.status, StatusCode::NOT_FOUND, "it may write there, its maker may not");
    ana.grant(&maker.id, &chat, "write").await;
    assert!(listed.get(&format!("/api/chats/{chat}")).await.status.is_success());
    assert_eq!(key.post("/api/whatsapp/stop", json!({})).await.body["code"], "role_forbidden");

    ana.client.patch(&format!("/api/users/{}", maker.id), json!({"state": "disabled"})).await.ok();
    until("the keys to end with their maker", within, || async {
        (key.get("/api/sessions").await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    ana.client.patch(&format!("/api/users/{}", maker.id), json!({"state": "active"})).await.ok();
    until("the keys to be back", within, || async { key.get("/api/sessions").await.status.is_success().then_some(()) }).await;
    assert_eq!(ana.client.delete(&format!("/api/keys/{id}")).await.status, StatusCode::NO_CONTENT);
    until("the key to be revoked", within, || async { (key.get("/api/sessions").await.status == StatusCode::UNAUTHORIZED).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_key_with_networks_is_refused_from_elsewhere_whatever_a_header_says() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let key = ana.key(json!({"scopes": ["chats:read"], "cidrs": ["127.0.0.7", "203.0.113.9/24"]})).await;
    let shown = ana.client.get(&format!("/api/keys/{}", key.id)).await.ok();
    assert_eq!(shown["cidrs"], json!(["127.0.0.7/32", "203.0.113.0/24"]));
    let at = |address: &str| key.client.calling_from(address.parse().unwrap());
    let ask = async |address: &str, said: &str| {
        let answer = at(address).ask(Method::GET, "/api/chats", &[("x-forwarded-for", said)], None).await;
        answer.body["code"].as_str().unwrap_or("ok").to_owned()
    };
    assert_eq!(ask("127.0.0.1", "127.0.0.7").await, "address_forbidden", "made up by somebody who is no proxy of ours");
    assert_eq!(ask("127.0.0.7", "1.1.1.1").await, "ok");
    assert_eq!(ask("127.0.0.99", "1.1.1.1, 203.0.113.5").await, "ok", "our proxy says so");
    assert_eq!(ask("127.0.0.99", "203.0.113.5, 1.1.1.1").await, "address_forbidden");
    let body = json!({"name": "x", "scopes": ["chats:read"], "cidrs": ["127.0.0.1/99"]});
    assert_eq!(ana.client.post("/api/keys", body).await.body["field"], "cidrs");
}

/// A name in Redis, of a tenant.
pub(crate) fn redis_key(tenant: &str, rest: &str) -> String {
    let shard = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(tenant.as_bytes()) % 512;
    format!("zg:{{{shard}}}:{rest}")
}

#[tokio::test]
async fn what_links_a_phone_is_shown_to_no_key_that_only_reads() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    stack.sql("update session set state = 'linking', wanted = 'running'").await.unwrap();
    let body = json!({"phone": PEER});
    let asked = ana.client.ask(Method::POST, "/api/whatsapp/pairing-code", &[("prefer", "wait=0")], Some(body)).await.ok();
    let job = asked["id"].as_str().unwrap().to_owned();
    stack.sql("update job set state = 'succeeded', finished_at = clock_timestamp()").await.unwrap();
    stack.redis.command(&["SET", &redis_key(&ana.id, &format!("pair:{}:{job}", ana.id)), "ABCD1234", "PX", "60000"]).await;
    let shown = async |client: &harness::ApiClient| client.job(&job).await["result"]["code"].clone();
    let reads = ana.key(json!({"scopes": ["messages:read"]})).await;
    let links = ana.key(json!({"scopes": ["messages:read", "sessions:link"]})).await;
    assert_eq!((shown(&ana.client).await, shown(&links.client).await), (json!("ABCD1234"), json!("ABCD1234")));
    assert_eq!(shown(&reads.client).await, Value::Null);

    let hears = ana.key(json!({"scopes": ["events:read"]})).await;
    let hears_codes = ana.key(json!({"scopes": ["events:read", "sessions:link"]})).await;
    let mut without = hears.client.stream("/api/events/stream", &[]).await.unwrap();
    let mut with = hears_codes.client.stream("/api/events/stream", &[]).await.unwrap();
    let code = json!({"id": "evt_00000000000000000000000000", "seq": null, "type": "session.qr", "timestamp": "2026-01-01T00:00:00.000Z",
        "tenant": ana.id, "session": ana.session, "chat": null, "data": {"qr": "2@code", "expiresAt": "2026-01-01T00:00:20.000Z"}});
    stack.redis.command(&["PUBLISH", &redis_key(&ana.id, &format!("new:{}", ana.id)), &code.to_string()]).await;
    assert_eq!(with.event(Duration::from_secs(10)).await["type"], "session.qr");
    // What comes after it is the first that the other hears.
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    assert_eq!(without.event(Duration::from_secs(10)).await["type"], "session.status");
}

#[tokio::test]
async fn a_key_follows_what_it_asked_for_and_sees_the_pages_of_its_sessions_only() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let other = ana.client.post("/api/sessions", json!({"name": "other"})).await.ok()["id"].clone();
    stack.sql("update session set state = 'working', wanted = 'running'").await.unwrap();
    let controls = ana.key(json!({"scopes": ["sessions:control"], "sessions": ["default"]})).await;
    let asked = controls.client.post("/api/whatsapp/restart", json!({})).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    let location = asked.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(controls.client.get(&location).await.ok()["id"], asked.body["id"]);
    let tenant_wide = ana.key(json!({"scopes": ["sessions:control"]})).await;
    let refused = tenant_wide.client.get(&location).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("scope_missing")), "another's job");
    let elsewhere = ana.key(json!({"scopes": ["sessions:control"], "sessions": [other]})).await;
    assert_eq!(elsewhere.client.get(&location).await.status, StatusCode::NOT_FOUND);

    let session: contract::SessionId = ana.session.parse().unwrap();
    let media = contract::MediaId::new();
    let picture: String = session.uuid().as_bytes().iter().chain(b"\x89PNG").map(|b| format!("{b:02x}")).collect();
    let script = "return redis.call('SET', KEYS[1], (ARGV[1]:gsub('..', function(h) return string.char(tonumber(h, 16)) end)))";
    stack.redis.command(&["EVAL", script, "1", &redis_key(&ana.id, &format!("shot:{}:{media}", ana.id)), &picture]).await;
    let path = format!("/api/media/{media}");
    for sees in [&ana.client, &controls.client, &tenant_wide.client] {
        let (status, bytes) = sees.bytes(&path, "image/png").await;
        assert_eq!((status, &bytes[..]), (StatusCode::OK, &b"\x89PNG"[..]));
    }
    assert_eq!(elsewhere.client.get(&path).await.status, StatusCode::NOT_FOUND);
    let chats_only = ana.key(json!({"scopes": ["sessions:control"], "chats": []})).await;
    assert_eq!(chats_only.client.get(&path).await.body["code"], "role_forbidden");
}
