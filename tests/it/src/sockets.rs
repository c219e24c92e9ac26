//! Socket.IO: the same events as every other transport, for the same callers, live and from any cursor.

use std::time::Duration;

use harness::{
    Stack,
    socketio::{Said, Socket},
};
use serde_json::{Value, json};

use crate::{
    PEER,
    api_keys::redis_key,
    company::{Company, company},
};

pub(crate) const SOON: Duration = Duration::from_secs(10);
const OTHER: &str = "5511777770000";
const WWEBJS: &str = "/whatsapp-web.js";

pub(crate) fn seq(event: &Value) -> i64 {
    event["seq"].as_i64().expect("a seq")
}

pub(crate) fn job(event: &Value) -> &str {
    event["data"]["job"]["id"].as_str().unwrap_or_default()
}

pub(crate) async fn head(company: &Company) -> i64 {
    company.admin.get("/api/jobs").await.headers["zaguan-seq"].to_str().expect("a header").parse().expect("a seq")
}

#[tokio::test]
async fn a_socket_brings_what_happens_by_its_types_name_and_goes_on_behind_any_cursor() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let first = ana.happens(PEER).await;
    let start = head(&ana).await;
    let mut live = ana.admin.socket(json!({})).await.unwrap();
    assert_eq!(live.next(SOON).await, Said::Event("cursor".into(), vec![json!({"seq": start})]), "it starts at the head, and says so");

    let second = ana.happens(PEER).await;
    let event = live.envelope(SOON).await;
    assert_eq!((job(&event), &event["type"]), (&*second, &json!("job.updated")));
    assert_eq!(ana.admin.events(start).await, std::slice::from_ref(&event), "it is the same on every transport");
    // Said while nothing happens: how far all has been judged.
    assert_eq!(live.next(SOON).await, Said::Event("cursor".into(), vec![json!({"seq": seq(&event)})]));
    drop(live);

    let missed = ana.happens(PEER).await;
    let mut again = ana.admin.socket(json!({"after": seq(&event)})).await.unwrap();
    assert_eq!(job(&again.envelope(SOON).await), missed, "neither lost nor twice");
    assert_eq!(again.ask("resume", json!({"after": 0}), SOON).await, json!({"cursor": 0}));
    for expected in [&first, &second, &missed] {
        assert_eq!(job(&again.envelope(SOON).await), expected);
    }
}

#[tokio::test]
async fn two_processes_tell_the_same_and_a_client_may_go_on_at_the_other_one() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let other = stack.another_api().await;
    let mut here = ana.admin.socket(json!({})).await.unwrap();
    let mut there = ana.admin.at(&other.url()).socket(json!({})).await.unwrap();
    ana.happens(PEER).await;
    let (one, two) = (here.envelope(SOON).await, there.envelope(SOON).await);
    assert_eq!(one, two);
    drop(here);
    let missed = ana.happens(PEER).await;
    let mut here = ana.admin.at(&other.url()).socket(json!({"after": seq(&one)})).await.unwrap();
    assert_eq!(job(&here.envelope(SOON).await), missed);
}

#[tokio::test]
async fn a_socket_is_opened_by_a_token_a_key_or_a_ticket_in_auth_and_by_nothing_else() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let url = stack.api.url();
    let key = ana.key(json!({"scopes": ["events:read"]})).await;
    assert!(ana.client.socket(json!({})).await.is_ok() && key.client.socket(json!({})).await.is_ok());
    let ticket = ana.client.post("/api/events/ticket", json!({})).await.ok()["ticket"].clone();
    let with = |auth: Value| {
        let url = url.clone();
        async move { Socket::connect(&url, "/", &auth).await.map(|_| ()) }
    };
    assert_eq!(with(json!({"ticket": ticket})).await, Ok(()));

    let sends = ana.key(json!({"scopes": ["messages:send"]})).await;
    let token = ana.client.token();
    for (auth, code) in [
        (Value::Null, "unauthenticated"),
        (json!({}), "unauthenticated"),
        (json!({"ticket": ticket}), "unauthenticated"),
        (json!({"token": "x.y.z"}), "unauthenticated"),
        (json!({"token": format!("{token}x")}), "unauthenticated"),
        (json!({"token": token, "apiKey": key.client.token()}), "unauthenticated"),
        (json!({"token": token, "ticket": "x"}), "unauthenticated"),
        (json!({"apiKey": sends.client.token()}), "scope_missing"),
        (json!({"token": token, "before": 1}), "invalid_body"),
        (json!({"token": token, "after": "x"}), "invalid_body"),
        (json!({"token": token, "after": -1}), "invalid_parameter"),
        (json!({"token": token, "types": ["nope"]}), "invalid_parameter"),
        (json!({"token": token, "session": "nope"}), "not_found"),
        (json!({"token": token, "after": 1_000_000}), "cursor_ahead"),
    ] {
        let refused = with(auth.clone()).await.unwrap_err();
        assert_eq!((&refused["message"], &refused["data"]["code"]), (&json!(code), &json!(code)), "{auth}");
        let problem = &refused["data"];
        assert!(problem["detail"].is_string() && problem["requestId"].is_string() && problem["status"].is_u64(), "{problem}");
    }
    let refused = ana.client.socket_in("/admin", json!({})).await.err().unwrap();
    assert_eq!(refused["data"]["code"], "not_found");

    // Who was refused may say it again, better.
    let mut socket = Socket::dial(&url, "EIO=4&transport=websocket").await.unwrap();
    assert!(socket.enter("/", &json!({"token": "x"})).await.is_err());
    assert_eq!(socket.enter("/", &json!({"token": token})).await, Ok(()));
}

