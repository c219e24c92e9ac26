//! Sessions as their tenant sees them: created, changed, refused and deleted.

use std::time::Duration;

use harness::{Stack, Tenant, client::Answer, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{PEER, SOON};

async fn patch(tenant: &Tenant, session: &str, body: Value) -> Answer {
    tenant
        .client
        .ask(Method::PATCH, &format!("/api/sessions/{session}"), &[("content-type", "application/merge-patch+json")], Some(body))
        .await
}

async fn delete(tenant: &Tenant, session: &str) -> Answer {
    tenant.client.ask(Method::DELETE, &format!("/api/sessions/{session}"), &[], None).await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.body["code"].as_str()), (status, Some(code)), "{}", answer.body);
}

/// Puts the only default session into a state, as its owner would.
async fn put(db: &PgPool, state: &str, reason: Option<&str>, account: Option<&str>) {
    sqlx::query("update session set state = $1, reason = $2, account = $3, state_at = clock_timestamp() where is_default")
        .bind(state)
        .bind(reason)
        .bind(account)
        .execute(db)
        .await
        .expect("the row is there");
}

#[tokio::test]
async fn a_session_is_created_with_what_is_expected_of_it_and_changed_by_a_merge_patch() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let new = json!({"name": "ventas", "expectedPhone": "+5511999990000", "settings": {"markReadOnSend": true}});
    let made = ana.client.post("/api/sessions", new.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.headers["location"], format!("/api/sessions/{}", made.body["id"].as_str().unwrap()));
    assert_eq!((&made.body["expectedPhone"], &made.body["settings"]["markReadOnSend"]), (&json!("5511999990000"), &json!(true)));
    assert_eq!(
        (&made.body["state"], &made.body["reason"], &made.body["userAction"]),
        (&json!("stopped"), &json!("never_started"), &json!("start"))
    );
    refused(&ana.client.post("/api/sessions", new).await, 409, "session_name_taken");

    // What is left out stays, null takes away, and what nobody knows is refused.
    let changed = patch(&ana, "ventas", json!({"name": "soporte", "expectedPhone": null})).await.ok();
    assert_eq!(
        (&changed["name"], &changed["expectedPhone"], &changed["settings"]["markReadOnSend"]),
        (&json!("soporte"), &Value::Null, &json!(true))
    );
    let changed = patch(&ana, "soporte", json!({"settings": {"markReadOnSend": null}})).await.ok();
    assert_eq!(changed["settings"]["markReadOnSend"], false);
    assert_eq!(ana.client.get("/api/sessions/ventas").await.status, StatusCode::NOT_FOUND);
    for (body, field) in [
        (json!({"proxy": {"url": "http://p.example"}}), "proxy"),
        (json!({"settings": {"color": 1}}), "settings.color"),
        (json!({"expectedPhone": "12"}), "expectedPhone"),
        (json!({"expectedPhone": "\u{0661}23456789"}), "expectedPhone"),
        (json!({"name": "Ventas"}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"isDefault": false}), "isDefault"),
    ] {
        let answer = patch(&ana, "soporte", body).await;
        refused(&answer, 422, "invalid_body");
        assert_eq!(answer.body["field"], field);
    }
    refused(&patch(&ana, "soporte", json!({"name": "default"})).await, 409, "session_name_taken");
    refused(&ana.client.post("/api/sessions", json!({"name": "x", "proxy": {}})).await, 422, "invalid_body");

    let bea = stack.tenant("bea").await;
    refused(&patch(&bea, made.body["id"].as_str().unwrap(), json!({"name": "mine"})).await, 404, "not_found");
    refused(&delete(&bea, made.body["id"].as_str().unwrap()).await, 404, "not_found");
}

