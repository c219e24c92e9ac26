//! A session belongs to the account that was linked: another one is refused, or takes over without a message of the old one's leaving.

use harness::{Stack, Tenant, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

const OTHER: &str = "5511777770000";

/// Starts the default session and has a phone scan its code.
async fn scan(stack: &Stack, tenant: &Tenant, phone: &str, start: Value) {
    stack.sim.account(phone).await;
    tenant.client.post("/api/whatsapp/init", start).await.ok();
    until("a scanned code", SOON, || async {
        let qr = tenant.client.get("/api/whatsapp/qr?wait=20").await;
        match qr.body["qr"].as_str() {
            Some(code) => stack.sim.scan(phone, code).await.then_some(()),
            None => None,
        }
    })
    .await;
}

async fn queue(tenant: &Tenant, text: &str) -> String {
    let body = json!({"type": "text", "text": text, "whenUnavailable": "queue"});
    let job = tenant.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok();
    job["id"].as_str().expect("a job has an id").to_owned()
}

async fn status(tenant: &Tenant) -> Value {
    tenant.client.get("/api/whatsapp/status").await.ok()
}

/// The session is in a state for a reason, and its log says so.
async fn is(tenant: &Tenant, state: &str, reason: &str) {
    tenant.client.until_state(state, SOON).await;
    assert_eq!(status(tenant).await["reason"], reason);
    let told =
        |e: &Value| e["type"] == "session.status" && e["data"]["session"]["state"] == state && e["data"]["session"]["reason"] == reason;
    tenant.client.event("the change in the log", SOON, told).await;
}

async fn log_out(tenant: &Tenant) {
    let answer = tenant.client.ask(Method::POST, "/api/whatsapp/logout", &[("prefer", "wait=25")], None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    tenant.client.until_state("logged_out", SOON).await;
}

#[tokio::test]
async fn another_phone_scans_the_code_of_a_known_session_with_three_jobs_queued_and_none_leaves() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    log_out(&ana).await;
    let mut jobs = Vec::new();
    for text in ["one", "two", "three"] {
        jobs.push(queue(&ana, text).await);
    }
    stack.sim.account(OTHER).await;
    let heard = stack.sim.send(PEER, OTHER, "for the other phone only").await;

    scan(&stack, &ana, OTHER, json!({})).await;
    is(&ana, "logged_out", "wrong_account").await;
    assert_eq!(status(&ana).await["userAction"], "link_again");
    assert!(stack.sim.devices(OTHER).await.is_empty(), "the other phone was unlinked at once");
    for peer in [OURS, OTHER] {
        assert!(stack.sim.texts(PEER, peer).await.iter().all(|t| t == "for the other phone only"));
    }
    for job in &jobs {
        assert_eq!(ana.client.job(job).await["state"], "queued");
    }
    let seen = ana.client.events(0).await;
    assert!(!seen.iter().any(|e| e["data"]["message"]["waId"] == heard.as_str()), "nothing of the other account was recorded");

    // The phone that belongs here links, and they leave in order.
    scan(&stack, &ana, OURS, json!({})).await;
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_new_account_that_was_allowed_sends_nothing_of_the_old_ones_and_its_chats_stay_readable_to_an_admin() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let sent = ana.client.accepted(PEER, "from the old number").await;
    let sent = ana.client.ended(&sent, SOON).await;
    log_out(&ana).await;
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(queue(&ana, &format!("never {n}")).await);
    }
    scan(&stack, &ana, OTHER, json!({"allowNewAccount": true})).await;
    ana.client.until_state("working", SOON).await;
    assert_eq!(status(&ana).await["me"]["phone"], OTHER);
    for job in &jobs {
        let job = ana.client.ended(job, SOON).await;
        assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("account_changed")), "{job}");
    }
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["from the old number"]);
    assert!(stack.sim.texts(PEER, OTHER).await.is_empty());

    // The same address is another chat now; the old one is there for an ADMIN.
    let fresh = ana.client.accepted(PEER, "from the new number").await;
    let fresh = ana.client.ended(&fresh, SOON).await;
    assert_eq!(fresh["state"], "succeeded");
    assert_ne!(fresh["chat"], sent["chat"]);
    assert_eq!(stack.sim.texts(PEER, OTHER).await, ["from the new number"]);
    let old = ana.client.get(&format!("/api/chats/{}/messages", sent["chat"].as_str().unwrap())).await.ok();
    assert!(old["items"].as_array().unwrap().iter().any(|m| m["text"] == "from the old number"));
    // Nothing can be sent there any more.
    let late = ana.client.accepted(sent["chat"].as_str().unwrap(), "to the old chat").await;
    assert_eq!(ana.client.ended(&late, SOON).await["error"]["code"], "account_changed");
    // The wish counted once: the old phone is now the stranger.
    log_out(&ana).await;
    scan(&stack, &ana, OURS, json!({})).await;
    is(&ana, "logged_out", "wrong_account").await;
}

