//! Endpoints, databases and workers go away and come back: nothing is lost, nothing overtakes, what comes twice has the same id.

use std::time::{Duration, Instant};

use harness::{
    Stack,
    faults::Word,
    receiver::{Receiver, Reply},
    until_true,
};
use serde_json::json;

use super::{Hook, SOON, comes, complete, quick, timings};

#[tokio::test]
async fn an_endpoint_that_was_down_for_a_day_gets_all_of_it_in_order_and_others_notice_nothing() {
    let mut stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let (mut down, up) = (Receiver::start().await, Receiver::start().await);
    let (hook, other) = (Hook::of(&stack, &ana, &down.url("/")).await, Hook::of(&stack, &bea, &up.url("/")).await);
    let (first, others_first) = (hook.get::<i64>("cursor_seq").await + 1, other.get::<i64>("cursor_seq").await + 1);
    down.down();
    // The schedule as it is, but that the worker looks often.
    let _worker = stack.teller(r#"{"leaseMs": 2000, "lookEveryMs": 200}"#).await;
    let mut last = 0;
    let mut others_last = 0;
    for attempt in 1..=16 {
        last = hook.emit(20).await;
        others_last = other.emit(20).await;
        // The other's events come while this one's wait, however often it is tried.
        comes(&up, others_last).await;
        until_true("the attempt", SOON, async || hook.count(&format!("state = 'waiting' and attempt >= {attempt}")).await == 1).await;
        assert!(down.got().is_empty());
        hook.days_pass(1.5 / 16.0).await;
    }
    assert_eq!(hook.count("error = 'connect_failed'").await, 1);
    assert_eq!(hook.get::<String>("state").await, "active");
    assert_eq!(complete(&up, others_first, others_last), 0);
    down.up().await;
    hook.days_pass(0.5).await;
    hook.settled(last).await;
    complete(&down, first, last);
    assert_eq!(hook.count("state = 'delivered'").await, last - first + 1);
}

#[tokio::test]
async fn a_worker_killed_in_mid_delivery_leaves_no_hole_and_repeats_a_bounded_few_with_the_same_ids() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let last = hook.emit(1000).await;
    let mut killed = 0;
    for point in ["webhook.before_send", "webhook.after_response", "webhook.before_settle"] {
        let mut at = stack.points().arm_once(point);
        let mut worker = stack.teller(&quick()).await;
        at.arrived().await.reply(Word::Die).await;
        assert!(!worker.process.wait(SOON).await.expect("it dies").success());
        killed += 1;
        // Some of it is sent and settled between two of them.
        let mut worker = stack.teller(&quick()).await;
        let before = hook.get::<i64>("cursor_seq").await;
        until_true("more to be told", SOON, async || hook.get::<i64>("cursor_seq").await >= (before + 150).min(last)).await;
        worker.process.signal(harness::process::Signal::KILL);
        worker.process.wait(SOON).await.expect("it is killed");
        killed += 1;
    }
    let _worker = stack.teller(&quick()).await;
    hook.settled(last).await;
    let repeated = complete(&receiver, first, last);
    assert!(repeated <= killed * 200, "{repeated}");
    assert_eq!(hook.count("state = 'delivered'").await, last - first + 1, "each is in the log once");
}

#[tokio::test]
async fn redis_flushed_and_gone_and_postgres_restarted_lose_nothing() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    receiver.answers(|_| Reply::Late(Duration::from_millis(2), 200));
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let _worker = stack.teller(&quick()).await;
    let seq = hook.emit(100).await;
    comes(&receiver, seq - 50).await;
    stack.redis.command(&["FLUSHALL"]).await;
    let seq = hook.emit(100).await;
    comes(&receiver, seq - 50).await;
    stack.redis.kill().await;
    let seq = hook.emit(100).await;
    comes(&receiver, seq - 50).await;
    stack.redis.up().await.unwrap();
    let seq = hook.emit(400).await;
    comes(&receiver, seq - 350).await;
    // While it is under way.
    stack.postgres.restart().await.unwrap();
    let last = hook.emit(100).await;
    hook.settled(last).await;
    complete(&receiver, first, last);
    assert_eq!(hook.count("state = 'delivered'").await, last - first + 1);
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_nobody_else() {
    let mut stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let (tarpit, good) = (Receiver::start().await, Receiver::start().await);
    tarpit.answers(|_| Reply::Never);
    // More lanes than its tenant has room for.
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(Hook::with(&stack, &ana, &tarpit.url("/"), json!({"ordered_by": "chat", "concurrency": 8})).await);
    }
    let others = Hook::of(&stack, &ana, &good.url("/ana")).await;
    let hook = Hook::of(&stack, &bea, &good.url("/bea")).await;
    let _worker = stack.teller(&timings(&json!({"answerWithinMs": 20000, "attemptsAtOnce": 24, "attemptsAtOncePerTenant": 12}))).await;
    for _ in 0..16 {
        stuck[0].emit_in(1, Some(uuid::Uuid::now_v7())).await;
    }
    tarpit.until("its room to be full", SOON, |got| got.len() >= 12).await;
    let began = Instant::now();
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let last = hook.emit(300).await;
    comes(&good, last).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "another tenant's 300 took {took:?}: none of them waited for an attempt to end");
    assert_eq!(good.got().iter().filter(|g| g.path == "/bea").count() as i64, last - first + 1);
    assert!(tarpit.got().len() <= 12, "no more than the tenant's room at once");
    drop(others);
}
