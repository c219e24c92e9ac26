//! What leases promise: one owner at a time, whatever Redis forgets.

use std::time::Duration;

use crate::support::{Host, Play, SOON, Stores, timings};
use harness::{until, until_true};
use queue::Claimed;
use tokio_util::task::TaskTracker;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_that_claim_a_session_at_once_one_gets_it() {
    let stores = Stores::start().await;
    let (a, b) = (Host::start(&stores).await, Host::start(&stores).await);
    for _ in 0..10 {
        let session = stores.session();
        let claim = stores.claimable(session).await;
        let (one, other) = tokio::join!(a.hub.claim(&claim), b.hub.claim(&claim));
        let got = [one.unwrap(), other.unwrap()];
        assert_eq!(got.into_iter().filter_map(Claimed::ours).count(), 1);
        for hub in [&a.hub, &b.hub] {
            let Ok(Claimed::Held(left)) = hub.claim(&claim).await else { panic!("it is owned") };
            assert!(left <= timings().lease_ttl() && left > timings().lease_ttl() / 2, "{left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_taken_over_from_removes_nothing_and_starts_nothing() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let lease = a.own(&stores, session).await;
    a.play.send_replace(Play::Hold);
    let (first, second) = (stores.send(session).await, stores.send(session).await);
    a.has_started(1).await;
    b.play.send_replace(Play::Hold);
    // As after a fail-over of Redis that lost the lease; its owner may be the first to notice.
    let taken = until("a takeover", SOON, || async {
        stores.server.run(&["DEL", lease.key()]).await;
        b.claim(&stores, session).await
    })
    .await;
    b.hub.open(session);
    assert_eq!(taken.held().epoch(), lease.held().epoch() + 1);
    b.holds(1).await;
    a.play.send_replace(Play::Run);
    tokio::time::timeout(SOON, lease.fenced()).await.expect("the first is fenced");
    tokio::time::timeout(SOON, a.hub.idle()).await.expect("it is done with its job");
    assert_eq!(stores.lane(session).await, [first.to_string(), second.to_string()], "the first owner removed an entry");
    b.play.send_replace(Play::Run);
    b.has_started(2).await;
    assert_eq!((a.started(), b.started()), (vec![first], vec![first, second]));
    assert_eq!((stores.job_state(first), stores.job_state(second)), ("succeeded 2".into(), "succeeded 1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_in_mid_run_changes_no_owner_no_order_and_ends_each_job_once() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.own(&stores, session).await;
    host.play.send_replace(Play::Hold);
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(stores.send(session).await);
    }
    host.holds(1).await;
    stores.server.run(&["FLUSHALL"]).await;
    // Nobody else may conclude that the session is free, a host that has just started least of all.
    let newcomer = Host::start(&stores).await;
    assert!(newcomer.claim(&stores, session).await.is_none());
    host.play.send_replace(Play::Run);
    jobs.push(stores.send(session).await);
    host.has_started(jobs.len()).await;
    assert_eq!(host.started(), jobs);
    for job in jobs {
        until_true("it has ended", SOON, || async { stores.job_state(job) == "succeeded 1" }).await;
    }
    let holder: Option<String> = stores.server.ask(&["GET", lease.key()]).await;
    assert_eq!(holder.as_deref(), Some(lease.value()));
    assert!(newcomer.claim(&stores, session).await.is_none());
    assert!(host.rounds.borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_fences_nobody_and_lets_nobody_else_in() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.own(&stores, session).await;
    stores.server.down().await;
    let deadline = lease.deadline();
    // Longer than the lease: only Postgres can have prolonged it so far.
    until_true("the lease outlives its time", SOON, || async { lease.deadline() > deadline + 4000 }).await;
    let waiting = stores.send(session).await;
    let claimable = store::leases::claimable(&stores.pool, &[], &[], i32::MAX).await.unwrap();
    assert!(claimable.is_empty(), "the row says that it is held");
    stores.server.up().await;
    host.has_started(1).await;
    assert_eq!(host.started(), [waiting], "the lanes are filled again without the reconciler");
    assert!(host.rounds.borrow().is_empty());
    let soon_again = stores.send(session).await;
    host.has_started(2).await;
    assert_eq!(host.started()[1], soon_again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_neither_store_prolongs_is_let_go_of_before_it_ends() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.own(&stores, session).await;
    stores.server.down().await;
    stores.pool.close().await;
    tokio::time::timeout(SOON, lease.fenced()).await.expect("it is fenced");
    let left = lease.deadline().saturating_sub(queue::lease::boottime_ms());
    assert!((300..=500).contains(&left), "{left} ms before its end");
    until_true("the host hears of it", SOON, || async { host.rounds.borrow().contains(&session) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_session_is_free_at_once_and_the_hosts_are_called() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let mut wanted = queue::hosts::wanted_changes(&stores.redis).await;
    tokio::time::timeout(SOON, wanted.changed()).await.expect("listening counts as a call");
    let lease = a.own(&stores, session).await;
    stores.send(session).await;
    a.has_started(1).await;
    a.hub.stop_taking();
    let left = stores.send(session).await;
    tokio::time::timeout(SOON, a.hub.idle()).await.expect("it runs dry");
    a.hub.release(session).await.unwrap();
    tokio::time::timeout(SOON, wanted.changed()).await.expect("the hosts are called");
    tokio::time::timeout(SOON, lease.fenced()).await.expect("the released lease is nobody's");
    assert!(!stores.claimable(session).await.owned);
    b.own(&stores, session).await;
    b.has_started(1).await;
    assert_eq!(b.started(), [left]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_of_a_dead_host_frees_its_sessions() {
    let stores = Stores::start().await;
    let (a, session) = (Host::start(&stores).await, stores.session());
    let lease = a.own(&stores, session).await;
    let dead = [(lease.key().to_owned(), lease.value().to_owned()), (lease.key().to_owned(), "9:another".to_owned())];
    drop(a);
    queue::release_after_death(stores.server.url(), &dead).await.unwrap();
    let b = Host::start(&stores).await;
    assert!(b.claim(&stores, session).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_apart_by_their_last_heartbeat() {
    let stores = Stores::start().await;
    let (a, b) = (contract::HostId::new(), contract::HostId::new());
    let record = |used| queue::hosts::HostRecord { slots: 10, used, draining: false, browser: 100 };
    let fresh = Duration::from_secs(6);
    assert_eq!(queue::hosts::heartbeat(&stores.redis, a, &record(3), fresh).await.unwrap(), [a]);
    assert_eq!(queue::hosts::heartbeat(&stores.redis, b, &record(4), fresh).await.unwrap().len(), 2, "each hears of all");
    let live = queue::hosts::live(&stores.redis, fresh).await.unwrap();
    assert_eq!(live.iter().map(|h| h.record.used).sum::<usize>(), 7);
    stores.server.run(&["ZADD", "zg:hosts", "100000000000000", &b.to_string()]).await;
    let stale = Duration::from_millis(1);
    until_true("the first grows stale", SOON, || async { queue::hosts::stale(&stores.redis, stale).await.unwrap() == [a] }).await;
    assert_eq!(queue::hosts::live(&stores.redis, stale).await.unwrap().iter().map(|h| h.id).collect::<Vec<_>>(), [b]);
}

#[test]
fn leases_do_not_outlive_a_runtime_that_stands_still_although_another_renews_them() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tending, renewing) = (runtime(), runtime());
    let stores = renewing.block_on(Stores::start());
    let session = stores.session();
    let (hub, lease) = tending.block_on(async {
        let id = contract::HostId::new();
        let start = queue::Hub::start(stores.redis.clone(), stores.pool.clone(), id, timings(), TaskTracker::new());
        let (hub, _) = start.await.unwrap();
        let lease = hub.claim(&stores.claimable(session).await).await.unwrap().ours().unwrap();
        (hub, lease)
    });
    tending.spawn(async { std::thread::sleep(Duration::from_secs(6)) });
    let fenced = renewing.block_on(async {
        let mut fenced = Vec::new();
        let end = lease.deadline() + 3000;
        while fenced.is_empty() && queue::lease::boottime_ms() < end {
            fenced = hub.renew_round().await.fenced;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fenced
    });
    assert_eq!(fenced, [session]);
    tending.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_works_for_is_not_renewed_and_another_host_gets_the_session() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let lease = a.own(&stores, session).await;
    a.hub.let_go(&lease);
    tokio::time::timeout(SOON, lease.fenced()).await.expect("whoever still holds it hears that it is over");
    let taken = until("a takeover when the lease has run out", SOON, || async { b.claim(&stores, session).await }).await;
    assert_eq!(taken.held().epoch(), lease.held().epoch() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_session_is_free_long_before_its_lease_would_have_run_out_though_a_renewal_was_under_way() {
    let stores = Stores::start().await;
    let (a, b) = (Host::start(&stores).await, Host::start(&stores).await);
    for _ in 0..100 {
        let session = stores.session();
        a.own(&stores, session).await;
        let (released, _) = tokio::join!(a.hub.release(session), a.hub.renew_round());
        released.unwrap();
        // The renewal may have taken it again for a moment.
        let soon = timings().lease_ttl() / 4;
        until("the released session", soon, || async { b.claim(&stores, session).await }).await;
        b.hub.release(session).await.unwrap();
    }
}