#[tokio::test]
async fn the_short_routes_mean_the_default_session_and_another_one_can_become_it() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let ventas = ana.client.post("/api/sessions", json!({"name": "ventas"})).await.ok();
    let status = ana.client.get("/api/whatsapp/status").await.ok();
    assert_eq!((&status["name"], &status["isDefault"]), (&json!("default"), &json!(true)));
    assert_eq!(patch(&ana, "ventas", json!({"isDefault": true})).await.ok()["isDefault"], true);
    for path in ["/api/whatsapp/status", "/api/sessions/ventas/status"] {
        assert_eq!(ana.client.get(path).await.ok()["id"], ventas["id"], "{path}");
    }
    let all = ana.client.get("/api/sessions").await.ok();
    let defaults: Vec<_> = all["items"].as_array().unwrap().iter().filter(|s| s["isDefault"] == true).map(|s| s["name"].clone()).collect();
    assert_eq!(defaults, ["ventas"]);
    // Many at once leave exactly one.
    let both = (0..10).map(|n| patch(&ana, if n % 2 == 0 { "ventas" } else { "default" }, json!({"isDefault": true})));
    assert!(futures::future::join_all(both).await.iter().all(|a| a.status.is_success()));
    let all = ana.client.get("/api/sessions").await.ok();
    assert_eq!(all["items"].as_array().unwrap().iter().filter(|s| s["isDefault"] == true).count(), 1);
    let body = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
    let default = ana.client.get("/api/whatsapp/status").await.ok()["id"].clone();
    assert_eq!(ana.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok()["session"], default);
}

#[tokio::test]
async fn a_deleted_session_is_not_found_at_once_its_name_is_free_and_its_rows_go() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    let made = ana.client.post("/api/sessions", json!({"name": "ventas"})).await.ok();
    let id = made["id"].as_str().unwrap().to_owned();
    let body = json!({"type": "text", "text": "never", "whenUnavailable": "queue"});
    let headers = [("idempotency-key", "k-1")];
    let path = format!("/api/sessions/{id}/chats/{PEER}/messages");
    let job = ana.client.ask(Method::POST, &path, &headers, Some(body)).await.ok();
    refused(&delete(&ana, "default").await, 409, "session_is_default");
    assert_eq!(delete(&ana, "ventas").await.status, StatusCode::NO_CONTENT);
    for path in [
        format!("/api/sessions/{id}"),
        "/api/sessions/ventas/status".to_owned(),
        format!("/api/sessions/{id}/chats"),
        format!("/api/sessions/{id}/qr"),
        format!("/api/jobs/{}", job["id"].as_str().unwrap()),
        format!("/api/events?session={id}"),
    ] {
        refused(&ana.client.get(&path).await, 404, "not_found");
    }
    refused(&ana.client.post(&format!("/api/sessions/{id}/start"), json!({})).await, 404, "not_found");
    refused(&delete(&ana, &id).await, 404, "not_found");
    assert_ne!(ana.client.post("/api/sessions", json!({"name": "ventas"})).await.ok()["id"], json!(id), "the name is free");
    let told = ana.client.event("the deletion", SOON, |e| e["session"] == json!(id) && e["data"]["session"]["reason"] == "deleted").await;
    assert_eq!(told["type"], "session.status");
    let db = stack.db().await;
    until("its rows to go", SOON, || async {
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from session where name = 'ventas') + (select count(*) from job) + (select count(*) from message)
                  + (select count(*) from chat) + (select count(*) from idempotency)",
        )
        .fetch_one(&db)
        .await
        .ok()?;
        (left == 1).then_some(())
    })
    .await;
}

/// What deletion removes, in `store::deletion`: another table that points at them must be added there and here.
#[tokio::test]
async fn deletion_knows_every_table_that_points_at_what_a_session_owns() {
    let stack = Stack::start().await;
    let pointing: Vec<String> = sqlx::query_scalar(
        "select distinct conrelid::regclass::text from pg_constraint
          where contype = 'f' and confrelid in ('session'::regclass, 'chat'::regclass, 'message'::regclass, 'job'::regclass) order by 1",
    )
    .fetch_all(&stack.db().await)
    .await
    .unwrap();
    let known = [
        "access_grant",
        "chat",
        "chat_alias",
        "chat_member",
        "contact",
        "erasure",
        "export",
        "job",
        "lane_position",
        "link_page",
        "message",
        "profile_snapshot",
    ];
    assert_eq!(pointing, known);
}

