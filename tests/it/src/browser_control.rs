//! What an ADMIN does to a session's browser, and what others do to the account.

use harness::{Stack, Tenant, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

async fn waited(tenant: &Tenant, path: &str) -> harness::client::Answer {
    tenant.client.ask(Method::POST, path, &[("prefer", "wait=25")], None).await
}

async fn reason(tenant: &Tenant) -> Value {
    tenant.client.get("/api/whatsapp/status").await.ok()["reason"].clone()
}

#[tokio::test]
async fn a_restart_brings_another_browser_and_asks_for_no_code() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let (refs, before) = (stack.sim.stats().await["refs"].clone(), host.browsers());
    let answer = waited(&ana, "/api/whatsapp/restart").await;
    assert_eq!((answer.status, &answer.body["kind"]), (StatusCode::OK, &json!("restart")), "{}", answer.body);
    assert!(!host.browsers().iter().any(|pid| before.contains(pid)), "all its processes are new");
    ana.client.until_state("working", SOON).await;
    assert_eq!(stack.sim.stats().await["refs"], refs);
    let why = |e: &Value| e["data"]["session"]["reason"] == "restart_requested";
    ana.client.event("the reason in the log", SOON, why).await;
    let job = ana.client.accepted(PEER, "after it").await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "succeeded");
}

#[tokio::test]
async fn a_screenshot_is_a_picture_for_a_minute_and_for_its_tenants_admins_only() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    ana.client.until_state("linking", SOON).await;
    let answer = waited(&ana, "/api/whatsapp/screenshot").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let media = answer.body["result"]["media"].clone();
    assert_eq!(media["mime"], "image/png");
    let path = format!("/api/media/{}", media["id"].as_str().unwrap());
    let (status, png) = ana.client.bytes(&path, "*/*").await;
    assert!(status.is_success() && png.starts_with(b"\x89PNG"));
    assert_eq!(media["size"].as_u64(), Some(png.len() as u64));
    assert_eq!(ana.client.get(&path).await.headers["cache-control"], "no-store");
    assert_eq!(bea.client.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ana.client.stranger().get(&path).await.status, StatusCode::UNAUTHORIZED);
    let key = format!("{:?}", stack.redis.command(&["KEYS", "*:shot:*"]).await);
    let key = key[key.find("zg:").unwrap()..].split(['\'', '"']).next().unwrap().to_owned();
    let left = format!("{:?}", stack.redis.command(&["PTTL", &key]).await);
    let left: u64 = left.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    stack.redis.command(&["DEL", &key]).await;
    assert_eq!(ana.client.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_logout_unlinks_the_device_of_a_running_session_and_of_a_stopped_one() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    for stopped in [false, true] {
        ana.link(&stack.sim, OURS).await;
        let mut missed = None;
        if stopped {
            ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
            ana.client.until_state("stopped", SOON).await;
            until("its browser to close", SOON, || async { host.browsers().is_empty().then_some(()) }).await;
            missed = Some(stack.sim.send(PEER, OURS, "since the stop").await);
        }
        assert_eq!(stack.sim.devices(OURS).await.len(), 1);
        let answer = waited(&ana, "/api/whatsapp/logout").await;
        assert_eq!(answer.status, StatusCode::OK, "stopped: {stopped}: {}", answer.body);
        assert!(stack.sim.devices(OURS).await.is_empty());
        if let Some(missed) = missed {
            let told = |e: &Value| e["data"]["message"]["waId"] == missed.as_str();
            ana.client.event("what came before the logout", SOON, told).await;
        }
        ana.client.until_state("logged_out", SOON).await;
        assert_eq!(reason(&ana).await, "logout_requested");
        let refused = waited(&ana, "/api/whatsapp/logout").await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::CONFLICT, &json!("nothing_linked")));
        until("its browser to close", SOON, || async { host.browsers().is_empty().then_some(()) }).await;
        until("its directory to go", SOON, || async {
            let mut left = std::fs::read_dir(host.data.join("profiles")).ok()?.flatten();
            (!left.any(|e| e.path().is_dir())).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_logout_that_is_asked_for_while_the_session_is_still_being_stopped_is_done_by_its_next_owner() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    let mut uploading = stack.points().arm_once("snapshot.uploading");
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    let held = uploading.arrived().await;
    ana.client.until_state("stopped", SOON).await;
    let released = async {
        let begun = "select count(*) from job where kind = 'logout' and state = 'running'";
        until("the logout to begin", SOON, || async { (stack.postgres.sql(begun) == "1").then_some(()) }).await;
        held.reply(harness::faults::Word::Go).await;
    };
    let (answer, ()) = tokio::join!(waited(&ana, "/api/whatsapp/logout"), released);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(stack.sim.devices(OURS).await.is_empty());
}

#[tokio::test]
async fn a_session_that_had_failed_is_down_after_a_logout_in_vain_and_starts_when_it_is_told_to() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let closed = || async { host.browsers().is_empty().then_some(()) };
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    ana.client.until_state("stopped", SOON).await;
    until("its browser to close", SOON, closed).await;
    // As it is left by a browser that failed too often: down, and nobody asked for that.
    stack.postgres.sql("update session set state = 'failed', reason = 'browser_failed', wanted = 'running'");
    // The server does not hear of the logout.
    let deaf = stack.sim.fault(json!({"kind": "refuse_connect", "account": OURS})).await;
    let asked = ana.client.post("/api/whatsapp/logout", json!({})).await.ok();
    ana.client.ended(asked["id"].as_str().expect("a job"), 3 * SOON).await;
    until("its browser to close again", SOON, closed).await;
    assert_eq!(ana.client.state().await, "failed");
    stack.sim.clear_fault(deaf).await;
    ana.client.post("/api/whatsapp/start", json!({})).await.ok();
    ana.client.until_state("working", SOON).await;
}

