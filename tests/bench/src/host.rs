//! A host without browsers: its handler starts jobs and ends them, nothing more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contract::{HostId, JobId, Outcome, SessionId, Timings};
use harness::Error;
use queue::{CLAIMS_AT_ONCE, Claimed, Done, Hub, Lease, Redis};
use sqlx::PgPool;
use store::{
    lane_jobs::{LaneJob, Start},
    leases::Claimable,
    outcomes::Recorded,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::task::TaskTracker;

/// What a host says of its sessions and jobs.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The session has become its own.
    Owned(SessionId, Instant),
    /// A job has been started: the page would be asked to act now.
    Started(JobId, Instant),
    /// Its outcome is recorded.
    Ended,
}

/// A host that owns sessions.
pub struct Host {
    /// Its hub.
    pub hub: Arc<Hub>,
    /// Its name.
    pub id: HostId,
    /// Its way to Postgres.
    pub pool: PgPool,
    /// Its way to Redis.
    pub redis: Redis,
    leases: Arc<Mutex<HashMap<SessionId, Lease>>>,
    steps: mpsc::UnboundedSender<Step>,
    _tasks: JoinSet<()>,
}

impl Host {
    /// Starts it, and tells each step.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(pool: &PgPool, redis: &Redis) -> Result<(Self, mpsc::UnboundedReceiver<Step>), Error> {
        let id = HostId::new();
        let (hub, backend) = Hub::start(redis.clone(), pool.clone(), id, Timings::default(), TaskTracker::new()).await?;
        let leases: Arc<Mutex<HashMap<SessionId, Lease>>> = Arc::default();
        let (steps, told) = mpsc::unbounded_channel();
        let handler = {
            let (pool, redis, leases, steps) = (pool.clone(), redis.clone(), leases.clone(), steps.clone());
            move |session: SessionId, job: Arc<LaneJob>| {
                let lease = leases.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned();
                handle(pool.clone(), redis.clone(), lease, job, steps.clone())
            }
        };
        let mut tasks = JoinSet::new();
        let (worker, renewing) = (hub.clone(), hub.clone());
        tasks.spawn(async move { worker.worker(backend, "bench".into(), handler).await });
        tasks.spawn(async move {
            loop {
                renewing.renew_round().await;
                tokio::time::sleep(Timings::default().renew_every()).await;
            }
        });
        Ok((Self { hub, id, pool: pool.clone(), redis: redis.clone(), leases, steps, _tasks: tasks }, told))
    }

    /// Owns all that can be owned.
    ///
    /// # Errors
    /// Where a claim fails.
    pub async fn own_all(&self) -> Result<(), Error> {
        let all = store::leases::claimable(&self.pool, &[], &[], i32::MAX).await?;
        match self.claim(&all).await? {
            None => Ok(()),
            Some(_) => Err("a session is somebody else's".into()),
        }
    }

    /// Owns all of them that nobody else does, and answers when the first lease that is another's ends.
    ///
    /// # Errors
    /// The stores'.
    pub async fn claim(&self, free: &[Claimable]) -> Result<Option<Duration>, Error> {
        let mut soonest = None::<Duration>;
        for some in free.chunks(CLAIMS_AT_ONCE) {
            for claimed in self.hub.claim_each(some).await? {
                match claimed? {
                    Claimed::Ours(lease) => self.take_on(lease),
                    Claimed::Held(left) => soonest = Some(soonest.map_or(left, |soonest| soonest.min(left))),
                    Claimed::Lost => {}
                }
            }
        }
        Ok(soonest)
    }

    fn take_on(&self, lease: Lease) {
        let session = lease.held().session();
        let _ = self.steps.send(Step::Owned(session, Instant::now()));
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(session, lease);
        self.hub.open(session);
    }

    /// The leases of what it owns.
    pub fn leases(&self) -> Vec<Lease> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

async fn handle(pool: PgPool, redis: Redis, lease: Option<Lease>, job: Arc<LaneJob>, steps: mpsc::UnboundedSender<Step>) -> Done {
    let Some(lease) = lease else { return Done::Again };
    let held = *lease.held();
    match store::lane_jobs::start(&pool, &held, job.id, job.attempt, None).await {
        Ok(Start::Started { .. }) => {}
        Ok(Start::Ended | Start::Expired | Start::OtherAccount) => return Done::Ack,
        Ok(Start::Fenced | Start::Gone) | Err(_) => return Done::Again,
        Ok(Start::Overtaken) => {
            let _ = queue::lanes::rebuild(&pool, &redis, job.tenant, job.session).await;
            return Done::Again;
        }
    }
    let _ = steps.send(Step::Started(job.id, Instant::now()));
    let outcome = Outcome::Succeeded { evidence: None, result: None };
    match store::outcomes::record(&pool, &held, &job, &outcome).await {
        Ok(Recorded::Written(events)) => {
            let _ = queue::events::publish(&pool, &redis, job.tenant, &events).await;
            let _ = steps.send(Step::Ended);
            Done::Ack
        }
        Ok(Recorded::Already) => Done::Ack,
        Ok(Recorded::Fenced | Recorded::Gone) | Err(_) => Done::Again,
    }
}