#[tokio::test]
async fn a_send_is_refused_exactly_where_a_person_is_needed_and_says_why_and_what_to_do() {
    let stack = Stack::start().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    let account = Some("5511999990000");
    let cases = [
        ("stopped", Some("never_started"), None, Some("start")),
        ("stopped", Some("stop_requested"), account, Some("start")),
        ("stopped", Some("qr_timeout"), None, Some("start")),
        ("starting", None, account, None),
        ("starting", Some("capacity"), account, None),
        ("linking", Some("awaiting_scan"), None, Some("scan_code")),
        ("linking", Some("awaiting_scan"), account, None),
        ("syncing", None, account, None),
        ("working", None, account, None),
        ("reconnecting", Some("connection_lost"), account, None),
        ("conflict", Some("replaced"), account, Some("resolve_conflict")),
        ("logged_out", Some("device_removed"), account, Some("link_again")),
        ("logged_out", Some("wrong_account"), account, Some("link_again")),
        ("banned", Some("temporary_ban"), account, Some("check_phone")),
        ("failed", Some("browser_failed"), account, Some("ask_operator")),
    ];
    for (state, reason, account, refusal) in cases {
        put(&db, state, reason, account).await;
        let answer = ana.client.send(PEER, "x").await;
        match refusal {
            None => assert_eq!(answer.status, StatusCode::ACCEPTED, "{state} {reason:?}: {}", answer.body),
            Some(action) => {
                refused(&answer, 503, "session_not_working");
                let said = (&answer.body["state"], &answer.body["reason"], &answer.body["userAction"]);
                assert_eq!(said, (&json!(state), &json!(reason), &json!(action)));
                assert_eq!(answer.body["retryable"], false);
            }
        }
        let asked = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
        let queued = ana.client.post(&format!("/api/chats/{PEER}/messages"), asked).await;
        assert_eq!(queued.status, StatusCode::ACCEPTED, "{state}: {}", queued.body);
        assert_eq!(queued.body["state"], "queued");
    }
}

#[tokio::test]
async fn a_queued_job_of_a_stopped_session_is_cancelled_or_expires_with_a_reason() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    let queue = |text: &str| json!({"type": "text", "text": text, "whenUnavailable": "queue", "expiresIn": 30});
    let path = format!("/api/chats/{PEER}/messages");
    let (first, second) = (ana.client.post(&path, queue("a")).await.ok(), ana.client.post(&path, queue("b")).await.ok());
    let id = |job: &Value| job["id"].as_str().unwrap().to_owned();
    assert_eq!(first["waitingFor"], "session");
    let cancelled = ana.client.post(&format!("/api/jobs/{}/cancel", id(&first)), json!({})).await.ok();
    assert_eq!((&cancelled["state"], &cancelled["error"]["code"]), (&json!("cancelled"), &json!("job_cancelled")));
    let db = stack.db().await;
    sqlx::query("update job set expires_at = clock_timestamp() where state = 'queued'").execute(&db).await.unwrap();
    let expired = ana.client.ended(&id(&second), SOON).await;
    assert_eq!((&expired["state"], &expired["error"]["code"]), (&json!("expired"), &json!("job_expired")));
}

#[tokio::test]
async fn jobs_that_wait_for_a_session_that_stays_logged_out_or_banned_fail_unless_they_were_queued_on_request() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    // As if another host held it: ours claims nothing.
    sqlx::query("update session set held_until = 'infinity'").execute(&db).await.unwrap();
    for (state, reason) in [("logged_out", "device_removed"), ("banned", "temporary_ban")] {
        put(&db, "working", None, Some("5511999990000")).await;
        let waiting = ana.client.accepted(PEER, "waits").await;
        let asked = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
        let on_request = ana.client.post(&format!("/api/chats/{PEER}/messages"), asked).await.ok()["id"].as_str().unwrap().to_owned();
        put(&db, state, Some(reason), Some("5511999990000")).await;
        let failed = ana.client.ended(&waiting, SOON).await;
        assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!(state)));
        let message = failed["message"]["status"].clone();
        assert_eq!(message, "failed");
        ana.client.event("the failure", SOON, |e| e["type"] == "job.updated" && e["data"]["job"]["id"] == json!(waiting)).await;
        assert_eq!(ana.client.job(&on_request).await["state"], "queued");
    }
}

