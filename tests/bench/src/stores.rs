//! A Postgres and a Redis of the benchmark's own, and a host without browsers: its handler starts jobs and ends them, nothing more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contract::{Command, HostId, JobId, MarkRead, Outcome, SessionId, TenantId, Timings};
use harness::{Error, Folder, User, postgres::Postgres};
use queue::{Done, Hub, Lease, Redis};
use sqlx::PgPool;
use store::{
    accept::NewJob,
    lane_jobs::{LaneJob, Start},
    outcomes::Recorded,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::task::TaskTracker;

/// Connections of the pool: what a host and an API together would have.
const POOL: u32 = 20;

/// The stores.
pub struct Stores {
    /// Whose sessions these are.
    pub tenant: TenantId,
    /// The pool that queries go through.
    pub pool: PgPool,
    /// The queue's Redis.
    pub redis: Redis,
    /// The server behind it.
    pub server: harness::redis::Redis,
    /// The server behind the pool.
    pub postgres: Postgres,
    _folder: Folder,
}

impl Stores {
    /// Starts both.
    ///
    /// # Errors
    /// What kept them from starting.
    pub async fn start() -> Result<Arc<Self>, Error> {
        let user = User::find()?;
        let folder = Folder::new(user)?;
        let logs = folder.sub("logs")?;
        let postgres = Postgres::start(user, &folder, &logs).await?;
        let server = harness::redis::Redis::start(user, &folder, &logs).await?;
        let pool = store::connect(&postgres.url(), POOL).await?;
        let tenant = TenantId::new();
        sqlx::query("insert into tenant (id, name) values ($1, 'bench')").bind(tenant.uuid()).execute(&pool).await?;
        sqlx::query("insert into tenant_counter (tenant) values ($1)").bind(tenant.uuid()).execute(&pool).await?;
        // Loads here are beyond what a tenant may have.
        sqlx::query("update usage_limit set value = 1000000").execute(&pool).await?;
        // Redis has been there for long: no claim waits for it to settle.
        server.command(&["SET", "zg:birth", "1"]).await;
        let redis = Redis::connect(&server.url()).await?;
        Ok(Arc::new(Self { tenant, pool, redis, server, postgres, _folder: folder }))
    }

    /// Sessions that work and that nobody owns.
    ///
    /// # Errors
    /// The database's.
    pub async fn sessions(&self, count: usize) -> Result<Vec<SessionId>, Error> {
        let sessions: Vec<_> = (0..count).map(|_| SessionId::new()).collect();
        insert_sessions(&self.pool, self.tenant, &sessions).await?;
        Ok(sessions)
    }

    /// A job of the smallest kind.
    pub fn job(&self, session: SessionId) -> NewJob {
        NewJob {
            id: JobId::new(),
            tenant: self.tenant,
            session,
            command: Command::MarkRead(MarkRead { to: "5511999990000".parse().expect("a number") }),
            chat: None,
            message: None,
            resend_of: None,
            reference: None,
            created_by: self.tenant.uuid(),
            expires_in: Duration::from_secs(3600),
            queue_when_down: false,
        }
    }
}

/// Sessions that work, as rows.
///
/// # Errors
/// The database's.
pub async fn insert_sessions(pool: &PgPool, tenant: TenantId, sessions: &[SessionId]) -> Result<(), Error> {
    let ids: Vec<_> = sessions.iter().map(|s| s.uuid()).collect();
    let session = "insert into session (id, tenant, name, wanted, state)
                   select id, $2, right(id::text, 12), 'running', 'working' from unnest($1) id";
    let position = "insert into lane_position (session, tenant) select unnest($1), $2";
    for insert in [session, position] {
        sqlx::query(insert).bind(&ids).bind(tenant.uuid()).execute(pool).await?;
    }
    Ok(())
}

/// What the handler says of a job.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// It has been started: the page would be asked to act now.
    Started(JobId, Instant),
    /// Its outcome is recorded.
    Ended,
}

/// A host that owns sessions.
pub struct Host {
    /// Its hub.
    pub hub: Arc<Hub>,
    leases: Arc<Mutex<HashMap<SessionId, Lease>>>,
    _tasks: JoinSet<()>,
}

impl Host {
    /// Starts it, and tells each step.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(stores: &Arc<Stores>) -> Result<(Self, mpsc::UnboundedReceiver<Step>), Error> {
        let (hub, backend) =
            Hub::start(stores.redis.clone(), stores.pool.clone(), HostId::new(), Timings::default(), TaskTracker::new()).await?;
        let leases: Arc<Mutex<HashMap<SessionId, Lease>>> = Arc::default();
        let (steps, told) = mpsc::unbounded_channel();
        let handler = {
            let (stores, leases) = (stores.clone(), leases.clone());
            move |session: SessionId, job: Arc<LaneJob>| {
                let lease = leases.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned();
                handle(stores.clone(), lease, job, steps.clone())
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
        Ok((Self { hub, leases, _tasks: tasks }, told))
    }

    /// Owns all that can be owned.
    ///
    /// # Errors
    /// Where a claim fails.
    pub async fn own_all(&self, stores: &Stores) -> Result<(), Error> {
        for claim in store::leases::claimable(&stores.pool, &[], &[], i32::MAX).await? {
            let lease = self.hub.claim(&claim).await?.ok_or("a session is somebody else's")?;
            self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(claim.session, lease);
            self.hub.open(claim.session);
        }
        Ok(())
    }
}

async fn handle(stores: Arc<Stores>, lease: Option<Lease>, job: Arc<LaneJob>, steps: mpsc::UnboundedSender<Step>) -> Done {
    let Some(lease) = lease else { return Done::Again };
    let held = *lease.held();
    match store::lane_jobs::start(&stores.pool, &held, job.id, job.attempt, None).await {
        Ok(Start::Started { .. }) => {}
        Ok(Start::Ended | Start::Expired | Start::OtherAccount) => return Done::Ack,
        Ok(Start::Fenced) | Err(_) => return Done::Again,
        Ok(Start::Overtaken) => {
            let _ = queue::lanes::rebuild(&stores.pool, &stores.redis, job.tenant, job.session).await;
            return Done::Again;
        }
    }
    let _ = steps.send(Step::Started(job.id, Instant::now()));
    let outcome = Outcome::Succeeded { evidence: None, result: None };
    match store::outcomes::record(&stores.pool, &held, &job, &outcome).await {
        Ok(Recorded::Written(events)) => {
            let _ = queue::events::publish(&stores.pool, &stores.redis, job.tenant, &events).await;
            let _ = steps.send(Step::Ended);
            Done::Ack
        }
        Ok(Recorded::Already) => Done::Ack,
        Ok(Recorded::Fenced) | Err(_) => Done::Again,
    }
}
