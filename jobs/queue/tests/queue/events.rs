//! What publishing and following promise: every event once and in order, whatever happens to streams and messages.

use std::{sync::Arc, time::Duration};

use crate::support::{Host, SOON, Stores};
use futures::future::join_all;
use harness::until_true;
use queue::{Readers, events};
use redis::streams::StreamRangeReply;
use tokio_util::task::TaskTracker;

fn readers(stores: &Stores) -> Readers {
    Readers::new(stores.redis.clone(), stores.pool.clone(), TaskTracker::new())
}

async fn stream(stores: &Stores, key: &str) -> StreamRangeReply {
    stores.server.ask(&["XRANGE", key, "-", "+"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_that_overtake_and_repeat_one_another_leave_each_event_once_and_in_order() {
    let stores = Stores::start().await;
    let all = Arc::new(stores.log(300).await);
    let publishers = (0..8).map(|p| {
        let (stores, all) = (stores.clone(), all.clone());
        async move {
            for n in 0..40 {
                let at = (n * 7 + p * 41) % 290;
                events::publish(&stores.pool, &stores.redis, stores.tenant, &all[at..at + 1 + p]).await.unwrap();
            }
        }
    });
    join_all(publishers).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &all[299..]).await.unwrap();
    let written = stream(&stores, &queue::keys::events(stores.tenant)).await;
    let ids: Vec<String> = written.ids.iter().map(|e| e.id.clone()).collect();
    assert_eq!(ids, (1..=300).map(|n| format!("{n}-0")).collect::<Vec<_>>());
    assert!(written.ids.iter().zip(all.iter()).all(|(entry, event)| entry.get::<String>("id") == Some(event.id.to_string())));
    let firehose = stream(&stores, &queue::keys::firehose(stores.tenant)).await;
    let seqs: Vec<i64> = firehose.ids.iter().filter_map(|e| e.get("seq")).collect();
    assert_eq!(seqs, (1..=300).collect::<Vec<_>>());
    assert!(firehose.ids.iter().all(|e| !e.contains_key("e") && e.get::<String>("type").as_deref() == Some("session.status")));
    let more = stores.log(1).await;
    events::publish(&stores.pool, &stores.redis.clone().with_firehose_bodies(true), stores.tenant, &more).await.unwrap();
    let last = stream(&stores, &queue::keys::firehose(stores.tenant)).await.ids.pop().unwrap();
    assert!(
        last.get::<String>("e").is_some_and(|body| serde_json::from_str::<contract::Event>(&body).unwrap().id == more[0].id),
        "where they are wanted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_told_to_whoever_listens_and_is_in_no_log() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.own(&stores, session).await;
    let follow = readers(&stores).follow(stores.tenant).await.unwrap();
    let mut told = follow.told();
    let key = queue::keys::new_events(stores.tenant);
    until_true("it listens", SOON, || async { stores.server.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", &key]).await.1 == 1 }).await;
    queue::qr::write(&stores.redis, &lease, "2@abc", Duration::from_secs(20)).await.unwrap();
    let code = tokio::time::timeout(SOON, told.recv()).await.expect("it comes").unwrap();
    assert_eq!((code.session, code.data["qr"].as_str()), (Some(session), Some("2@abc")));
    assert_eq!(store::counters::head(&stores.pool, stores.tenant).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_before_its_predecessor_comes_after_it_for_every_reader_and_the_late_publisher_adds_nothing() {
    let stores = Stores::start().await;
    let mut follow = readers(&stores).follow(stores.tenant).await.unwrap();
    // As long as it does not hear the channel it reads Postgres, which proves nothing here.
    let key = queue::keys::new_events(stores.tenant);
    until_true("it listens", SOON, || async { stores.server.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", &key]).await.1 == 1 }).await;
    let events = stores.log(2).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &events[1..]).await.unwrap();
    let (written, firehose) = (queue::keys::events(stores.tenant), queue::keys::firehose(stores.tenant));
    let seqs = async |key: &str| stream(&stores, key).await.ids.iter().map(|e| e.get("id")).collect::<Vec<Option<String>>>();
    let both: Vec<_> = events.iter().map(|e| Some(e.id.to_string())).collect();
    assert_eq!((seqs(&written).await, seqs(&firehose).await), (both.clone(), both.clone()));
    events::publish(&stores.pool, &stores.redis, stores.tenant, &events[..1]).await.unwrap();
    assert_eq!((seqs(&written).await, seqs(&firehose).await), (both.clone(), both));
    let last = stores.log(1).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &last).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(tokio::time::timeout(SOON, follow.next()).await.expect("it comes").seq, seq);
    }
}

/// A reader that has read up to 5 while the log went on to 21.
async fn reader_at_five(stores: &Stores) -> queue::Follow {
    let mut follow = readers(stores).follow(stores.tenant).await.expect("answers");
    // As long as it does not hear the channel it reads Postgres, which proves nothing here.
    let key = queue::keys::new_events(stores.tenant);
    until_true("it listens", SOON, || async { stores.server.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", &key]).await.1 == 1 }).await;
    let first = stores.log(5).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &first).await.expect("answers");
    for seq in 1..=5 {
        assert_eq!(tokio::time::timeout(SOON, follow.next()).await.expect("it comes").seq, seq);
    }
    stores.log(15).await;
    follow
}

async fn sees_six_to_twenty_one(stores: &Stores, mut follow: queue::Follow) {
    let last = stores.log(1).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &last).await.expect("answers");
    for seq in 6..=21 {
        assert_eq!(tokio::time::timeout(SOON, follow.next()).await.expect("it comes").seq, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_trimmed_under_a_reader_costs_it_no_event() {
    let stores = Stores::start().await;
    let follow = reader_at_five(&stores).await;
    let key = queue::keys::events(stores.tenant);
    // Appended without a word to the reader, then all of it trimmed: what comes next is the first that it finds.
    for seq in 6..=20 {
        stores.server.run(&["XADD", &key, &format!("{seq}-0"), "id", "x", "e", "{}"]).await;
    }
    stores.server.run(&["XTRIM", &key, "MAXLEN", "0"]).await;
    sees_six_to_twenty_one(&stores, follow).await;
    assert_eq!(stream(&stores, &key).await.ids.last().map(|e| e.id.clone()), Some("21-0".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_under_a_reader_costs_it_no_event() {
    let stores = Stores::start().await;
    let follow = reader_at_five(&stores).await;
    stores.server.run(&["DEL", &queue::keys::events(stores.tenant)]).await;
    sees_six_to_twenty_one(&stores, follow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fell_far_behind_starts_over_with_the_newest() {
    let stores = Stores::start().await;
    let first = stores.log(3).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &first).await.unwrap();
    let many = stores.log(5000).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &many[4999..]).await.unwrap();
    let written = stream(&stores, &queue::keys::events(stores.tenant)).await;
    assert_eq!(written.ids.first().map(|e| e.id.as_str()), Some("3004-0"));
    assert_eq!(written.ids.last().map(|e| e.id.as_str()), Some("5003-0"));
    assert_eq!(written.ids.len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_type_that_only_newer_services_know_passes_through_publisher_and_reader() {
    let stores = Stores::start().await;
    let mut follow = readers(&stores).follow(stores.tenant).await.unwrap();
    stores.log(3).await;
    stores.postgres.run("update event set type = 'from.the.future' where seq = 2");
    let more = stores.log(1).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &more).await.unwrap();
    for (expected, kind) in [(1, "session.status"), (2, "from.the.future"), (3, "session.status"), (4, "session.status")] {
        let event = tokio::time::timeout(SOON, follow.next()).await.expect("it comes");
        assert_eq!((event.seq, event.kind.as_str()), (expected, kind));
    }
    let written = stream(&stores, &queue::keys::events(stores.tenant)).await;
    assert_eq!(written.ids.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_event_once_while_streams_are_trimmed_deleted_and_forgotten() {
    let stores = Stores::start().await;
    let readers = readers(&stores);
    let before = stores.log(5).await;
    let mut follow = readers.follow(stores.tenant).await.unwrap();
    let mut from_start = readers.follow_from(stores.tenant, 0).await.unwrap();
    let writer = {
        let stores = stores.clone();
        async move {
            let key = queue::keys::events(stores.tenant);
            for n in 0..60 {
                let events = stores.log(1 + n % 3).await;
                let late = n % 7 == 6;
                if !late {
                    events::publish(&stores.pool, &stores.redis, stores.tenant, &events).await.unwrap();
                }
                match n % 10 {
                    2 => stores.server.run(&["XTRIM", &key, "MAXLEN", "0"]).await,
                    4 => stores.server.run(&["DEL", &key]).await,
                    6 => stores.server.run(&["FLUSHALL"]).await,
                    8 => stores.server.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
                    _ => {}
                }
            }
            let last = stores.log(1).await;
            events::publish(&stores.pool, &stores.redis, stores.tenant, &last).await.unwrap();
        }
    };
    let expected = before.len() as i64 + 120 + 1;
    let read = async {
        for seq in 6..=expected {
            assert_eq!(follow.next().await.seq, seq);
        }
        for seq in 1..=expected {
            assert_eq!(from_start.next().await.seq, seq);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(writer, read) }).await.expect("all arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_events_while_redis_is_away_and_after_it_came_back() {
    let stores = Stores::start().await;
    let mut follow = readers(&stores).follow(stores.tenant).await.unwrap();
    stores.server.down().await;
    let events = stores.log(3).await;
    assert!(events::publish(&stores.pool, &stores.redis, stores.tenant, &events).await.is_err());
    for seq in 1..=3 {
        assert_eq!(tokio::time::timeout(SOON, follow.next()).await.expect("it comes").seq, seq);
    }
    stores.server.up().await;
    let key = queue::keys::new_events(stores.tenant);
    until_true("it listens again", SOON, || async { stores.server.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", &key]).await.1 == 1 }).await;
    let more = stores.log(2).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &more).await.unwrap();
    for seq in 4..=5 {
        assert_eq!(tokio::time::timeout(SOON, follow.next()).await.expect("it comes").seq, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_wait_for_the_next_event_loses_nothing() {
    let stores = Stores::start().await;
    let mut follow = readers(&stores).follow(stores.tenant).await.unwrap();
    let mut seen = Vec::new();
    let write = async {
        for _ in 0..60 {
            let events = stores.log(2).await;
            events::publish(&stores.pool, &stores.redis, stores.tenant, &events).await.unwrap();
            stores.server.run(&["DEL", &queue::keys::events(stores.tenant)]).await;
        }
    };
    let read = async {
        while seen.len() < 120 {
            if let Ok(event) = tokio::time::timeout(Duration::from_micros(500), follow.next()).await {
                seen.push(event.seq);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(write, read) }).await.expect("all arrive");
    assert_eq!(seen, (1..=120).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_their_connection_end_with_the_last_follower() {
    let stores = Stores::start().await;
    let tasks = TaskTracker::new();
    let readers = Readers::new(stores.redis.clone(), stores.pool.clone(), tasks.clone());
    for _ in 0..3 {
        let mut follow = readers.follow(stores.tenant).await.unwrap();
        let events = stores.log(1).await;
        events::publish(&stores.pool, &stores.redis, stores.tenant, &events).await.unwrap();
        tokio::time::timeout(SOON, follow.next()).await.expect("it comes");
    }
    tasks.close();
    tokio::time::timeout(SOON, tasks.wait()).await.expect("nothing runs any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_can_be_read_until_it_runs_out_or_is_cleared_and_only_its_owner_changes_it() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let read = async || queue::qr::read(&stores.redis, stores.tenant, session).await.unwrap();
    let old = a.own(&stores, session).await;
    assert_eq!(read().await, None);
    queue::qr::write(&stores.redis, &old, "2@abc", Duration::from_secs(20)).await.unwrap();
    assert!(read().await.is_some_and(|code| code.code == "2@abc" && code.expires_in > Duration::from_secs(10)));
    queue::qr::clear(&stores.redis, &old).await.unwrap();
    assert_eq!(read().await, None);
    // A stale owner is late with both.
    a.hub.release(session).await.unwrap();
    let new = harness::until("the released session", SOON, || async { b.claim(&stores, session).await }).await;
    queue::qr::write(&stores.redis, &new, "2@new", Duration::from_secs(20)).await.unwrap();
    queue::qr::clear(&stores.redis, &old).await.unwrap();
    queue::qr::write(&stores.redis, &old, "2@old", Duration::from_secs(20)).await.unwrap();
    assert!(read().await.is_some_and(|code| code.code == "2@new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stood_still_tells_what_was_erased_meanwhile_as_erased() {
    let stores = Stores::start().await;
    let all = stores.log(4).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &all).await.unwrap();
    let (mut fetched, mut heard) =
        (readers(&stores).follow_from(stores.tenant, 0).await.unwrap(), readers(&stores).follow(stores.tenant).await.unwrap());
    assert_eq!(fetched.next().await.seq, 1);
    let more = stores.log(2).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &more).await.unwrap();
    until_true("all is there to be told", SOON, || async { heard.head() == 6 && fetched.head() == 6 }).await;
    stores.postgres.run("update event set data = '{\"erased\": true}' where seq in (2, 6)");
    let erased = tokio::time::Instant::now();
    until_true("what was read is old", SOON, || async { erased.elapsed() > events::AS_READ }).await;
    for (follow, seqs) in [(&mut fetched, 2..=6), (&mut heard, 5..=6)] {
        for seq in seqs {
            let event = follow.next().await;
            assert_eq!((event.seq, contract::event::Erased::is(&event.data)), (seq, [2, 6].contains(&seq)));
        }
    }
}
