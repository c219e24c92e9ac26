//! A Redis without room, and one that went back in time.

use std::time::Duration;

use crate::support::{Host, Play, SOON, Stores};
use harness::until_true;
use queue::Claimed;

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_room_keeps_its_leases_drains_its_lanes_and_what_is_accepted_meanwhile_runs_later() {
    let stores = Stores::start().await;
    let (host, session, other) = (Host::start(&stores).await, stores.session(), stores.session());
    let lease = host.own(&stores, session).await;
    host.play.send_replace(Play::Hold);
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(stores.send(session).await);
    }
    host.holds(1).await;
    stores.server.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    // Accepted, although no lane can take it.
    let refused = stores.job(session);
    let pushed = queue::accept_and_push(&stores.pool, &stores.redis, &refused, None).await;
    assert!(pushed.is_ok(), "{pushed:?}");
    host.play.send_replace(Play::Run);
    host.has_started(jobs.len()).await;
    let deadline = lease.deadline();
    until_true("the lease to be renewed for longer than it lasts", SOON, || async { lease.deadline() > deadline + 2_500 }).await;
    assert!(stores.lane(session).await.is_empty(), "what ended is cleared");
    // Nothing new is claimed: the lease could not be written.
    let claim = stores.claimable(other).await;
    assert!(!matches!(host.hub.claim(&claim).await, Ok(Claimed::Ours(_))));
    stores.server.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue::lanes::rebuild(&stores.pool, &stores.redis, stores.tenant, session).await.unwrap();
    jobs.push(refused.id);
    host.has_started(jobs.len()).await;
    assert_eq!(host.started(), jobs);
    assert!(host.rounds.borrow().is_empty(), "nobody was fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_went_back_in_time_starts_nothing_again_keeps_the_order_and_gets_the_events_it_lost() {
    let stores = Stores::start().await;
    let (a, b, session) = (Host::start(&stores).await, Host::start(&stores).await, stores.session());
    let first = a.own(&stores, session).await;
    a.play.send_replace(Play::Hold);
    let mut jobs = vec![stores.send(session).await, stores.send(session).await];
    a.holds(1).await;
    let holder = async || stores.server.ask::<Option<String>>(&["GET", first.key()]).await;
    assert_eq!(holder().await.as_deref(), Some(first.value()));
    let before = stores.server.keep().await;
    // What the dump does not know: all jobs of it ended, another owner, more jobs, and their events.
    a.play.send_replace(Play::Run);
    a.has_started(2).await;
    until_true("both to end", SOON, || async { stores.job_state(jobs[1]) == "succeeded 1" }).await;
    a.hub.release(session).await.unwrap();
    let second = b.own(&stores, session).await;
    jobs.push(stores.send(session).await);
    b.has_started(1).await;
    until_true("the third to end", SOON, || async { stores.job_state(jobs[2]) == "succeeded 1" }).await;
    stores.server.go_back(&before).await;
    assert_eq!(holder().await.as_deref(), Some(first.value()));
    // The lease is the former owner's again: who acts by it finds the rows under another's name, and the owner is fenced.
    tokio::time::timeout(SOON, second.fenced()).await.expect("the owner sees that its lease is not in its name");
    jobs.push(stores.send(session).await);
    jobs.push(stores.send(session).await);
    let c = Host::start(&stores).await;
    until_true("the dump's lease to run out and a claim", SOON, || async { c.claim(&stores, session).await.is_some() }).await;
    c.hub.open(session);
    c.has_started(2).await;
    for job in &jobs {
        until_true("its only end", SOON, || async { stores.job_state(*job) == "succeeded 1" }).await;
    }
    let started: Vec<_> = [a.started(), b.started(), c.started()].concat();
    assert_eq!(started, jobs, "each once, in order");
    until_true("the events that the dump lacks", SOON, || async {
        let written: Vec<(String, Vec<String>)> = stores.server.ask(&["XRANGE", &queue::keys::events(stores.tenant), "-", "+"]).await;
        let ids: Vec<String> = written.into_iter().map(|(id, _)| id).collect();
        ids == (1..=jobs.len()).map(|seq| format!("{seq}-0")).collect::<Vec<_>>()
    })
    .await;
    tokio::time::timeout(Duration::from_secs(1), a.hub.idle()).await.expect("the former owner has nothing to do");
}