#[tokio::test]
async fn before_its_first_link_a_session_takes_only_the_phone_that_is_expected() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    let body = json!({"expectedPhone": OURS});
    ana.client.ask(Method::PATCH, "/api/sessions/default", &[], Some(body)).await.ok();
    scan(&stack, &ana, OTHER, json!({})).await;
    is(&ana, "logged_out", "wrong_account").await;
    assert_eq!(status(&ana).await["me"], Value::Null);
    assert!(stack.sim.devices(OTHER).await.is_empty());
    scan(&stack, &ana, OURS, json!({})).await;
    ana.client.until_state("working", SOON).await;
}

#[tokio::test]
async fn a_device_removed_on_the_phone_logs_out_with_a_reason_and_the_next_start_asks_for_a_code() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let device = stack.sim.devices(OURS).await.remove(0);
    stack.sim.remove_device(OURS, &device).await;
    is(&ana, "logged_out", "device_removed").await;
    let refused = ana.client.send(PEER, "x").await;
    assert_eq!((refused.status, &refused.body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("device_removed")));
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    ana.client.until_state("linking", SOON).await;
    until("a code", SOON, || async { ana.client.get("/api/whatsapp/qr?wait=20").await.body["qr"].as_str().map(drop) }).await;
    // The account is known: what is sent now waits for it.
    assert_eq!(ana.client.send(PEER, "x").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_pairing_code_links_and_is_kept_in_no_row_and_no_event() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(OURS).await;
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    // Asked for while the browser starts: the answer waits for it.
    let asked = json!({"phone": format!("+{OURS}")});
    let headers = [("prefer", "wait=25"), ("idempotency-key", "pair-1")];
    let answer = ana.client.ask(Method::POST, "/api/whatsapp/pairing-code", &headers, Some(asked.clone())).await;
    assert_eq!((answer.status, &answer.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()), "{}", answer.body);
    let code = answer.body["result"]["code"].as_str().unwrap().to_owned();
    assert!(answer.body["result"]["expiresAt"].is_string());
    let again = ana.client.ask(Method::POST, "/api/whatsapp/pairing-code", &headers, Some(asked)).await;
    assert_eq!((&again.body["result"]["code"], &again.headers["idempotency-replayed"]), (&json!(code), &"true".parse().unwrap()));
    assert!(stack.sim.enter_code(OURS, &code).await);
    ana.client.until_state("working", SOON).await;
    assert_eq!(status(&ana).await["me"]["phone"], OURS);
    let kept: i64 = sqlx::query_scalar(
        "select (select count(*) from job where result::text like '%' || $1 || '%') + (select count(*) from event where data::text like '%' || $1 || '%')",
    )
    .bind(&code)
    .fetch_one(&stack.db().await)
    .await
    .unwrap();
    assert_eq!(kept, 0);
}