#[tokio::test]
async fn polling_old_clients_secrets_in_the_address_and_pages_of_elsewhere_are_refused_in_words() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let url = stack.api.url();
    let token = ana.client.token();
    for (query, code, field) in [
        ("EIO=4&transport=polling", "invalid_parameter", json!("transport")),
        ("EIO=3&transport=websocket", "invalid_parameter", json!("EIO")),
        ("", "invalid_parameter", json!("EIO")),
        (&format!("EIO=4&transport=websocket&token={token}"), "invalid_parameter", json!("token")),
        ("EIO=4&transport=websocket&apikey=zgk_x", "invalid_parameter", json!("apikey")),
    ] {
        let (status, problem) = Socket::dial(&url, query).await.err().unwrap();
        assert_eq!((status, &problem["code"], &problem["field"]), (400, &json!(code), &field), "{query}");
    }
    let asks = async |origin: &str| {
        let upgrade = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("origin", origin),
        ];
        ana.client.ask(reqwest::Method::GET, "/socket.io/?EIO=4&transport=websocket", &upgrade, None).await
    };
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (harness::PAGE_ORIGIN, 101), (&*url, 101)] {
        let answer = asks(origin).await;
        assert_eq!(answer.status.as_u16(), status, "{origin}");
        if status == 403 {
            assert_eq!(answer.body["code"], "origin_forbidden");
        }
    }
    // No handshake of a WebSocket at all.
    let plain = ana.client.get("/socket.io/?EIO=4&transport=websocket").await;
    assert_eq!((plain.status.as_u16(), &plain.body["code"]), (400, &json!("malformed_request")));
}

#[tokio::test]
async fn an_empleado_hears_of_a_chat_from_the_next_event_after_the_grant_and_nothing_after_it_went() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let granted = ana.happens(PEER).await;
    let mut clerk = ana.clerk.socket(json!({})).await.unwrap();
    let mut aliased = ana.clerk.socket_in(WWEBJS, json!({})).await.unwrap();
    ana.happens(PEER).await;
    clerk.passes(head(&ana).await, SOON).await;
    ana.grant(&stack, &granted);
    ana.happens(OTHER).await;
    let seen = ana.happens(PEER).await;
    assert_eq!(job(&clerk.envelope(SOON).await), seen);

    ana.ungrant(&stack);
    ana.happens(PEER).await;
    clerk.passes(head(&ana).await, SOON).await;
    aliased.passes(head(&ana).await, SOON).await;
    let chat = ana.admin.job(&seen).await["chat"].as_str().unwrap().to_owned();
    for chat in [&*chat, PEER] {
        let refused = ana.clerk.socket(json!({"chat": chat})).await.err().unwrap();
        assert_eq!(refused["data"]["code"], "not_found");
        assert_eq!(clerk.ask("subscribe", json!({"chat": chat}), SOON).await["problem"]["code"], "not_found");
    }
}

