//! Postgres goes back to an older state under streams, followers, owners and lanes that know better.

use contract::{Event, EventType, Fact, event::LogRestoredBody};
use futures::future::join_all;
use harness::{until, until_true};
use queue::{Follow, Readers, events, reconcile, restored};
use redis::streams::StreamRangeReply;
use store::{
    lane_jobs::{self, Start},
    leases,
};
use tokio_util::task::TaskTracker;

use crate::support::{Host, Play, SOON, Stores};

fn readers(stores: &Stores) -> Readers {
    Readers::new(stores.redis.clone(), stores.pool.clone(), TaskTracker::new())
}

/// Ten events that stay, in log and stream.
async fn ten(stores: &Stores) {
    let events = stores.log(10).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &events).await.expect("answers");
}

async fn publish(stores: &Stores, events: &[Event]) {
    events::publish(&stores.pool, &stores.redis, stores.tenant, events).await.expect("answers");
}

async fn log(stores: &Stores) -> Vec<Event> {
    store::counters::after(&stores.pool, stores.tenant, 0, i64::MAX).await.expect("reads")
}

/// What has been announced, and under which numbers.
async fn announced(stores: &Stores) -> Vec<(i64, LogRestoredBody)> {
    let facts = log(stores).await.into_iter().filter_map(|event| match event.fact() {
        Ok(Some(Fact::LogRestored(body))) => Some((event.seq, body)),
        _ => None,
    });
    facts.collect()
}

/// The numbers and ids of what the stream has.
async fn stream(stores: &Stores) -> Vec<(i64, String)> {
    let entries: StreamRangeReply = stores.server.ask(&["XRANGE", &queue::keys::events(stores.tenant), "-", "+"]).await;
    entries.ids.iter().filter_map(|entry| Some((entry.id.split('-').next()?.parse().ok()?, entry.get("id")?))).collect()
}

async fn stream_is_the_log(stores: &Stores) {
    let log = async || log(stores).await.into_iter().map(|event| (event.seq, event.id.to_string())).collect::<Vec<_>>();
    until_true("the stream to be the log", SOON, async || stream(stores).await == log().await).await;
}

async fn told(follow: &mut Follow, count: usize) -> Vec<(i64, contract::EventId)> {
    let mut told = Vec::new();
    while told.len() < count {
        let event = tokio::time::timeout(SOON, follow.next()).await.expect("it comes");
        told.push((event.seq, event.id));
    }
    told
}

