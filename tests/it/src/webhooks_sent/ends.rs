//! What ends a delivery, or a webhook: given up, gone, paused, kept no longer.

use harness::{
    Stack, Tenant,
    faults::Word,
    receiver::{Receiver, Reply},
    until_true,
};
use serde_json::{Value, json};

use super::{Hook, SOON, comes, complete, quick, timings};

async fn status_event(tenant: &Tenant) -> Value {
    tenant.client.event("the webhook's end", SOON, |e| e["type"] == "webhook.status").await
}

#[tokio::test]
async fn a_receiver_that_says_it_is_gone_is_told_no_more_and_everybody_is_told_that() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    receiver.answers(move |got| Reply::Status(if got.seq() == first + 2 { 410 } else { 200 }));
    let _worker = stack.teller(&quick()).await;
    let last = hook.emit(5).await;
    let event = status_event(&ana).await;
    assert_eq!(event["data"], json!({"webhook": hook.id, "state": "disabled", "reason": "gone"}));
    assert_eq!((event["session"].clone(), event["seq"].as_i64()), (Value::Null, Some(last + 1)));
    until_true("it to be given back", SOON, async || hook.get::<bool>("owner is null").await).await;
    assert_eq!(receiver.seqs(), [first, first + 1, first + 2]);
    assert_eq!(hook.get::<String>("state || ' ' || reason").await, "disabled gone");
    // Somebody says that it is there after all: it goes on where it stood.
    receiver.answers(|_| Reply::Status(200));
    hook.set("state = 'active', reason = null").await;
    hook.wake().await;
    comes(&receiver, last + 1).await;
    complete(&receiver, first, last + 1);
}

#[tokio::test]
async fn one_that_fails_for_too_long_is_paused_with_notice_and_goes_on_without_loss_when_resumed() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    receiver.answers(|_| Reply::Status(500));
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let _worker = stack.teller(&timings(&json!({"pauseFailures": 5}))).await;
    hook.emit(10).await;
    until_true("enough failures", SOON, async || hook.get::<i32>("failures").await >= 5).await;
    assert_eq!(hook.get::<String>("state").await, "active", "not for long enough");
    hook.days_pass(2.9).await;
    let failures = hook.get::<i32>("failures").await;
    until_true("more failures", SOON, async || hook.get::<i32>("failures").await > failures).await;
    assert_eq!(hook.get::<String>("state").await, "active", "not for long enough");
    hook.days_pass(0.2).await;
    let event = status_event(&ana).await;
    assert_eq!(event["data"], json!({"webhook": hook.id, "state": "paused", "reason": "failing"}));
    until_true("it to be given back", SOON, async || hook.get::<bool>("owner is null").await).await;
    assert_eq!(hook.count("state = 'waiting' and attempt = 0 and next_at is null").await, 1, "its schedule begins anew");
    let (told, last) = (receiver.got().len(), hook.emit(5).await);
    receiver.answers(|_| Reply::Status(200));
    hook.set("state = 'active', reason = null").await;
    hook.wake().await;
    comes(&receiver, last).await;
    complete(&receiver, first, last);
    assert!(receiver.got()[told..].iter().all(|g| hook.signed(g)));
    assert!(hook.count("state = 'dead'").await == 0);
}

#[tokio::test]
async fn an_event_is_given_up_after_its_schedule_with_the_reason_and_the_next_one_is_told() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    receiver.answers(move |got| {
        let sick = Reply::Full(422, vec![("content-type", "text/plain".into())], [b"no\x1b[2J\nsuch ".as_slice(), &[b'x'; 1000]].concat());
        if got.seq() == first { sick } else { Reply::Status(204) }
    });
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [50, 50, 50]}))).await;
    let last = hook.emit(3).await;
    comes(&receiver, last).await;
    hook.settled(last).await;
    assert_eq!(receiver.seqs(), [first, first, first, first, first + 1, first + 2]);
    let dead = format!("state = 'dead' and seq = {first} and attempt = 4 and status = 422 and next_at is null and finished_at is not null");
    assert_eq!(hook.count(&dead).await, 1);
    let answer: String = hook.of_delivery("answer", &dead).await;
    assert!(answer.starts_with("no\u{fffd}[2J\u{fffd}such xxx") && answer.chars().count() == 256, "{answer:?}");
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    receiver.answers(|_| Reply::Full(429, vec![("retry-after", "3600".into())], Vec::new()));
    let _worker = stack.teller(&quick()).await;
    let last = hook.emit(2).await;
    until_true("an attempt", SOON, async || hook.count("state = 'waiting' and attempt = 1").await == 1).await;
    assert!(hook.of_delivery::<bool>("next_at between now() + interval '59 minutes' and now() + interval '61 minutes'", "true").await);
    receiver.answers(|_| Reply::Status(200));
    assert_eq!(receiver.got().len(), 1);
    hook.days_pass(1.0 / 24.0).await;
    hook.settled(last).await;
    assert_eq!(receiver.seqs(), [last - 1, last - 1, last]);
}

#[tokio::test]
async fn what_was_dropped_before_it_could_be_told_is_announced_as_a_gap_in_its_place() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let cursor = hook.get::<i64>("cursor_seq").await;
    let last = hook.emit(10).await;
    let floor = cursor + 6;
    let drop = "with d as (delete from event where tenant = $1 and seq < $2) update tenant_counter set floor_seq = $2 where tenant = $1";
    sqlx::query(drop).bind(hook.tenant.uuid()).bind(floor).execute(&hook.db).await.unwrap();
    // Told by a worker that dies before it is written down, it is told again as the same.
    let mut told = stack.points().arm_once("webhook.after_response");
    let mut first = stack.teller(&quick()).await;
    told.arrived().await.reply(Word::Die).await;
    first.process.wait(SOON).await.expect("it dies");
    let _worker = stack.teller(&quick()).await;
    comes(&receiver, last).await;
    let got = receiver.got();
    assert_eq!((got[0].body["type"].as_str(), &got[0].body["seq"]), (Some("stream.gap"), &Value::Null));
    assert_eq!(got[0].body["data"], json!({"after": cursor, "oldest": floor}));
    assert!(hook.signed(&got[0]) && got[0].header("webhook-id") == got[0].body["id"]);
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    assert_eq!(receiver.seqs()[2..], (floor..=last).collect::<Vec<_>>());

    // One that waits, and is dropped meanwhile, is dead.
    receiver.answers(|_| Reply::Status(500));
    let seq = hook.emit(1).await;
    comes(&receiver, seq).await;
    until_true("it to wait", SOON, async || hook.count("state = 'waiting'").await == 1).await;
    sqlx::query(drop).bind(hook.tenant.uuid()).bind(seq + 1).execute(&hook.db).await.unwrap();
    until_true("it to be given up", SOON, async || hook.count("state = 'dead' and error = 'expired'").await == 1).await;
}
