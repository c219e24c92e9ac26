//! Several workers share the webhooks.

use std::time::Duration;

use harness::{Stack, faults::Word, process::Signal, receiver::Receiver, until_true};

use super::{Hook, SOON, comes, complete, quick};

async fn owners(hook: &Hook) -> Vec<i64> {
    let sql = "select count(*) from webhook where owner is not null group by owner order by 1";
    sqlx::query_scalar(sql).fetch_all(&hook.db).await.expect("Postgres answers")
}

#[tokio::test]
async fn a_worker_that_joins_gets_its_share_and_the_others_take_it_over_when_it_dies() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let mut hooks = Vec::new();
    for n in 0..8 {
        hooks.push(Hook::of(&stack, &ana, &receiver.url(&format!("/{n}"))).await);
    }
    let mut first = stack.teller(&quick()).await;
    until_true("one to hold all", SOON, async || owners(&hooks[0]).await == [8]).await;
    let mut second = stack.teller(&quick()).await;
    until_true("both to hold four", SOON, async || owners(&hooks[0]).await == [4, 4]).await;
    let told_all = |seq: i64| {
        let got = receiver.got();
        (0..8).all(|n| got.iter().filter(|g| g.seq() == seq && g.path == format!("/{n}")).count() == 1)
    };
    let seq = hooks[0].emit(1).await;
    until_true("all eight to be told once", SOON, async || told_all(seq)).await;

    first.process.signal(Signal::KILL);
    first.process.wait(SOON).await.expect("it dies");
    let seq = hooks[0].emit(1).await;
    until_true("all eight to be told by the other", SOON, async || told_all(seq)).await;
    assert_eq!(owners(&hooks[0]).await, [8]);

    // One that ends in order gives everything back at once.
    second.process.signal(Signal::TERM);
    assert!(second.process.wait(SOON).await.expect("it ends").success());
    assert_eq!(owners(&hooks[0]).await, [0; 0]);
}

#[tokio::test]
async fn a_worker_that_stood_still_past_its_lease_settles_nothing() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let mut at = stack.points().arm_once("webhook.before_settle");
    let stopped = stack.teller(&quick()).await;
    let last = hook.emit(50).await;
    at.arrived().await.reply(Word::Stop).await;
    assert_eq!(hook.count("true").await, 0);

    let _other = stack.teller(&quick()).await;
    hook.settled(last).await;
    let epoch = hook.get::<i64>("epoch").await;
    assert!(complete(&receiver, first, last) > 0, "the first had sent some of them");
    let rows = hook.count("true").await;
    assert_eq!(rows, last - first + 1);
    stopped.process.signal(Signal::CONT);
    // It goes on: settles in vain, renews its lease, and finds that the webhook is another's.
    let numbers = async || reqwest::get(stopped.url("/metrics")).await.unwrap().text().await.unwrap();
    until_true("it to notice", SOON, async || numbers().await.contains("zaguan_webhooks_held 0")).await;
    assert_eq!((hook.count("true").await, hook.get::<i64>("epoch").await), (rows, epoch));
    let last = hook.emit(1).await;
    comes(&receiver, last).await;
    tokio::time::timeout(Duration::from_secs(10), hook.settled(last)).await.unwrap();
    assert_eq!(receiver.seqs().iter().filter(|seq| **seq == last).count(), 1, "one of them tells it");
}
