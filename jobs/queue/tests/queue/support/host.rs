//! A host without browsers: it owns sessions, and its handler starts jobs and ends them by Postgres alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use contract::{HostId, JobId, Outcome, SessionId, Timings};
use queue::{Done, Hub, Lease, Redis, Round};
use store::{
    ends::QueuedEnd,
    lane_jobs::{LaneJob, Start},
    outcomes::Recorded,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::task::TaskTracker;

use super::Stores;

/// The protocol at a fifth of its durations.
pub fn timings() -> Timings {
    Timings::read(r#"{"leaseTtlMs": 2000, "renewEveryMs": 500, "fenceMarginMs": 500, "killMarginMs": 100}"#).expect("the ratios hold")
}

/// What the handler of a host does before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Acts.
    Run,
    /// Waits.
    Hold,
    /// Hangs, whatever the test says later.
    Hang,
    /// Panics.
    Panic,
}

/// What a host has seen.
pub struct Seen {
    /// Jobs that the page would have been asked to do, in order.
    pub started: Mutex<Vec<(SessionId, JobId)>>,
    /// Jobs handed to the handler, in order, again where they were handed over again.
    pub handed: Mutex<Vec<JobId>>,
    /// Jobs in the handler now, and the most there ever were.
    pub inside: watch::Sender<(usize, usize)>,
}

pub struct Host {
    pub hub: Arc<Hub>,
    pub seen: Arc<Seen>,
    pub play: watch::Sender<Play>,
    pub rounds: watch::Sender<Vec<SessionId>>,
    leases: Arc<Mutex<HashMap<SessionId, Lease>>>,
    _tasks: JoinSet<()>,
}

impl Host {
    pub async fn start(stores: &Arc<Stores>) -> Self {
        Self::with(stores, timings()).await
    }

    pub async fn with(stores: &Arc<Stores>, timings: Timings) -> Self {
        Self::over(stores, stores.redis.clone(), timings).await
    }

    /// One that has its own way to Redis.
    pub async fn over(stores: &Arc<Stores>, redis: Redis, timings: Timings) -> Self {
        let id = HostId::new();
        let (hub, backend) = Hub::start(redis.clone(), stores.pool.clone(), id, timings, TaskTracker::new()).await.expect("starts");
        let seen = Arc::new(Seen { started: Mutex::default(), handed: Mutex::default(), inside: watch::Sender::new((0, 0)) });
        let leases: Arc<Mutex<HashMap<SessionId, Lease>>> = Arc::default();
        let play = watch::Sender::new(Play::Run);
        let rounds = watch::Sender::new(Vec::new());
        let mut tasks = JoinSet::new();
        let handler = {
            let (stores, leases, seen, play) = (stores.clone(), leases.clone(), seen.clone(), play.subscribe());
            move |session: SessionId, job: Arc<LaneJob>| {
                let lease = leases.lock().expect("not poisoned").get(&session).cloned();
                handle(stores.clone(), redis.clone(), lease, job, seen.clone(), play.clone())
            }
        };
        let worker = hub.clone();
        tasks.spawn(async move { worker.worker(backend, format!("host-{id}"), handler).await });
        let (renewing, fenced) = (hub.clone(), rounds.clone());
        tasks.spawn(async move {
            loop {
                let Round { fenced: now, .. } = renewing.renew_round().await;
                fenced.send_modify(|all| all.extend(now));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Self { hub, seen, play, rounds, leases, _tasks: tasks }
    }

    pub async fn claim(&self, stores: &Stores, session: SessionId) -> Option<Lease> {
        let lease = self.hub.claim(&stores.claimable(session).await).await.expect("both stores answer").ours()?;
        self.leases.lock().expect("not poisoned").insert(session, lease.clone());
        Some(lease)
    }

    /// Claims all of them and lets their jobs run.
    pub async fn own_all(&self, stores: &Stores, sessions: &[SessionId]) {
        for claim in store::leases::claimable(&stores.pool, &[], &[], i32::MAX).await.expect("reads") {
            if sessions.contains(&claim.session) {
                let lease = self.hub.claim(&claim).await.expect("both stores answer").ours().expect("it is free");
                self.leases.lock().expect("not poisoned").insert(claim.session, lease);
                self.hub.open(claim.session);
            }
        }
    }

    /// Claims it and lets its jobs run.
    pub async fn own(&self, stores: &Stores, session: SessionId) -> Lease {
        let lease = self.claim(stores, session).await.expect("it is free");
        self.hub.open(session);
        lease
    }

    pub fn started(&self) -> Vec<JobId> {
        self.seen.started.lock().expect("not poisoned").iter().map(|(_, job)| *job).collect()
    }

    pub fn started_of(&self, session: SessionId) -> Vec<JobId> {
        let started = self.seen.started.lock().expect("not poisoned");
        started.iter().filter(|(of, _)| *of == session).map(|(_, job)| *job).collect()
    }

    /// When so many have been started.
    pub async fn has_started(&self, count: usize) {
        harness::until_true(&format!("{count} started jobs"), super::SOON, || async { self.started().len() >= count }).await;
    }

    /// When so many are in the handler.
    pub async fn holds(&self, count: usize) {
        let mut inside = self.seen.inside.subscribe();
        let within = tokio::time::timeout(super::SOON, inside.wait_for(|(now, _)| *now >= count)).await;
        within.expect("jobs reach the handler").expect("the host lives");
    }
}

struct Inside(Arc<Seen>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.send_modify(|(now, _)| *now -= 1);
    }
}

async fn handle(
    stores: Arc<Stores>,
    redis: Redis,
    lease: Option<Lease>,
    job: Arc<LaneJob>,
    seen: Arc<Seen>,
    mut play: watch::Receiver<Play>,
) -> Done {
    // Before anybody can see it inside: what the test says from then on is for later ones.
    let now = *play.borrow();
    seen.handed.lock().expect("not poisoned").push(job.id);
    seen.inside.send_modify(|(now, most)| {
        *now += 1;
        *most = (*most).max(*now);
    });
    let _inside = Inside(seen.clone());
    match now {
        Play::Panic => panic!("as the test asked"),
        Play::Hang => std::future::pending().await,
        Play::Run | Play::Hold => {}
    }
    let held = *lease.expect("the host owns it").held();
    let state = store::lane_jobs::start(&stores.pool, &held, job.id, job.attempt, None).await.expect("answers");
    if matches!(state, Start::Started { .. }) {
        seen.started.lock().expect("not poisoned").push((job.session, job.id));
    }
    let _ = play.wait_for(|p| *p != Play::Hold).await;
    match state {
        Start::Started { .. } => {}
        Start::Ended => return Done::Ack,
        Start::Fenced | Start::Gone => return Done::Again,
        Start::Expired => {
            store::ends::end_queued(&stores.pool, &job, QueuedEnd::Expired).await.expect("answers");
            return Done::Ack;
        }
        Start::OtherAccount => {
            store::ends::end_queued(&stores.pool, &job, QueuedEnd::AccountChanged).await.expect("answers");
            return Done::Ack;
        }
        Start::Overtaken => {
            let _ = queue::lanes::rebuild(&stores.pool, &redis, job.tenant, job.session).await;
            return Done::Again;
        }
    }
    let outcome = Outcome::Succeeded { evidence: None, result: None };
    match store::outcomes::record(&stores.pool, &held, &job, &outcome).await.expect("answers") {
        Recorded::Written(events) => {
            let _ = queue::events::publish(&stores.pool, &redis, job.tenant, &events).await;
            Done::Ack
        }
        Recorded::Already => Done::Ack,
        Recorded::Fenced | Recorded::Gone => Done::Again,
    }
}
