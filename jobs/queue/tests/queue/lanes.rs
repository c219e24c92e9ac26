//! What lanes promise: order, nothing lost, nothing twice, and no cost while nothing happens.

use std::{collections::BTreeMap, time::Duration};

use crate::support::{Host, Play, SOON, Stores};
use contract::{JobId, Lane};
use futures::future::join_all;
use harness::until_true;
use queue::lanes;
use store::accept::Waiting;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_session_start_in_the_order_of_their_positions_however_many_are_accepted_at_once() {
    let stores = Stores::start().await;
    let host = Host::start(&stores).await;
    let sessions = [stores.session(), stores.session(), stores.session()];
    for session in sessions {
        host.own(&stores, session).await;
    }
    for _ in 0..10 {
        join_all((0..20).map(|n| stores.send(sessions[n % 3]))).await;
    }
    host.has_started(200).await;
    for session in sessions {
        let unfinished = stores.postgres.run(&format!("select id from job where session = '{}' order by position", session.uuid()));
        let by_position: Vec<JobId> = unfinished.lines().map(|id| JobId::from_uuid(id.parse().unwrap())).collect();
        assert_eq!(host.started_of(session), by_position);
    }
    until_true("the lanes are empty", SOON, || async { join_all(sessions.map(|s| stores.lane(s))).await.iter().all(Vec::is_empty) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_push_comes_late_still_runs_before_those_accepted_after_it() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    let (first, position) = stores.accept(session).await;
    let second = stores.send(session).await;
    host.has_started(2).await;
    assert_eq!(host.started(), [first, second]);
    // And the push itself, when it comes: it is cleared, nothing starts twice.
    let late = Waiting { job: first, session, lane: Lane::Write, position };
    lanes::push(&stores.redis, stores.tenant, &[late, late]).await.unwrap();
    until_true("the late push is cleared", SOON, || async { stores.lane(session).await.is_empty() }).await;
    assert_eq!(host.started(), [first, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_nobody_heard_runs_as_soon_as_the_host_listens_again() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    stores.send(session).await;
    host.has_started(1).await;
    for n in 2..20 {
        stores.server.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        stores.send(session).await;
        host.has_started(n).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lanes_of_a_thousand_idle_sessions_cost_no_command_but_the_renewal_of_their_leases() {
    let stores = Stores::start().await;
    let host = Host::start(&stores).await;
    let sessions = stores.sessions(1000);
    host.own_all(&stores, &sessions).await;
    // Every lane has been looked at when a job behind each has run.
    for some in sessions.chunks(50) {
        join_all(some.iter().map(|session| stores.send(*session))).await;
    }
    host.has_started(sessions.len()).await;
    until_true("all are removed", SOON, || async { tokio::time::timeout(Duration::from_millis(1), host.hub.idle()).await.is_ok() }).await;
    let before = quiet_calls(&stores).await;
    let renewed = || async { stores.server.calls().await.get("pexpire").copied().unwrap_or(0) };
    let start = renewed().await;
    until_true("four renewals of every lease", SOON, || async { renewed().await >= start + 4 * sessions.len() as u64 }).await;
    let after = quiet_calls(&stores).await;
    // Now and then a host asks whether its one listening connection lives: however many sessions it has.
    let pings = |calls: &BTreeMap<String, u64>| calls.get("ping").copied().unwrap_or(0);
    assert!(pings(&after) - pings(&before) <= 10, "{after:?}");
    let grown: BTreeMap<_, _> = after.into_iter().filter(|(name, n)| name != "ping" && before.get(name) != Some(n)).collect();
    let expected = ["eval", "get", "pexpire"];
    assert!(grown.keys().all(|name| expected.contains(&name.as_str())), "{grown:?}");
}

/// Without what the test itself asks.
async fn quiet_calls(stores: &Stores) -> BTreeMap<String, u64> {
    let own = ["info", "client|setinfo", "client|setname", "hello"];
    stores.server.calls().await.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_handler_ends_the_attempt_and_neither_the_lane_nor_the_worker() {
    let stores = Stores::start().await;
    let (host, session, other) = (Host::start(&stores).await, stores.session(), stores.session());
    host.own(&stores, session).await;
    host.own(&stores, other).await;
    host.play.send_replace(Play::Panic);
    let first = stores.send(session).await;
    let handed = || host.seen.handed.lock().unwrap().iter().filter(|job| **job == first).count();
    until_true("it is tried again", SOON, || async { handed() >= 2 }).await;
    host.play.send_replace(Play::Run);
    let second = stores.send(session).await;
    stores.send(other).await;
    host.has_started(3).await;
    assert_eq!(host.started_of(session), [first, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_queries_run_at_once_beside_one_write_and_one_control_job() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.play.send_replace(Play::Hold);
    for _ in 0..3 {
        stores.stranger(session, Lane::Control);
        stores.send(session).await;
    }
    for _ in 0..9 {
        stores.stranger(session, Lane::Query);
    }
    host.claim(&stores, session).await.unwrap();
    // The lanes are closed: only control runs. A command that does not decode reaches the handler all the same.
    host.holds(1).await;
    host.hub.open(session);
    host.holds(6).await;
    host.play.send_replace(Play::Run);
    host.has_started(15).await;
    let (_, most) = *host.seen.inside.borrow();
    assert_eq!(most, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_lane_starts_nothing_and_opening_it_takes_without_a_wake() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.claim(&stores, session).await.unwrap();
    let job = stores.send(session).await;
    let control = stores.stranger(session, Lane::Control);
    lanes::rebuild(&stores.pool, &stores.redis, stores.tenant, session).await.unwrap();
    host.has_started(1).await;
    assert_eq!(host.started(), [control]);
    host.hub.open(session);
    host.has_started(2).await;
    assert_eq!(host.started(), [control, job]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_no_row_stands_behind_is_removed_and_holds_nothing_up() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lane = stores.lane_key(session, Lane::Write);
    stores.server.run(&["ZADD", &lane, "0", &JobId::new().to_string(), "0.5", "no id at all"]).await;
    let job = stores.send(session).await;
    host.own(&stores, session).await;
    host.has_started(1).await;
    assert_eq!(host.started(), [job]);
    until_true("the lane is empty", SOON, || async { stores.lane(session).await.is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_pushed_is_found_by_the_reconciler() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    stores.server.down().await;
    let first = stores.send(session).await;
    stores.server.up().await;
    let second = stores.send(session).await;
    let late = stores.job(session);
    store::accept::accept(&stores.pool, &store::accept::NewJob { expires_in: Duration::ZERO, ..late.clone() }, None).await.unwrap();
    let mut seen = queue::reconcile::Seen::default();
    queue::reconcile::round(&stores.pool, &stores.redis, &mut seen).await.unwrap();
    host.has_started(2).await;
    assert_eq!(host.started(), [first, second]);
    assert!(stores.job_state(late.id).starts_with("expired"), "{}", stores.job_state(late.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_cannot_be_rebuilt_keeps_no_other_from_it() {
    let stores = Stores::start().await;
    let sessions: Vec<_> = (0..6).map(|_| stores.session()).collect();
    for session in &sessions {
        store::accept::accept(&stores.pool, &stores.job(*session), None).await.unwrap();
    }
    let (broken, whole) = (sessions[3], sessions.iter().filter(|s| **s != sessions[3]));
    stores.server.run(&["SET", &stores.lane_key(broken, Lane::Write), "not a lane"]).await;
    queue::reconcile::round(&stores.pool, &stores.redis, &mut queue::reconcile::Seen::default()).await.unwrap();
    for session in whole {
        assert_eq!(stores.lane(*session).await.len(), 1);
    }
}
