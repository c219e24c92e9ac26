//! The named fault points that need no browser: what may come between two steps is held there, and nothing is lost or done twice.

use std::time::{Duration, Instant};

use crate::support::{Host, Play, SOON, Stores, spawn, timings};
use contract::{HostId, JobId, Lane, Outcome, OwnerId, SessionState, Timings};
use futures::future::join_all;
use harness::{Proxy, faults::Word, until, until_true};
use queue::{accept_and_push, lanes};
use store::{
    accept::{Accepted, IdempotencyKey, NewJob, accept},
    lane_jobs::Start,
    outcomes::Recorded,
};
use tokio::task::JoinSet;

fn key(stores: &Stores, body: u8) -> IdempotencyKey {
    let text = |text: &str| text.to_owned();
    IdempotencyKey { principal: stores.tenant.uuid(), method: text("POST"), path: text("/api/x"), key: text("k"), body_hash: [body; 32] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_held_back_after_the_commit_starts_first_and_when_it_comes_changes_nothing() {
    let stores = Stores::start().await;
    let points = stores.points();
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    let mut armed = points.arm_once("api.accept.committed");
    let first = stores.job(session);
    let id = first.id;
    let pushing = {
        let stores = stores.clone();
        spawn(async move { accept_and_push(&stores.pool, &stores.redis, &first, None).await.unwrap() })
    };
    let held = armed.arrived().await;
    assert_eq!(held.ids["job"], id.to_string());
    let second = stores.send(session).await;
    host.has_started(2).await;
    held.reply(Word::Go).await;
    pushing.await.unwrap();
    until_true("the late push is cleared", SOON, || async { stores.lane(session).await.is_empty() }).await;
    assert_eq!(host.started(), [id, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_that_is_dropped_after_the_commit_is_found_by_the_reconciler() {
    let stores = Stores::start().await;
    let points = stores.points();
    let (host, session) = (Host::start(&stores).await, stores.session());
    // A new owner rebuilds its lanes: that has read what there is before the job comes.
    let mut rebuilding = points.arm_once("lane.rebuild_vs_push");
    host.own(&stores, session).await;
    rebuilding.arrived().await.reply(Word::Go).await;
    let mut armed = points.arm_once("api.accept.committed");
    let job = stores.job(session);
    let mut tasks = JoinSet::new();
    let (task_stores, task_job) = (stores.clone(), job.clone());
    tasks.spawn(async move { accept_and_push(&task_stores.pool, &task_stores.redis, &task_job, None).await });
    let _held = armed.arrived().await;
    tasks.shutdown().await;
    assert!(stores.lane(session).await.is_empty());
    queue::reconcile::round(&stores.pool, &stores.redis, &mut queue::reconcile::Seen::default()).await.unwrap();
    host.has_started(1).await;
    assert_eq!(host.started(), [job.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_an_acceptance_is_made_up_for_by_a_look_that_pushes_what_it_finds() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    let proxy = Proxy::before(&stores.postgres.url()).unwrap();
    let pool = store::connect(&proxy.url(&stores.postgres.url()), 2).await.unwrap();
    let look =
        async |job: &NewJob, key: Option<&IdempotencyKey>| queue::accepted_after_all(&stores.pool, &stores.redis, job, key).await.unwrap();

    let (job, once) = (stores.job(session), key(&stores, 1));
    assert_eq!(look(&job, Some(&once)).await, None, "nothing has been accepted yet");
    let cut = proxy.hold_answer(job.id.uuid().as_bytes());
    let (lost, ()) = tokio::join!(accept_and_push(&pool, &stores.redis, &job, Some(&once)), cut.cut());
    assert!(lost.unwrap_err().outcome_unclear());
    assert!(stores.lane(session).await.is_empty(), "it could not be pushed");
    assert_eq!(look(&job, Some(&once)).await, Some(Accepted::New { position: 1 }));
    host.has_started(1).await;

    // A repeated request whose answer is lost as well: its own id was never committed.
    let again = stores.job(session);
    let cut = proxy.hold_answer(again.id.uuid().as_bytes());
    let (lost, ()) = tokio::join!(accept_and_push(&pool, &stores.redis, &again, Some(&once)), cut.cut());
    assert!(lost.unwrap_err().outcome_unclear());
    assert_eq!(look(&again, Some(&once)).await, Some(Accepted::Replayed { job: job.id }));
    assert_eq!(look(&again, Some(&key(&stores, 2))).await, Some(Accepted::KeyReused));
    assert_eq!(host.started(), [job.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stands_still_after_its_statement_keeps_nobody_waiting() {
    let stores = Stores::start().await;
    let (session, other) = (stores.session(), stores.session());
    let proxy = Proxy::before(&stores.postgres.url()).unwrap();
    let paused = store::connect(&proxy.url(&stores.postgres.url()), 1).await.unwrap();
    accept(&paused, &stores.job(session), None).await.unwrap();
    let job = stores.job(session);
    let mut held = proxy.hold_answer(job.id.uuid().as_bytes());
    let waiting = spawn(async move { accept(&paused, &job, None).await.unwrap() });
    held.arrived().await;
    // In the same session, in another, and in another tenant's.
    for next in [stores.job(session), stores.job(other), stores.job_of_another()] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            accept(&stores.pool, &NewJob { id: JobId::new(), ..next.clone() }, None).await.unwrap();
            took.push(began.elapsed());
        }
        // The fastest: a lock would have stopped all five, a busy machine does not.
        assert!(took.iter().min().is_some_and(|took| *took < Duration::from_millis(100)), "{took:?}");
    }
    held.deliver().await;
    assert_eq!(waiting.await.unwrap(), Accepted::New { position: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_its_session_keeps_no_other_session_and_no_other_tenant_waiting() {
    let stores = Stores::start().await;
    let (session, other) = (stores.session(), stores.session());
    let lock = stores.postgres.hold(&format!("select 1 from lane_position where session = '{}' for update", session.uuid()));
    let (pool, job) = (stores.pool.clone(), stores.job(session));
    let waiting = spawn(async move { accept(&pool, &job, None).await.unwrap() });
    stores.until_blocked(1).await;
    for next in [stores.job(other), stores.job_of_another()] {
        accept(&stores.pool, &next, None).await.unwrap();
    }
    assert!(!waiting.is_finished());
    lock.commit();
    assert_eq!(waiting.await.unwrap(), Accepted::New { position: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_one_key_at_the_same_moment_make_one_job_and_all_get_it() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    host.own(&stores, session).await;
    let once = key(&stores, 1);
    // All are inside their statement before the first can commit.
    let lock = stores.postgres.hold(&format!("select 1 from lane_position where session = '{}' for update", session.uuid()));
    let all = join_all((0..20).map(|_| {
        let (stores, once, job) = (stores.clone(), once.clone(), stores.job(session));
        spawn(async move { (job.id, accept_and_push(&stores.pool, &stores.redis, &job, Some(&once)).await.unwrap()) })
    }));
    let release = async {
        stores.until_blocked(20).await;
        lock.commit();
    };
    let (all, ()) = tokio::join!(all, release);
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    let made: Vec<_> = all.iter().filter(|(_, accepted)| matches!(accepted, Accepted::New { .. })).collect();
    assert_eq!(made.len(), 1);
    let first = made[0].0;
    assert_eq!(all.iter().filter(|(_, accepted)| *accepted == Accepted::Replayed { job: first }).count(), 19);
    host.has_started(1).await;

    let other_body = accept(&stores.pool, &stores.job(session), Some(&key(&stores, 2))).await.unwrap();
    assert_eq!(other_body, Accepted::KeyReused);
    // Another principal's key is another key: it tells nothing of this one.
    let another = IdempotencyKey { principal: JobId::new().uuid(), ..once };
    assert_eq!(accept(&stores.pool, &stores.job(session), Some(&another)).await.unwrap(), Accepted::New { position: 2 });
    assert_eq!(stores.postgres.run("select count(*) from job"), "2");
    assert_eq!(host.started(), [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_between_the_read_and_the_write_of_a_rebuild_survives() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let (first, _) = stores.accept(session).await;
    let mut armed = stores.points().arm_once("lane.rebuild_vs_push");
    let rebuild = {
        let stores = stores.clone();
        spawn(async move { lanes::rebuild(&stores.pool, &stores.redis, stores.tenant, session).await.unwrap() })
    };
    let held = armed.arrived().await;
    let second = stores.send(session).await;
    held.reply(Word::Go).await;
    assert_eq!(rebuild.await.unwrap(), 1, "it had read one");
    assert_eq!(stores.lane(session).await, [first.to_string(), second.to_string()]);
    host.own(&stores, session).await;
    host.has_started(2).await;
    assert_eq!(host.started(), [first, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_dropped_at_its_deadline_and_the_lane_goes_on() {
    let stores = Stores::start().await;
    let within = 3000;
    let timings = Timings { attempt_within_ms: within, ..timings() };
    let (host, session, other) = (Host::with(&stores, timings).await, stores.session(), stores.session());
    host.own(&stores, session).await;
    host.own(&stores, other).await;
    host.play.send_replace(Play::Hang);
    let first = stores.send(session).await;
    host.holds(1).await;
    let hung = Instant::now();
    host.play.send_replace(Play::Run);
    let second = stores.send(session).await;
    let beside = stores.send(other).await;
    host.has_started(1).await;
    assert_eq!(host.started(), [beside], "another session is not held up");
    host.has_started(3).await;
    assert!(hung.elapsed() < Duration::from_millis(within + 1000), "{:?}", hung.elapsed());
    assert_eq!(host.started_of(session), [first, second]);
}

/// Owner statements of a session, each with what it answers where they are no longer the owner's.
async fn stale_statements(stores: &Stores, lease: &queue::Lease, running: &store::lane_jobs::LaneJob, queued: JobId) -> [bool; 4] {
    let (pool, held) = (&stores.pool, lease.held());
    let outcome = Outcome::Succeeded { evidence: None, result: None };
    let (recorded, started, state, gap) = tokio::join!(
        store::outcomes::record(pool, held, running, &outcome),
        store::lane_jobs::start(pool, held, queued, 0, None),
        store::owned::set_state(pool, held, (SessionState::Reconnecting, None), None, false),
        store::owned::announce_gap(pool, held),
    );
    [
        matches!(recorded.expect("answers"), Recorded::Fenced),
        matches!(started.expect("answers"), Start::Fenced),
        state.expect("answers").is_none(),
        gap.expect("answers").is_none(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_the_owners_statement_that_waits_for_the_counter() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.claim(&stores, session).await.unwrap();
    let job = running_job(&stores, &lease).await;
    let claimable = stores.claimable(session).await;
    let counter = stores.postgres.hold("select 1 from tenant_counter for update");
    let record = {
        let (stores, lease) = (stores.clone(), lease.clone());
        spawn(async move {
            let outcome = Outcome::Succeeded { evidence: None, result: None };
            store::outcomes::record(&stores.pool, lease.held(), &job, &outcome).await.unwrap()
        })
    };
    stores.until_blocked(1).await;
    let pool = stores.pool.clone();
    let bump = spawn(async move { store::leases::bump(&pool, &claimable, OwnerId::new(), HostId::new()).await.unwrap() });
    stores.until_blocked(2).await;
    counter.commit();
    assert!(matches!(record.await.unwrap(), Recorded::Written(events) if events.len() == 1));
    let taken = bump.await.unwrap().expect("the takeover comes after it");
    assert_eq!(taken.epoch(), lease.held().epoch() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_owners_statements_write_nothing_whether_they_come_during_or_after_the_takeover() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.claim(&stores, session).await.unwrap();
    let running = running_job(&stores, &lease).await;
    // Of a lane without an order: nothing but the takeover is in its way.
    let queued = stores.stranger(session, Lane::Query);
    let everything =
        "select (select count(*) from event), (select string_agg(state || attempt, ',' order by position) from job), state from session";
    let before = stores.postgres.run(everything);

    // The counter is held too: a statement that did not wait for the row first would be past the check when the takeover commits.
    let counter = stores.postgres.hold("select 1 from tenant_counter for update");
    let takeover =
        stores.postgres.hold(&format!("update session set epoch = epoch + 1, owner = gen_random_uuid() where id = '{}'", session.uuid()));
    let release = async {
        stores.until_blocked(4).await;
        takeover.commit();
        counter.commit();
    };
    let (stale, ()) = tokio::join!(stale_statements(&stores, &lease, &running, queued), release);
    assert_eq!(stale, [true; 4], "during the takeover");
    assert_eq!(stale_statements(&stores, &lease, &running, queued).await, [true; 4], "after it");
    assert_eq!(stores.postgres.run(everything), before);
}

/// A job that the lease's owner has started.
async fn running_job(stores: &Stores, lease: &queue::Lease) -> store::lane_jobs::LaneJob {
    let session = lease.held().session();
    let (id, _) = stores.accept(session).await;
    let job = store::lane_jobs::load(&stores.pool, stores.tenant, session, id).await.expect("answers").expect("it was accepted");
    assert_eq!(
        store::lane_jobs::start(&stores.pool, lease.held(), id, job.attempt, None).await.expect("answers"),
        Start::Started { attempt: 1 }
    );
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_held_up_at_any_step_until_it_has_run_out_changes_nothing_for_the_next_owner() {
    let stores = Stores::start().await;
    let points = stores.points();
    let (slow, fast) = (Host::start(&stores).await, Host::start(&stores).await);
    for (n, point) in ["lease.after_claim", "lease.before_bump", "lease.before_cas"].into_iter().enumerate() {
        let session = stores.session();
        let mut armed = points.arm_once(point);
        let claim = stores.claimable(session).await;
        let claiming = spawn({
            let hub = slow.hub.clone();
            async move { hub.claim(&claim).await.unwrap().ours() }
        });
        let held = armed.arrived().await;
        let lease = until("the claim to run out", SOON, || async { fast.claim(&stores, session).await }).await;
        fast.hub.open(session);
        held.reply(Word::Go).await;
        assert!(claiming.await.unwrap().is_none(), "{point}");
        let job = stores.send(session).await;
        fast.has_started(n + 1).await;
        assert_eq!(fast.started_of(session), [job], "{point}");
        let holder: Option<String> = stores.server.ask(&["GET", lease.key()]).await;
        assert_eq!(holder.as_deref(), Some(lease.value()), "{point}");
        let epoch = format!("select epoch from session where id = '{}'", session.uuid());
        assert_eq!(stores.postgres.run(&epoch), lease.held().epoch().to_string(), "{point}");
    }
}
