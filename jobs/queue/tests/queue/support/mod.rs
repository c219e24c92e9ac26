//! A Postgres and a Redis of a test's own, sessions in them, and hosts that run jobs by recording that they started.

mod host;
mod servers;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use host::{Host, Play, timings};
pub use servers::{PostgresServer, RedisServer};

use contract::{Command, Event, JobId, Lane, MarkRead, SessionId, TenantId};
use harness::{Folder, User, faults::Faults};
use queue::Redis;
use store::{
    PgPool,
    accept::{Accepted, NewJob},
    leases::Claimable,
};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// For what should take milliseconds.
pub const SOON: Duration = Duration::from_secs(10);

/// Runs it beside the test.
pub fn spawn<F: Future<Output: Send> + Send + 'static>(task: F) -> JoinHandle<F::Output> {
    TaskTracker::new().spawn(task)
}

/// The stores of one test, and a tenant in them.
pub struct Stores {
    pub redis: Redis,
    pub pool: PgPool,
    pub tenant: TenantId,
    pub server: RedisServer,
    pub postgres: PostgresServer,
    faults: OnceLock<Faults>,
    user: User,
    /// Last: it ends after the servers whose files are in it.
    folder: Folder,
}

impl Stores {
    pub async fn start() -> Arc<Self> {
        let user = User::find().expect("there is one");
        let folder = Folder::new(user).expect("a folder can be made");
        let (server, postgres) = (RedisServer::start(user, &folder).await, PostgresServer::start(user, &folder).await);
        let pool = store::connect(&postgres.url(), 30).await.expect("connects");
        store::MIGRATIONS.run(&pool).await.expect("migrates");
        let redis = Redis::connect(server.url()).await.expect("the URL is good");
        let tenant = TenantId::new();
        // Redis has been there for long: nothing waits for it to settle.
        server.run(&["SET", "zg:birth", "1"]).await;
        let stores = Arc::new(Self { redis, pool, tenant, server, postgres, faults: OnceLock::new(), user, folder });
        stores.insert_tenant(tenant);
        // Loads here are beyond what a tenant may have.
        stores.postgres.run("update usage_limit set value = 1000000");
        stores
    }

    /// Another Redis, beside theirs.
    pub async fn another_redis(&self) -> RedisServer {
        RedisServer::another(self.user).await
    }

    /// The fault points of this process, which are this test's alone. To be called before the first point is reached.
    pub fn points(&self) -> &Faults {
        self.faults.get_or_init(|| {
            let faults = Faults::start(self.user, self.folder.path()).expect("listens");
            assert!(contract::fault::ask_at(faults.path()), "one process a test: run it with nextest");
            faults
        })
    }

    /// A session that is working and that nobody owns.
    pub fn session(&self) -> SessionId {
        self.session_of(self.tenant)
    }

    fn session_of(&self, tenant: TenantId) -> SessionId {
        let session = SessionId::new();
        self.insert_sessions(tenant, &[session]);
        session
    }

    /// Many of them.
    pub fn sessions(&self, count: usize) -> Vec<SessionId> {
        let sessions: Vec<_> = (0..count).map(|_| SessionId::new()).collect();
        self.insert_sessions(self.tenant, &sessions);
        sessions
    }

    fn insert_sessions(&self, tenant: TenantId, sessions: &[SessionId]) {
        let ids = sessions.iter().map(|s| format!("'{}'", s.uuid())).collect::<Vec<_>>().join(",");
        self.postgres.run(&format!(
            "insert into session (id, tenant, name, wanted, state)
             select id, '{0}', right(id::text, 12), 'running', 'working' from unnest(array[{ids}]::uuid[]) id;
             insert into lane_position (session, tenant) select unnest(array[{ids}]::uuid[]), '{0}'",
            tenant.uuid(),
        ));
    }

    /// A job for a session of another tenant.
    pub fn job_of_another(&self) -> NewJob {
        let tenant = TenantId::new();
        self.insert_tenant(tenant);
        NewJob { tenant, ..self.job(self.session_of(tenant)) }
    }

    fn insert_tenant(&self, tenant: TenantId) {
        self.postgres.run(&format!(
            "insert into tenant (id, name) values ('{0}', 'a'); insert into tenant_counter (tenant) values ('{0}')",
            tenant.uuid()
        ));
    }

    /// When so many statements wait for a lock.
    pub async fn until_blocked(&self, count: usize) {
        let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        harness::until_true(&format!("{count} blocked statements"), SOON, || async { self.postgres.run(blocked) == count.to_string() })
            .await;
    }

    /// What a claimer of it reads.
    pub async fn claimable(&self, session: SessionId) -> Claimable {
        let all = store::leases::claimable(&self.pool, &[], &[], i32::MAX).await.expect("reads");
        all.into_iter().find(|c| c.session == session).expect("it can be claimed")
    }

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
            expires_in: Duration::from_secs(600),
            queue_when_down: false,
        }
    }

    /// Accepts a job and pushes it.
    pub async fn send(&self, session: SessionId) -> JobId {
        let job = self.job(session);
        queue::accept_and_push(&self.pool, &self.redis, &job, None).await.expect("accepts");
        job.id
    }

    /// Accepts a job that is not pushed. Answers its position.
    pub async fn accept(&self, session: SessionId) -> (JobId, i64) {
        let job = self.job(session);
        match store::accept::accept(&self.pool, &job, None).await.expect("accepts") {
            Accepted::New { position } => (job.id, position),
            other => panic!("{other:?}"),
        }
    }

    /// A job of a lane that no command of today uses: its command does not decode.
    pub fn stranger(&self, session: SessionId, lane: Lane) -> JobId {
        let job = JobId::new();
        self.postgres.run(&format!(
            "with p as (update lane_position set n = n + 1 where session = '{1}' returning n)
             insert into job (id, tenant, session, lane, position, kind, command_version, command, created_by, expires_at)
             select '{0}', '{2}', '{1}', '{3}', n, 'newer', 1, '{{}}', '{2}', now() + interval '1 hour' from p",
            job.uuid(),
            session.uuid(),
            self.tenant.uuid(),
            lane.as_str(),
        ));
        job
    }

    /// `count` events at the end of the tenant's log.
    pub async fn log(&self, count: usize) -> Vec<Event> {
        let before = store::counters::head(&self.pool, self.tenant).await.expect("reads");
        self.postgres.run(&format!(
            "with c as (update tenant_counter set seq = seq + {count} where tenant = '{0}' returning seq)
             insert into event (tenant, seq, day, id, type, at, data)
             select '{0}', c.seq - {count} + n, current_date, gen_random_uuid(), 'session.status', now(), '{{}}' from c, generate_series(1, {count}) n",
            self.tenant.uuid()
        ));
        store::counters::after(&self.pool, self.tenant, before, i64::MAX).await.expect("reads")
    }

    pub fn lease_key(&self, session: SessionId) -> String {
        queue::keys::lease(self.tenant, session)
    }

    pub fn lane_key(&self, session: SessionId, lane: Lane) -> String {
        queue::keys::lane(self.tenant, session, lane)
    }

    pub async fn lane(&self, session: SessionId) -> Vec<String> {
        self.server.ask(&["ZRANGE", &self.lane_key(session, Lane::Write), "0", "-1"]).await
    }

    pub fn job_state(&self, job: JobId) -> String {
        self.postgres.run(&format!("select state || ' ' || attempt from job where id = '{}'", job.uuid()))
    }
}
