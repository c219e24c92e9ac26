//! Replays, redeliveries, test calls, and two secrets at once.

use harness::{
    Stack,
    receiver::{Receiver, Reply},
    until_true,
};
use serde_json::json;
use uuid::Uuid;

use super::{Hook, SOON, comes, quick, timings};

/// Writes a waiting row of its own kind, as the API does.
async fn errand(hook: &Hook, kind: &str, seq: Option<i64>, body: Option<serde_json::Value>) -> Uuid {
    let id = Uuid::now_v7();
    sqlx::query(
        "insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state, next_at, body)
         select $1, $2, $3, coalesce((select id from event where tenant = $2 and seq = $4), $1), $4, 'message', $5, 'waiting', now(), $6",
    )
    .bind(id)
    .bind(hook.tenant.uuid())
    .bind(hook.id.uuid())
    .bind(seq)
    .bind(kind)
    .bind(body)
    .execute(&hook.db)
    .await
    .expect("the row is right");
    hook.wake().await;
    id
}

#[tokio::test]
async fn a_replay_comes_in_order_with_the_same_ids_and_says_so_and_what_is_new_follows_it() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let _worker = stack.teller(&quick()).await;
    let last = hook.emit(30).await;
    hook.settled(last).await;
    hook.set(&format!("replay_until = greatest(replay_until, cursor_seq), cursor_seq = {}", first + 9)).await;
    hook.wake().await;
    // What comes before the worker knows of the replay is told beforehand, and once more in its turn.
    receiver.until("the replay", SOON, |got| got.len() > 30).await;
    let new = hook.emit(5).await;
    comes(&receiver, new).await;
    hook.settled(new).await;
    let got = receiver.got();
    assert_eq!(receiver.seqs(), (first..=last).chain(first + 10..=new).collect::<Vec<_>>());
    for (n, got) in got.iter().enumerate() {
        assert_eq!(got.header("zaguan-replay"), if (30..50).contains(&n) { "true" } else { "" }, "{n}");
        assert!(hook.signed(got));
    }
    assert_eq!((&got[30].raw, got[30].header("webhook-id")), (&got[10].raw, got[10].header("webhook-id")));
    assert_eq!(hook.count("kind = 'replay' and state = 'delivered'").await, 20);

    // The same again, without word of it and while more is being told.
    hook.set(&format!("cursor_seq = {}", first + 24)).await;
    let last = hook.emit(5).await;
    until_true("the second replay", SOON, async || hook.count("kind = 'replay'").await == 25).await;
    hook.settled(last).await;
    assert_eq!(receiver.seqs().last(), Some(&last));
}

#[tokio::test]
async fn a_replay_asked_for_while_an_event_waits_begins_where_it_was_asked_to() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let _worker = stack.teller(&quick()).await;
    let bad = hook.emit(10).await;
    hook.settled(bad).await;
    receiver.answers(move |got| Reply::Status(if got.seq() == bad + 1 { 500 } else { 200 }));
    let last = hook.emit(3).await;
    // As the API does it, in the middle of an attempt whose end is about to be settled.
    let mut settling = stack.points().arm_once("webhook.before_settle");
    let arrival = settling.arrived().await;
    hook.set(&format!("replay_until = greatest(replay_until, cursor_seq), cursor_seq = {}", first + 1)).await;
    sqlx::query("delete from webhook_delivery where webhook = $1 and state = 'waiting'")
        .bind(hook.id.uuid())
        .execute(&hook.db)
        .await
        .unwrap();
    arrival.reply(harness::faults::Word::Go).await;
    hook.wake().await;
    receiver.until("the replay", SOON, |got| got.iter().filter(|g| g.seq() == bad).count() == 2).await;
    receiver.answers(|_| Reply::Status(200));
    comes(&receiver, last).await;
    hook.settled(last).await;
    let mut seqs = receiver.seqs();
    let again = seqs.split_off(10);
    let mut replay: Vec<i64> = again.into_iter().skip_while(|seq| *seq == bad + 1).collect();
    replay.dedup();
    assert_eq!(replay, (first + 2..=last).collect::<Vec<_>>(), "nothing that waited comes before it");
}

#[tokio::test]
async fn a_replay_asked_for_while_what_was_sent_is_settled_is_told_whole_although_more_is_sent_meanwhile() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let _worker = stack.teller(&quick()).await;
    let told = hook.emit(5).await;
    hook.settled(told).await;
    let mut settling = stack.points().arm_once("webhook.before_settle");
    let before = hook.emit(1).await;
    let arrival = settling.arrived().await;
    hook.set(&format!("replay_until = greatest(replay_until, cursor_seq), cursor_seq = {}", first - 1)).await;
    // Sent, and to be settled right behind the one that is held.
    let last = hook.emit(1).await;
    comes(&receiver, last).await;
    arrival.reply(harness::faults::Word::Go).await;
    hook.settled(last).await;
    let again = receiver.until("all of it", SOON, |got| (first..=told).all(|seq| got.iter().filter(|g| g.seq() == seq).count() >= 2)).await;
    assert!(again.iter().any(|got| got.seq() == before));
}

#[tokio::test]
async fn one_event_again_and_a_test_call_come_at_once_although_the_order_is_held_up() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    receiver.answers(move |got| Reply::Status(if got.seq() > first || got.body["type"] == "webhook.test" { 500 } else { 200 }));
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [3_600_000, 3_600_000]}))).await;
    hook.emit(3).await;
    comes(&receiver, first + 1).await;
    let again = errand(&hook, "redelivery", Some(first), None).await;
    let test = errand(&hook, "test", None, Some(json!({"id": "evt_1", "seq": null, "type": "webhook.test", "data": {}}))).await;
    until_true("both to be settled", SOON, async || hook.count("kind in ('redelivery', 'test') and state <> 'waiting'").await == 2).await;
    assert_eq!(hook.of_delivery::<String>("state", &format!("id = '{again}'")).await, "delivered");
    let failed = hook.of_delivery::<String>("state || ' ' || attempt || ' ' || status", &format!("id = '{test}'")).await;
    assert_eq!(failed, "dead 1 500", "a test is tried once");
    let got = receiver.got();
    assert_eq!(got.iter().filter(|g| g.seq() == first).count(), 2);
    let tests: Vec<_> = got.iter().filter(|g| g.body["type"] == "webhook.test").collect();
    assert!(tests.len() == 1 && hook.signed(tests[0]) && tests[0].header("zaguan-replay").is_empty());
    assert_eq!(got.iter().filter(|g| g.seq() == first + 1).count(), 1, "the order is where it was");
    assert_eq!(hook.get::<i64>("cursor_seq").await, first + 1);
}

#[tokio::test]
async fn while_a_secret_is_being_changed_both_sign() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    hook.set("previous_secret = secret, previous_until = now() + interval '3 seconds'").await;
    let _worker = stack.teller(&quick()).await;
    let seq = hook.emit(1).await;
    let got = comes(&receiver, seq).await;
    let signatures: Vec<&str> = got[0].header("webhook-signature").split(' ').collect();
    // Here both are the same secret, so both signatures are.
    assert!(signatures.len() == 2 && signatures[0] == signatures[1] && signatures[0].starts_with("v1,"), "{signatures:?}");
    assert!(hook.signed(&got[0]));
    until_true("the old one to end", SOON, async || {
        let seq = hook.emit(1).await;
        comes(&receiver, seq).await.last().unwrap().header("webhook-signature").split(' ').count() == 1
    })
    .await;
}
