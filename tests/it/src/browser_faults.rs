//! The named fault points that need a browser: what was accepted has one end, whatever dies between two steps.

use harness::{Settings, Stack, faults::Word, until};
use serde_json::Value;

use crate::{OURS, PEER, SOON};

/// A host dies at a point with one job under way; a second host takes over. Answers the job's end.
async fn die_at(stack: &mut Stack, point: &str) -> (harness::Tenant, Value) {
    let _first = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let _second = stack.host().await;
    let mut armed = stack.points().arm(point);
    let job = ana.client.accepted(PEER, "precious").await;
    armed.arrived().await.reply(Word::Die).await;
    drop(armed);
    let job = ana.client.ended(&job, SOON).await;
    // The session goes on: the next message is sent.
    let next = ana.client.accepted(PEER, "next").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    (ana, job)
}

async fn sent(stack: &Stack) -> Vec<String> {
    assert_eq!(stack.sim.stats().await["duplicates"], 0);
    stack.sim.texts(PEER, OURS).await
}

/// One `job.updated` of the job is in the log, and the stream has what the log has.
async fn recorded_once(stack: &Stack, ana: &harness::Tenant, job: &Value) {
    let of_job = |e: &&Value| e["type"] == "job.updated" && e["data"]["job"]["id"] == job["id"];
    let events = ana.client.events(0).await;
    assert_eq!(events.iter().filter(of_job).count(), 1);
    let head = events.last().expect("the log has events")["seq"].as_i64().expect("a seq");
    let tag = stack_key(stack, &ana.id).await;
    until("the stream to reach the log's head", SOON, || async {
        let newest = format!("{:?}", stack.redis.try_command(&["XREVRANGE", &tag, "+", "-", "COUNT", "1"]).await.ok()?);
        let seq = newest.split(['"', '-']).find_map(|part| part.parse::<i64>().ok())?;
        (seq >= head).then_some(())
    })
    .await;
}

async fn stack_key(stack: &Stack, tenant: &str) -> String {
    let keys = format!("{:?}", stack.redis.command(&["KEYS", &format!("zg:*:ev:{tenant}")]).await);
    let start = keys.find("zg:").expect("the tenant has a stream");
    keys[start..].split(['\'', '"']).next().expect("a key").to_owned()
}

#[tokio::test]
async fn a_host_that_dies_before_the_start_has_sent_nothing_and_the_next_sends_once() {
    let mut stack = Stack::start().await;
    let (_, job) = die_at(&mut stack, "host.before_start").await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(sent(&stack).await, ["precious", "next"]);
}

#[tokio::test]
async fn a_host_that_dies_after_the_start_leaves_an_unknown_job_and_never_a_second_message() {
    let mut stack = Stack::start().await;
    let (_, job) = die_at(&mut stack, "host.after_start").await;
    assert_eq!(job["state"], "unknown", "{job}");
    assert_eq!(job["error"]["code"], "host_lost");
    assert_eq!(sent(&stack).await, ["next"]);
}

#[tokio::test]
async fn a_restart_and_a_logout_whose_host_dies_after_their_start_are_done_once_by_the_next() {
    let mut stack = Stack::start().await;
    let _hosts = (stack.host().await, stack.host().await, stack.host().await);
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    for what in ["restart", "logout"] {
        let mut armed = stack.points().arm_once("job.started");
        let job = ana.client.post(&format!("/api/whatsapp/{what}"), serde_json::json!({})).await.ok()["id"].clone();
        armed.arrived().await.reply(Word::Die).await;
        let job = ana.client.ended(job.as_str().expect("an id"), SOON).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    // The next owner's browser is another one already: it was not restarted for it.
    let told = ana.client.events(0).await;
    assert!(!told.iter().any(|e| e["data"]["session"]["reason"] == "restart_requested"));
    assert!(stack.sim.devices(OURS).await.is_empty());
}

#[tokio::test]
async fn an_outcome_written_before_the_ack_is_recorded_once() {
    let mut stack = Stack::start().await;
    let (ana, job) = die_at(&mut stack, "outcome.before_ack").await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(sent(&stack).await, ["precious", "next"]);
    recorded_once(&stack, &ana, &job).await;
}

#[tokio::test]
async fn an_outcome_written_before_it_is_published_reaches_the_stream() {
    let mut stack = Stack::start().await;
    let (ana, job) = die_at(&mut stack, "outcome.before_publish").await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(sent(&stack).await, ["precious", "next"]);
    recorded_once(&stack, &ana, &job).await;
}

#[tokio::test]
async fn a_job_cancelled_between_take_and_start_sends_nothing() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let mut armed = stack.points().arm("host.before_start");
    let job = ana.client.accepted(PEER, "never").await;
    let held = armed.arrived().await;
    let cancelled = ana.client.post(&format!("/api/jobs/{job}/cancel"), serde_json::json!({})).await.ok();
    assert_eq!(cancelled["state"], "cancelled");
    drop(armed);
    held.reply(Word::Go).await;
    let next = ana.client.accepted(PEER, "next").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    assert_eq!(ana.client.job(&job).await["state"], "cancelled");
    assert_eq!(sent(&stack).await, ["next"]);
}

