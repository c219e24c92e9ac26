//! Redis goes on elsewhere: a replica takes over behind the same address, and who is connected to the old primary does not notice.

use std::{sync::Arc, time::Duration};

use crate::support::{Host, RedisServer, SOON, Stores, timings};
use contract::SessionId;
use harness::{Proxy, until, until_true};
use queue::{Redis, lease::boottime_ms};
use tokio::time::Instant;

/// A Redis with a replica, behind an address that leads to it.
struct Pair {
    stores: Arc<Stores>,
    replica: RedisServer,
    address: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let stores = Stores::start().await;
        // Hosts have claimed here before.
        queue::hosts::birth(&stores.redis).await.expect("Redis answers");
        let replica = stores.another_redis().await;
        replica.follow(&stores.server).await;
        let address = Proxy::before(stores.server.url()).expect("a port");
        Self { stores, replica, address }
    }

    /// As a process that connects now.
    async fn connect(&self) -> Redis {
        Redis::connect(&self.address.url(self.stores.server.url())).await.expect("the URL is good")
    }

    async fn host(&self) -> Host {
        Host::over(&self.stores, self.connect().await, timings()).await
    }

    /// The replica takes over: whoever connects from now on is led there.
    async fn fail_over(&self) {
        self.replica.lead().await;
        self.address.lead_to(self.replica.url());
    }

    async fn succeeded_once(&self, jobs: &[contract::JobId]) {
        for job in jobs {
            until_true("its only end", SOON, || async { self.stores.job_state(*job) == "succeeded 1" }).await;
        }
    }
}

async fn claimed(host: &Host, stores: &Stores, session: SessionId) -> queue::Lease {
    until("a claim", SOON, || async { host.claim(stores, session).await }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_primaries_behind_one_address_the_new_ones_host_connects_after_the_old_ones_is_fenced_and_no_job_runs_twice() {
    let pair = Pair::start().await;
    let (stores, session, times) = (&pair.stores, pair.stores.session(), timings());
    let a = pair.host().await;
    let old = a.own(stores, session).await;
    let mut jobs = vec![stores.send(session).await];
    a.has_started(1).await;
    // It makes the connection by which it renews when it first does.
    let ends = old.deadline();
    until_true("a renewal", SOON, || async { old.deadline() > ends }).await;
    pair.fail_over().await;

    // The owner's connections are open: it renews with the old primary, and goes on working.
    let began = Instant::now();
    let b = pair.host().await;
    jobs.push(stores.send(session).await);
    a.has_started(2).await;
    let new = claimed(&b, stores, session).await;
    let taken = Instant::now();
    assert!(taken - began >= times.lease_ttl(), "nobody concludes from what the new primary does not know: {:?}", taken - began);
    let opened = async {
        new.opens().await;
        Instant::now()
    };
    let fenced = async {
        old.fenced().await;
        Instant::now()
    };
    let (opened, fenced) = tokio::join!(opened, fenced);
    // 7 s where a lease lives for 10.
    assert!(fenced - taken < times.lease_ttl() * 7 / 10, "{:?}", fenced - taken);
    // Its browser has then ended, or was killed when the lease that it last saw was about to end.
    assert!(fenced + times.fence_margin() <= opened, "{:?} before the next one connects", opened.saturating_duration_since(fenced));
    assert!(new.deadline() > boottime_ms(), "which has kept its lease meanwhile");

    // Accepted by whoever still talks to the old primary, and by whoever talks to the new one.
    let unheard = stores.send(session).await;
    let other = pair.connect().await;
    let job = stores.job(session);
    queue::accept_and_push(&stores.pool, &other, &job, None).await.unwrap();
    jobs.extend([unheard, job.id]);
    b.hub.open(session);
    pair.succeeded_once(&jobs).await;
    assert_eq!([a.started(), b.started()].concat(), jobs, "each once, in order");
    assert_eq!(a.rounds.borrow().as_slice(), [session]);
    assert!(b.rounds.borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_primary_became_a_replica_goes_to_the_new_one_and_keeps_its_sessions() {
    let pair = Pair::start().await;
    let (stores, session) = (&pair.stores, pair.stores.session());
    let host = pair.host().await;
    let lease = host.own(stores, session).await;
    let mut jobs = vec![stores.send(session).await];
    host.has_started(1).await;
    pair.succeeded_once(&jobs).await;
    pair.fail_over().await;
    stores.server.follow(&pair.replica).await;

    // Its connections are open, and nothing can be written by them any more.
    let held = async || pair.replica.ask::<i64>(&["PTTL", lease.key()]).await;
    let ends = lease.deadline();
    until_true("the lease to be renewed for longer than it lasts", SOON, || async { lease.deadline() > ends + 2_500 }).await;
    assert!(held().await > 0, "by the new primary");
    let (other, job) = (pair.connect().await, stores.job(session));
    queue::accept_and_push(&stores.pool, &other, &job, None).await.unwrap();
    jobs.push(job.id);
    host.has_started(2).await;
    pair.succeeded_once(&jobs).await;
    until_true("its entry to be cleared", Duration::from_secs(2), || async {
        let left: Vec<String> = pair.replica.ask(&["ZRANGE", &stores.lane_key(session, contract::Lane::Write), "0", "-1"]).await;
        left.is_empty()
    })
    .await;
    assert_eq!(host.started(), jobs);
    assert!(host.rounds.borrow().is_empty(), "nobody was fenced");
}