#[tokio::test]
async fn a_deleted_session_unlinks_its_device_before_its_data_goes() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    ana.client.post("/api/sessions", json!({"name": "other"})).await.ok();
    ana.client.ask(Method::PATCH, "/api/sessions/other", &[], Some(json!({"isDefault": true}))).await.ok();
    let gone = ana.client.ask(Method::DELETE, "/api/sessions/default", &[], None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    until("the device to be unlinked", SOON, || async { stack.sim.devices(OURS).await.is_empty().then_some(()) }).await;
    let db = stack.db().await;
    until("the row to go", SOON, || async {
        let left: i64 = sqlx::query_scalar("select count(*) from session").fetch_one(&db).await.ok()?;
        (left == 1).then_some(())
    })
    .await;
    assert!(host.browsers().is_empty());
}

#[tokio::test]
async fn an_account_taken_over_elsewhere_is_taken_back_once_and_then_left_to_a_person() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    stack.sim.fault(json!({"kind": "conflict", "account": OURS})).await;
    let back = |e: &Value| e["data"]["session"]["state"] == "reconnecting" && e["data"]["session"]["reason"] == "replaced";
    ana.client.event("the takeover in the log", SOON, back).await;
    ana.client.until_state("working", SOON).await;
    let job = ana.client.accepted(PEER, "ours again").await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "succeeded");

    stack.sim.fault(json!({"kind": "conflict", "account": OURS})).await;
    ana.client.until_state("conflict", SOON).await;
    let status = ana.client.get("/api/whatsapp/status").await.ok();
    assert_eq!((&status["reason"], &status["userAction"]), (&json!("replaced"), &json!("resolve_conflict")));
    let refused = ana.client.send(PEER, "x").await;
    assert_eq!((refused.status, &refused.body["state"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("conflict")));
    // A person decides, and it is ours.
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    ana.client.until_state("working", SOON).await;
}

#[tokio::test]
async fn a_full_fleet_says_so_and_a_free_slot_ends_it() {
    let mut stack = Stack::start().await;
    let _host = stack.try_host(1).await.unwrap();
    let ana = stack.tenant("ana").await;
    ana.client.post("/api/sessions", json!({"name": "second"})).await.ok();
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    ana.client.until_state("linking", SOON).await;
    let started = ana.client.post("/api/sessions/second/start", json!({})).await;
    assert_eq!((started.status, &started.body["state"]), (StatusCode::ACCEPTED, &json!("starting")));
    let full = |e: &Value| e["data"]["session"]["reason"] == "capacity";
    ana.client.event("that all is full", SOON, full).await;
    let status = ana.client.get("/api/sessions/second/status").await.ok();
    assert_eq!(
        (&status["state"], &status["reason"], &status["userAction"]),
        (&json!("starting"), &json!("capacity"), &json!("ask_operator"))
    );
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    until("its turn", SOON, || async { (ana.client.get("/api/sessions/second/status").await.ok()["state"] == "linking").then_some(()) })
        .await;
}
