//! What becomes of sessions that nobody holds and of those whose tenant may not go on, whatever is wrong with others.

use std::time::Duration;

use contract::{HostId, OwnerId, SessionState};
use queue::hosts::{self, HostRecord};
use store::{leases, owned};

use crate::support::{Host, Stores, timings};

#[tokio::test]
async fn a_row_that_cannot_go_keeps_neither_other_sessions_nor_other_jobs_waiting() {
    let stores = Stores::start().await;
    let (stuck, free, down) = (stores.session(), stores.session(), stores.session());
    let (first, second) = (stores.accept(down).await.0, stores.accept(down).await.0);
    stores.postgres.run(&format!(
        "update session set deleting_at = now() - interval '1 hour', state = 'stopped', wanted = 'stopped' where id in ('{0}', '{1}');
         create table newer (session uuid references session); insert into newer values ('{0}');
         update session set state = 'logged_out', state_at = now() - interval '1 hour' where id = '{2}';
         create function refuse() returns trigger language plpgsql as $$ begin raise 'as the test asked'; end $$;
         create trigger refuse before update on job for each row when (old.id = '{3}') execute function refuse()",
        stuck.uuid(),
        free.uuid(),
        down.uuid(),
        first.uuid(),
    ));
    let left = |id: contract::SessionId| stores.postgres.run(&format!("select count(*) from session where id = '{}'", id.uuid()));
    for _ in 0..2 {
        queue::tidy::round(&stores.pool, &stores.redis, &timings()).await.unwrap();
    }
    assert_eq!((stores.job_state(first), stores.job_state(second)), ("queued 0".into(), "failed 0".into()));
    assert_eq!((left(stuck), left(free)), ("1".into(), "0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_suspended_tenant_stop_and_their_queued_jobs_and_profiles_stay() {
    let stores = Stores::start().await;
    let (host, session, nobodys) = (Host::start(&stores).await, stores.session(), stores.session());
    let lease = host.claim(&stores, session).await.unwrap();
    let (job, _) = stores.accept(session).await;
    stores.postgres.run("update session set profile = gen_random_uuid(); update tenant set state = 'suspended'");
    let still = leases::still_held(&stores.pool, &[*lease.held()]).await.unwrap();
    assert!(still.iter().all(|s| s.session == session && !s.wanted) && still.len() == 1);
    assert!(!owned::load(&stores.pool, lease.held()).await.unwrap().unwrap().wanted);
    let told = owned::set_state(&stores.pool, lease.held(), (SessionState::Stopped, None), None, false).await.unwrap();
    assert_eq!(told.map(|events| events.len()), Some(1));
    assert_eq!(stores.job_state(job), "queued 0");
    // One that no host holds is claimed too: somebody has to stop it.
    let other = host.claim(&stores, nobodys).await.unwrap();
    assert!(!owned::load(&stores.pool, other.held()).await.unwrap().unwrap().wanted);
    // It is not started again by the tenant's return alone.
    stores.postgres.run("update tenant set state = 'active'");
    assert!(!owned::load(&stores.pool, lease.held()).await.unwrap().unwrap().wanted);
    assert_eq!(stores.postgres.run("select count(profile) from session"), "2");
}

#[tokio::test]
async fn what_a_live_host_holds_is_asked_for_by_no_other_unless_it_is_called() {
    let stores = Stores::start().await;
    let (session, me, other) = (stores.session(), HostId::new(), HostId::new());
    let claim = stores.claimable(session).await;
    leases::bump(&stores.pool, &claim, OwnerId::new(), other).await.unwrap().unwrap();
    let seen = async |busy: &[HostId], called: &[contract::SessionId]| {
        leases::claimable(&stores.pool, busy, called, i32::MAX).await.unwrap().iter().any(|c| c.session == session)
    };
    assert!(!seen(&[other], &[]).await);
    assert!(seen(&[other], &[session]).await, "its lease was given up by its guard");
    assert!(seen(&[me], &[]).await, "its host is dead");
    assert!(seen(&[], &[]).await, "it is ours by the row, and does not run here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_connected_one_lease_later_where_redis_may_have_forgotten_who_holds_it() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let ttl = timings().lease_ttl();
    let opens_in = async |lease: &queue::Lease| {
        let began = std::time::Instant::now();
        lease.opens().await;
        began.elapsed()
    };
    let lease = host.claim(&stores, session).await.unwrap();
    assert!(opens_in(&lease).await < ttl / 4, "nobody held it");
    host.hub.let_go(&lease);
    let claim = |born: Duration| {
        let born = format!(
            "local t = redis.call('TIME'); redis.call('SET', 'zg:birth', t[1] * 1000 + math.floor(t[2] / 1000) - {})",
            born.as_millis()
        );
        let (stores, host) = (&stores, &host);
        async move {
            stores.server.run(&["DEL", &stores.lease_key(session)]).await;
            stores.server.run(&["EVAL", &born, "0"]).await;
            host.claim(stores, session).await.unwrap()
        }
    };
    let lease = claim(ttl * 10).await;
    assert!(opens_in(&lease).await < ttl / 4, "no fail-over is possible, and nothing was forgotten");
    host.hub.let_go(&lease);
    let lease = claim(ttl * 5 / 4).await;
    assert!(opens_in(&lease).await > ttl / 2, "Redis is not there for long");
}

#[tokio::test]
async fn a_job_that_was_started_and_whose_account_was_unlinked_ends_unknown() {
    let stores = Stores::start().await;
    let (host, session) = (Host::start(&stores).await, stores.session());
    let lease = host.claim(&stores, session).await.unwrap();
    let (job, _) = stores.accept(session).await;
    let chat = store::aliases::named(&stores.pool, stores.tenant, session, &"5511888880000".parse().unwrap()).await.unwrap();
    stores.postgres.run(&format!(
        "insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, status, source, job, sent_at)
         select j.id, j.tenant, j.session, '', '{}', true, '', '3EB0', 'text', 'sending', 'api', j.id, now() from job j;
         update job set message = id",
        chat.uuid()
    ));
    let started = store::lane_jobs::start(&stores.pool, lease.held(), job, 0, Some("true_x_y")).await.unwrap();
    assert_eq!(started, store::lane_jobs::Start::Started { attempt: 1 });
    let round = async || queue::tidy::round(&stores.pool, &stores.redis, &timings()).await.unwrap();
    stores.postgres.run("update session set state = 'logged_out', state_at = now() - interval '1 hour'");
    round().await;
    assert_eq!(stores.job_state(job), "running 1", "its owner may still find out");
    leases::release(&stores.pool, lease.held()).await.unwrap();
    round().await;
    assert_eq!(stores.job_state(job), "unknown 1");
    assert_eq!(stores.postgres.run("select status from message"), "unknown", "and not failed: it may have arrived");
    let told = "select data -> 'job' -> 'error' ->> 'code' from event where type = 'job.updated' order by seq desc limit 1";
    assert_eq!(stores.postgres.run(told), "host_lost");
}

#[tokio::test]
async fn a_started_job_of_a_session_that_stays_down_ends_unknown_and_a_receipt_still_proves_it() {
    let stores = Stores::start().await;
    let downs = ["stopped", "failed", "conflict", "logged_out", "banned"];
    let mut jobs = Vec::new();
    for state in downs {
        let session = stores.session();
        let (job, _) = stores.accept(session).await;
        stores.postgres.run(&format!(
            "update job set state = 'running', attempt = 1, started_at = now() where id = '{}'; update session set state = '{state}' where id = '{}'",
            job.uuid(),
            session.uuid()
        ));
        jobs.push(job);
    }
    let all = || jobs.iter().map(|job| stores.job_state(*job)).collect::<Vec<_>>();
    let round = async || queue::tidy::round(&stores.pool, &stores.redis, &timings()).await.unwrap();
    round().await;
    assert!(all().iter().all(|state| state.starts_with("running")), "it may come back: {:?}", all());
    stores.postgres.run("update session set state_at = now() - interval '1 hour'");
    round().await;
    assert!(all().iter().all(|state| state.starts_with("unknown")), "{:?}", all());
}

#[tokio::test]
async fn sessions_whose_host_died_say_so_when_no_other_has_room_and_not_where_redis_forgot_its_hosts() {
    let stores = Stores::start().await;
    let (left, kept, starting) = (stores.session(), stores.session(), stores.session());
    let (dead, living) = (HostId::new(), HostId::new());
    for (session, host) in [(left, dead), (kept, living)] {
        let claim = stores.claimable(session).await;
        leases::bump(&stores.pool, &claim, OwnerId::new(), host).await.unwrap().unwrap();
    }
    stores.postgres.run(&format!("update session set state = 'starting' where id = '{}'", starting.uuid()));
    stores.postgres.run("update session set reason = null, state_at = now() - interval '1 hour'");
    let beat = async |used| {
        let record = HostRecord { slots: 1, used, draining: false, browser: 100 };
        hosts::heartbeat(&stores.redis, living, &record, timings().host_stale()).await.unwrap();
        queue::tidy::round(&stores.pool, &stores.redis, &timings()).await.unwrap();
    };
    let said = || stores.postgres.run("select string_agg(state || ' ' || coalesce(reason, '-'), ', ' order by id) from session");
    beat(0).await;
    assert_eq!(said(), "working -, working -, starting -", "one has room");
    stores.postgres.run(&format!("update session set profile_major = 101 where id = '{}'", left.uuid()));
    beat(0).await;
    assert_eq!(said(), "reconnecting capacity, working -, starting -", "and a browser that is too old for what a newer one has written");
    stores.server.run(&["DEL", "zg:birth"]).await;
    beat(1).await;
    assert_eq!(said(), "reconnecting capacity, working -, starting -", "who lives is not known");
    stores.server.run(&["SET", "zg:birth", "1"]).await;
    for _ in 0..2 {
        beat(1).await;
    }
    assert_eq!(said(), "reconnecting capacity, working -, starting capacity");
    let told = "select string_agg(session::text, ',' order by session) from event where type = 'session.status' and data->'session'->>'reason' = 'capacity'";
    assert_eq!(stores.postgres.run(told), format!("{},{}", left.uuid(), starting.uuid()), "once each");
    let worked = stores.postgres.run(&format!("select worked_until is not null from session where id = '{}'", left.uuid()));
    assert_eq!(worked, "t", "a gap counts from when it is known to have worked");
}