#[tokio::test]
async fn a_subscription_replaces_what_is_shown_from_its_cursor_on_and_one_that_is_refused_changes_nothing() {
    let stack = Stack::start().await;
    let (ana, bea) = (company(&stack, "ana").await, stack.tenant("bea").await);
    let wanted = ana.happens(PEER).await;
    let chat = ana.admin.job(&wanted).await["chat"].clone();
    let mut socket = ana.admin.socket(json!({"after": 0, "types": "session.status"})).await.unwrap();
    socket.passes(head(&ana).await, SOON).await;

    let cursor = socket.ask("subscribe", json!({"types": ["job.updated"], "chat": chat}), SOON).await["cursor"].clone();
    assert_eq!(cursor, json!(head(&ana).await));
    ana.happens(OTHER).await;
    ana.admin.post("/api/whatsapp/init", json!({})).await.ok();
    let last = ana.happens(PEER).await;
    assert_eq!(job(&socket.envelope(SOON).await), last);

    for (asked, code) in [
        (json!({"session": bea.session}), "not_found"),
        (json!({"session": "nope"}), "not_found"),
        (json!({"types": ["nope"]}), "invalid_parameter"),
        (json!({"tenant": bea.id}), "invalid_body"),
        (json!([]), "invalid_body"),
    ] {
        assert_eq!(socket.ask("subscribe", asked.clone(), SOON).await["problem"]["code"], code, "{asked}");
    }
    ana.happens(OTHER).await;
    let still = ana.happens(PEER).await;
    assert_eq!(job(&socket.envelope(SOON).await), still, "as it was");
    // Everything again, by an empty one.
    socket.ask("subscribe", json!({}), SOON).await;
    assert_eq!(socket.ask("resume", json!({"after": 0}), SOON).await["cursor"], 0);
    let mut all = Vec::new();
    while all.last() != Some(&json!(head(&ana).await)) {
        all.push(socket.envelope(SOON).await["seq"].clone());
    }
    assert_eq!(all, (1..=head(&ana).await).map(|n| json!(n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cursor_that_retention_passed_starts_with_a_gap() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    for _ in 0..4 {
        ana.happens(PEER).await;
    }
    let floor = head(&ana).await - 1;
    stack.postgres.sql(&format!("delete from event where seq < {floor}; update tenant_counter set floor_seq = {floor}"));
    let mut socket = ana.admin.socket(json!({"after": 0})).await.unwrap();
    let gap = socket.envelope(SOON).await;
    assert_eq!((&gap["type"], &gap["seq"], &gap["data"]), (&json!("stream.gap"), &Value::Null, &json!({"after": 0, "oldest": floor})));
    assert_eq!((seq(&socket.envelope(SOON).await), seq(&socket.envelope(SOON).await)), (floor, floor + 1));
    let ahead = socket.ask("resume", json!({"after": floor + 100}), SOON).await;
    assert_eq!((&ahead["problem"]["code"], &ahead["problem"]["head"]), (&json!("cursor_ahead"), &json!(floor + 1)));
}

#[tokio::test]
async fn the_other_namespace_tells_the_same_by_the_names_of_whatsapp_web_js_and_codes_to_admins_only() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let mut admin = ana.admin.socket_in(WWEBJS, json!({})).await.unwrap();
    let mut clerk = ana.clerk.socket_in(WWEBJS, json!({})).await.unwrap();
    let start = head(&ana).await;
    ana.admin.post("/api/whatsapp/init", json!({})).await.ok();
    let (name, arguments) = admin.event(SOON).await;
    assert_eq!((name.as_str(), &arguments[0], arguments.len()), ("change_state", &json!("OPENING"), 2));
    assert_eq!(arguments[1], ana.admin.events(start).await[0], "the envelope comes last");

    let tenant = arguments[1]["tenant"].as_str().unwrap();
    let code = json!({"id": "evt_00000000000000000000000000", "seq": null, "type": "session.qr", "timestamp": "2026-01-01T00:00:00.000Z",
        "tenant": tenant, "session": arguments[1]["session"], "chat": null, "data": {"qr": "2@code"}});
    stack.redis.command(&["PUBLISH", &redis_key(tenant, &format!("new:{tenant}")), &code.to_string()]).await;
    assert_eq!(admin.event(SOON).await, ("qr".into(), vec![json!("2@code"), code]));

    ana.admin.post("/api/whatsapp/stop", json!({})).await.ok();
    let (name, arguments) = admin.event(SOON).await;
    assert_eq!((name.as_str(), &arguments[0]), ("disconnected", &json!("stop_requested")));
    let heard = [clerk.event(SOON).await.0, clerk.event(SOON).await.0];
    assert_eq!(heard, ["change_state", "disconnected"], "no code");
    // What has no name there moves the cursor.
    ana.happens(PEER).await;
    admin.passes(head(&ana).await, SOON).await;
}