fn numbers(events: &[Event]) -> Vec<(i64, contract::EventId)> {
    events.iter().map(|event| (event.seq, event.id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_goes_on_above_all_that_was_told_and_says_so_once_whoever_notices() {
    let stores = Stores::start().await;
    ten(&stores).await;
    let kept = stores.postgres.keep().await;
    let mut ahead = readers(&stores).follow(stores.tenant).await.unwrap();
    let lost = stores.log(5).await;
    publish(&stores, &lost).await;
    assert_eq!(told(&mut ahead, 5).await, numbers(&lost));
    stores.postgres.go_back(&kept).await;
    let mut behind = readers(&stores).follow_from(stores.tenant, 10).await.unwrap();

    // Numbers that were told are taken by others, and all publish and look at once.
    let after = stores.log(3).await;
    assert_eq!(after[0].seq, 11);
    let publishers = (0..8).map(|n| {
        let (stores, after) = (stores.clone(), after.clone());
        async move {
            publish(&stores, &after[n % 3..=n % 3]).await;
            restored::mend(&stores.pool, &stores.redis, stores.tenant, 0).await.expect("answers");
        }
    });
    join_all(publishers).await;
    let mut seen = reconcile::Seen::default();
    for _ in 0..2 {
        reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
    }
    let [(seq, body)] = announced(&stores).await[..] else { panic!("once") };
    assert_eq!(body.from, 11);
    assert!(seq == body.to + 1 && body.to > 15);
    stream_is_the_log(&stores).await;

    // Whoever was told too much goes on with it; whoever was not misses nothing.
    let next = stores.log(2).await;
    publish(&stores, &next).await;
    let all = numbers(&log(&stores).await);
    assert_eq!(told(&mut ahead, 3).await, all[13..]);
    assert_eq!(told(&mut behind, 6).await, all[10..]);

    // A publisher that still holds what was lost comes late.
    publish(&stores, &lost).await;
    assert_eq!(announced(&stores).await.len(), 1);
    stream_is_the_log(&stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_were_used_again_before_anybody_published_are_found_by_who_compares() {
    let stores = Stores::start().await;
    ten(&stores).await;
    let mut seen = reconcile::Seen::default();
    let kept = stores.postgres.keep().await;
    let lost = stores.log(5).await;
    publish(&stores, &lost).await;
    reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
    for mut seen in [seen, reconcile::Seen::default()] {
        stores.postgres.go_back(&kept).await;
        let key = queue::keys::events(stores.tenant);
        stores.server.run(&["DEL", &key]).await;
        ten_and(&stores, &lost).await;
        // The last of them follows what the stream has: nothing is wrong for its publisher.
        let after = stores.log(8).await;
        publish(&stores, &after[7..]).await;
        assert_eq!(announced(&stores).await, []);
        reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
        let [(_, body)] = announced(&stores).await[..] else { panic!("once") };
        assert_eq!(body.from, 11);
        stream_is_the_log(&stores).await;
    }
}

/// The stream as it was before Postgres went back.
async fn ten_and(stores: &Stores, lost: &[Event]) {
    let mut all = log(stores).await;
    all.extend_from_slice(lost);
    for event in &all {
        let (id, seq) = (event.id.to_string(), format!("{}-0", event.seq));
        let json = serde_json::to_string(event).expect("an event is JSON");
        stores.server.run(&["XADD", &queue::keys::events(stores.tenant), &seq, "id", &id, "e", &json]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lags_is_trimmed_emptied_deleted_or_older_than_the_log_is_no_sign_of_a_lost_one() {
    let stores = Stores::start().await;
    ten(&stores).await;
    let old = stores.server.keep().await;
    publish(&stores, &stores.log(20).await).await;
    let key = queue::keys::events(stores.tenant);
    let mut seen = reconcile::Seen::default();
    let mut fine = async |what: &str| {
        assert!(!restored::mend(&stores.pool, &stores.redis, stores.tenant, 0).await.unwrap(), "{what}");
        reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
        assert_eq!(announced(&stores).await, [], "{what}");
    };
    stores.log(5).await;
    fine("lags").await;
    stores.server.run(&["XDEL", &key, "12-0", "35-0"]).await;
    stores.postgres.run("update event set data = '{\"erased\": true}' where seq in (12, 35)");
    publish(&stores, &log(&stores).await[30..]).await;
    fine("emptied by an erasure").await;
    stores.server.run(&["XTRIM", &key, "MAXLEN", "3"]).await;
    stores.log(1).await;
    fine("trimmed").await;
    stores.postgres.run("delete from event where seq < 36; update tenant_counter set floor_seq = 36");
    fine("what the log dropped is in the stream still").await;
    stores.server.go_back(&old).await;
    stores.log(1).await;
    fine("older").await;
    stores.server.run(&["DEL", &key]).await;
    stores.log(1).await;
    fine("deleted").await;

    // While it is written, too.
    let writer = async {
        for n in 0..20 {
            let events = stores.log(1 + n % 4).await;
            publish(&stores, &events[n % events.len()..]).await;
        }
    };
    let looker = async {
        for _ in 0..40 {
            assert!(!restored::mend(&stores.pool, &stores.redis, stores.tenant, 0).await.unwrap());
        }
    };
    tokio::join!(writer, looker);
    assert_eq!(announced(&stores).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_knows_what_it_told_where_redis_has_forgotten_it_too() {
    let stores = Stores::start().await;
    ten(&stores).await;
    let kept = stores.postgres.keep().await;
    let mut follow = readers(&stores).follow(stores.tenant).await.unwrap();
    publish(&stores, &stores.log(5).await).await;
    told(&mut follow, 5).await;
    stores.postgres.go_back(&kept).await;
    stores.server.run(&["FLUSHALL"]).await;
    stores.server.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let (seq, body) = until("the announcement", SOON, || async { announced(&stores).await.first().copied() }).await;
    assert!(body.from == 11 && body.to > 15);
    assert_eq!(told(&mut follow, 1).await[0].0, seq);
    stream_is_the_log(&stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_epoch_is_issued_again_after_a_lost_fail_over_writes_nothing() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let kept = stores.postgres.keep().await;
    let old = a.own(&stores, session).await;
    stores.postgres.go_back(&kept).await;
    let mut rounds = a.rounds.subscribe();
    let fenced = tokio::time::timeout(SOON, rounds.wait_for(|fenced| fenced.contains(&session))).await;
    fenced.expect("it is fenced").expect("the host lives");
    let new = until("the lease's end", SOON, || async { b.claim(&stores, session).await }).await;
    assert_eq!(
        (old.held().epoch(), old.held().owner() == new.held().owner()),
        (new.held().epoch(), false),
        "the same epoch, another owner"
    );

    let (job, _) = stores.accept(session).await;
    assert_eq!(lane_jobs::start(&stores.pool, old.held(), job, 0, None).await.unwrap(), Start::Fenced);
    assert!(store::history::reconciled(&stores.pool, old.held(), true).await.unwrap().is_none());
    assert!(lane_jobs::lost(&stores.pool, old.held(), contract::JobId::new()).await.unwrap().is_none());
    assert!(leases::still_held(&stores.pool, &[*old.held()]).await.unwrap().is_empty());
    assert_eq!(log(&stores).await, []);
    b.hub.open(session);
    let mut seen = reconcile::Seen::default();
    reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
    b.has_started(1).await;
    assert_eq!((a.started(), b.started()), (Vec::new(), vec![job]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_goes_on_after_lost_commits_and_announces_each_accepted_job_that_is_gone() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    let first = stores.send(session).await;
    host.has_started(1).await;
    until_true("it has ended", SOON, || async { stores.job_state(first) == "succeeded 1" }).await;
    let kept = stores.postgres.keep().await;
    host.play.send_replace(Play::Hold);
    let (running, waiting) = (stores.send(session).await, stores.send(session).await);
    host.has_started(2).await;
    stores.postgres.go_back(&kept).await;
    host.play.send_replace(Play::Run);
    let lost = async || log(&stores).await.into_iter().filter(|event| event.kind == EventType::JobLost).collect::<Vec<_>>();
    until_true("both are announced", SOON, async || lost().await.len() >= 2).await;
    let next = stores.send(session).await;
    until_true("the next one ends", SOON, || async { stores.job_state(next) == "succeeded 1" }).await;
    until_true("the lane is empty", SOON, || async { stores.lane(session).await.is_empty() }).await;

    let told: Vec<_> =
        lost().await.iter().map(|event| (event.session, event.data["job"]["id"].as_str().unwrap_or_default().to_owned())).collect();
    assert_eq!(told, [(Some(session), running.to_string()), (Some(session), waiting.to_string())]);
    assert_eq!(host.started(), [first, running, next]);
    assert!(host.rounds.borrow().is_empty(), "it stays the owner");
    stream_is_the_log(&stores).await;
}