#[tokio::test]
async fn a_job_that_expires_between_take_and_start_sends_nothing() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let mut armed = stack.points().arm_once("host.before_start");
    let job = ana.client.accepted(PEER, "too late").await;
    let held = armed.arrived().await;
    let late = sqlx::query("update job set expires_at = clock_timestamp() where state = 'queued'").execute(&stack.db().await).await;
    assert_eq!(late.expect("Postgres answers").rows_affected(), 1);
    held.reply(Word::Go).await;
    let ended = ana.client.ended(&job, SOON).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&Value::from("expired"), &Value::from("job_expired")));
    let next = ana.client.accepted(PEER, "next").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    assert_eq!(sent(&stack).await, ["next"]);
    recorded_once(&stack, &ana, &ended).await;
}

#[tokio::test]
async fn a_start_and_an_outcome_whose_commits_were_not_answered_count_once_and_cost_no_browser() {
    let mut stack = Stack::with(Settings { proxies: true, ..Settings::default() }).await.expect("the stack starts");
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let browsers = host.browsers();
    // The start's answer is lost as well: it has not been handed to the page, and is.
    let start = stack.proxies().postgres.hold_answer(format!("true_{PEER}"));
    let cut = stack.proxies().postgres.hold_answer("succeeded");
    let job = ana.client.accepted(PEER, "precious").await;
    start.cut().await;
    cut.cut().await;
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    // Its entry is cleared: the next starts.
    let next = ana.client.accepted(PEER, "next").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    assert_eq!(sent(&stack).await, ["precious", "next"]);
    recorded_once(&stack, &ana, &job).await;
    assert_eq!(host.browsers(), browsers, "no browser was restarted");
}

#[tokio::test]
async fn an_api_that_dies_between_commit_and_push_has_accepted_in_order_and_once() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let mut armed = stack.points().arm_once("api.accept.committed");
    let (path, body) = (format!("/api/chats/{PEER}/messages"), serde_json::json!({"type": "text", "text": "first"}));
    let asked = ana.client.try_ask(reqwest::Method::POST, &path, &[("idempotency-key", "key-1")], Some(body));
    let die = async { armed.arrived().await.reply(Word::Die).await };
    let (unanswered, ()) = tokio::join!(asked, die);
    assert!(unanswered.is_none(), "its connection went with it");
    stack.api.restart().await.expect("it starts again");
    let second = ana.client.accepted(PEER, "second").await;
    let first = ana.client.send_once(PEER, "first", "key-1").await;
    assert_eq!(first.headers["idempotency-replayed"], "true");
    for job in [first.body["id"].as_str().expect("an id"), &second] {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    assert_eq!(sent(&stack).await, ["first", "second"]);
}

#[tokio::test]
async fn a_push_that_redis_did_not_take_still_starts_before_the_next_one() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let mut armed = stack.points().arm("api.push.redis_down");
    let client = ana.client.clone();
    let first = tokio::spawn(async move { client.accepted(PEER, "first").await });
    armed.arrived().await.reply(Word::Fail).await;
    drop(armed);
    let first = first.await.unwrap();
    let second = ana.client.accepted(PEER, "second").await;
    for job in [&first, &second] {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    assert_eq!(sent(&stack).await, ["first", "second"]);
}

#[tokio::test]
async fn a_redis_that_loses_everything_with_a_job_under_way_loses_no_job_no_order_and_no_browser() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let browsers = host.browsers();
    let mut armed = stack.points().arm("host.after_start");
    let mut jobs = vec![ana.client.accepted(PEER, "text 0").await];
    let held = armed.arrived().await;
    for n in 1..4 {
        jobs.push(ana.client.accepted(PEER, &format!("text {n}")).await);
    }
    stack.redis.command(&["FLUSHALL"]).await;
    drop(armed);
    held.reply(Word::Go).await;
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    assert_eq!(sent(&stack).await, ["text 0", "text 1", "text 2", "text 3"]);
    assert_eq!(host.browsers(), browsers, "no browser was restarted");
}

#[tokio::test]
async fn a_receipt_that_comes_late_turns_unknown_into_succeeded() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    stack.sim.fault(serde_json::json!({"kind": "ack_drop", "account": OURS, "times": 1})).await;
    let job = ana.client.accepted(PEER, "unheard of").await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "unknown");
    assert_eq!(sent(&stack).await, ["unheard of"]);
    ana.client.until_state("working", SOON).await;
    stack.sim.read(PEER, OURS).await;
    let told = |e: &Value| e["type"] == "job.updated" && e["data"]["job"]["id"] == job.as_str() && e["data"]["job"]["state"] == "succeeded";
    ana.client.event("the proof in the log", SOON, told).await;
    let kinds: Vec<Value> = ana.client.events(0).await.into_iter().filter(|e| e["chat"].is_string()).map(|e| e["type"].clone()).collect();
    assert_eq!(kinds, ["job.updated", "message", "job.updated"], "unknown, then what was sent, then that it was");
    assert_eq!(ana.client.get("/api/chats").await.ok()["items"].as_array().map(Vec::len), Some(1), "a chat with a message is listed");
    let proved = ana.client.job(&job).await;
    assert_eq!((&proved["state"], &proved["evidence"]["ack"]), (&Value::from("succeeded"), &Value::from(3)));
    assert_eq!(sent(&stack).await, ["unheard of"]);
}