#[tokio::test]
async fn control_of_a_session_that_is_down_is_refused_and_a_logout_of_nothing_too() {
    let stack = Stack::start().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    for state in ["stopped", "logged_out", "banned", "failed", "conflict"] {
        put(&db, state, None, Some("5511999990000")).await;
        for (path, body) in [("restart", json!({})), ("screenshot", json!({})), ("pairing-code", json!({"phone": "5511999990000"}))] {
            let answer = ana.client.post(&format!("/api/whatsapp/{path}"), body).await;
            refused(&answer, 409, "session_stopped");
            assert!(answer.body["userAction"].is_string(), "{path} in {state}");
        }
    }
    for state in ["stopped", "starting", "linking"] {
        put(&db, state, None, None).await;
        refused(&ana.client.post("/api/whatsapp/logout", json!({})).await, 409, "nothing_linked");
    }
    for state in ["syncing", "working", "reconnecting"] {
        put(&db, state, None, Some("5511999990000")).await;
        refused(&ana.client.post("/api/whatsapp/pairing-code", json!({"phone": "5511999990000"})).await, 409, "already_linked");
        refused(&ana.client.get("/api/whatsapp/qr").await, 409, "already_linked");
        refused(&ana.client.post("/api/whatsapp/link-page", json!({})).await, 409, "already_linked");
    }
    put(&db, "stopped", None, None).await;
    refused(&ana.client.get("/api/whatsapp/qr").await, 409, "session_stopped");
    put(&db, "starting", None, None).await;
    let answer = ana.client.get("/api/whatsapp/qr").await;
    refused(&answer, 503, "qr_not_ready");
    assert_eq!(answer.headers["retry-after"], "2");
    for phone in ["123", "abc", "55 11", "\u{0665}\u{0665}123456789", "1234567890123456"] {
        refused(&ana.client.post("/api/whatsapp/pairing-code", json!({"phone": phone})).await, 422, "invalid_body");
    }
}

#[tokio::test]
async fn a_number_gets_three_pairing_codes_an_hour_and_another_number_its_own() {
    let stack = Stack::start().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    put(&db, "linking", None, None).await;
    let ask = |phone: &'static str| {
        let client = ana.client.clone();
        async move { client.ask(Method::POST, "/api/whatsapp/pairing-code", &[("prefer", "wait=1")], Some(json!({"phone": phone}))).await }
    };
    for phone in ["5511999990000", "+5511999990000", "5511999990000"] {
        assert_eq!(ask(phone).await.status, StatusCode::ACCEPTED);
    }
    let answer = ask("5511999990000").await;
    refused(&answer, 429, "rate_limited");
    let again: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&again), "{again}");
    assert_eq!(ask("5511999990001").await.status, StatusCode::ACCEPTED);
    let keys = format!("{:?}", stack.redis.command(&["KEYS", "*limit*"]).await);
    assert!(!keys.contains("5511"), "no number in Redis: {keys}");
}

#[tokio::test]
async fn a_control_job_without_a_browser_ends_with_its_session() {
    let mut stack = Stack::start().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    put(&db, "starting", None, Some("5511999990000")).await;
    let job = ana.client.post("/api/whatsapp/restart", json!({})).await.ok()["id"].as_str().unwrap().to_owned();
    put(&db, "stopped", Some("stop_requested"), Some("5511999990000")).await;
    let _host = stack.host().await;
    let ended = ana.client.ended(&job, SOON).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("failed"), &json!("session_ended")));
}

/// What the page asks, as its script does.
async fn link(stack: &Stack, method: Method, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}/api/link{path}", stack.api.url())).header("zaguan-link", token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.timeout(Duration::from_secs(40)).send().await.expect("the API answers");
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_link_opens_one_session_for_a_while_and_shows_no_code_after_it_linked() {
    let stack = Stack::start().await;
    let (ana, db) = (stack.tenant("ana").await, stack.db().await);
    let made = ana.client.post("/api/whatsapp/link-page", json!({})).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (StatusCode::CREATED, &"no-store".parse().unwrap()));
    assert_eq!(ana.client.state().await, "starting", "the customer finds it running");
    let token = made.body["url"].as_str().unwrap().split_once("/link#").unwrap().1.to_owned();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from link_page where encode(token_hash, 'escape') like '%zgl%'").fetch_one(&db).await.unwrap();
    assert_eq!((kept, token.starts_with("zgl_")), (0, true));

    let get = |token: &str| {
        let token = token.to_owned();
        let stack = &stack;
        async move { link(stack, Method::GET, "", &token, None).await }
    };
    let (status, view) = get(&token).await;
    assert_eq!(
        (status, &view["step"], &view["company"], &view["withCode"]),
        (StatusCode::OK, &json!("starting"), &json!("ana"), &json!(false))
    );
    assert_eq!(get("zgl_wrong").await.0, StatusCode::GONE);
    let nobody = reqwest::get(format!("{}/api/link", stack.api.url())).await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    // The token is no credential anywhere else.
    let elsewhere = reqwest::Client::new().get(format!("{}/api/whatsapp/qr", stack.api.url())).bearer_auth(&token).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED);
    let (status, problem) = link(&stack, Method::POST, "/pairing-code", &token, Some(json!({"phone": "5511999990000"}))).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("role_forbidden")));

    // Nobody scanned in time: the customer may try again.
    put(&db, "stopped", Some("qr_timeout"), None).await;
    let (_, view) = get(&token).await;
    assert_eq!((&view["step"], &view["mayTryAgain"]), (&json!("stopped"), &json!(true)));
    assert_eq!(link(&stack, Method::POST, "/start", &token, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ana.client.state().await, "starting");

    // It is woken by the session's change, and spent once the account is linked.
    let version = get(&token).await.1["version"].as_str().unwrap().to_owned();
    let query = format!("?wait=20&version={version}");
    let waiting = link(&stack, Method::GET, &query, &token, None);
    put(&db, "working", None, Some("5511999990000")).await;
    // As the statement does that links.
    sqlx::query("update link_page set used_at = clock_timestamp()").execute(&db).await.unwrap();
    let (_, view) = waiting.await;
    assert_eq!(view["step"], "working");
    put(&db, "logged_out", Some("device_removed"), Some("5511999990000")).await;
    let (_, view) = get(&token).await;
    assert_eq!((&view["step"], &view["mayTryAgain"], &view["modules"]), (&json!("stopped"), &json!(false), &Value::Null));
    let (status, problem) = link(&stack, Method::POST, "/start", &token, None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("already_linked")));

    // A newer link ends the older one, and time ends every one.
    let newer = ana.client.post("/api/whatsapp/link-page", json!({"withCode": true})).await.ok();
    let newer = newer["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    assert_eq!((get(&token).await.0, get(&newer).await.0), (StatusCode::GONE, StatusCode::OK));
    sqlx::query("update link_page set expires_at = clock_timestamp()").execute(&db).await.unwrap();
    let (status, problem) = get(&newer).await;
    assert_eq!((status, &problem["code"]), (StatusCode::GONE, &json!("link_expired")));
}

#[tokio::test]
async fn the_link_page_is_guarded_and_speaks_the_visitors_language() {
    let stack = Stack::start().await;
    let http = reqwest::Client::new();
    for (language, title) in [("es-MX,es;q=0.9,en;q=0.8", "Vincula tu WhatsApp"), ("fr,en;q=0.5", "Link your WhatsApp")] {
        let answer = http.get(format!("{}/link", stack.api.url())).header("accept-language", language).send().await.unwrap();
        let headers = answer.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (&headers["referrer-policy"], &headers["cache-control"]),
            (&"no-referrer".parse().unwrap(), &"no-store".parse().unwrap())
        );
        assert_eq!(headers["vary"], "Accept-Language");
        assert!(answer.text().await.unwrap().contains(title));
    }
}
