//! A Postgres and a Redis of a test's own, sessions in them, and hosts that run jobs by recording that they started.

mod host;
mod servers;

use std::{sync::Arc, time::Duration};

pub use host::{Host, Play, timings};
pub use servers::{PostgresServer, RedisServer};

use contract::{Command, Event, JobId, Lane, MarkRead, SessionId, TenantId};
use harness::{Folder, User};
use queue::Redis;
use store::{
    PgPool,
    accept::{Accepted, NewJob},
    leases::Claimable,
};

/// For what should take milliseconds.
pub const SOON: Duration = Duration::from_secs(10);

/// The stores of one test, and a tenant in them.
pub struct Stores {
    pub redis: Redis,
    pub pool: PgPool,
    pub tenant: TenantId,
    pub server: RedisServer,
    pub postgres: PostgresServer,
    /// Last: it ends after the servers whose files are in it.
    _folder: Folder,
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
        postgres.run(&format!(
            "insert into tenant (id, name) values ('{0}', 'a'); insert into tenant_counter (tenant) values ('{0}')",
            tenant.uuid()
        ));
        // Redis has been there for long: nothing waits for it to settle.
        server.run(&["SET", "zg:birth", "1"]).await;
        Arc::new(Self { redis, pool, tenant, server, postgres, _folder: folder })
    }

    /// A session that is working and that nobody owns.
    pub fn session(&self) -> SessionId {
        let session = SessionId::new();
        self.postgres.run(&format!(
            "insert into session (id, tenant, name, wanted, state) values ('{0}', '{1}', '{2}', 'running', 'working');
             insert into lane_position (session, tenant) values ('{0}', '{1}')",
            session.uuid(),
            self.tenant.uuid(),
            &session.to_string()[20..],
        ));
        session
    }

    /// What a claimer of it reads.
    pub async fn claimable(&self, session: SessionId) -> Claimable {
        let all = store::leases::claimable(&self.pool).await.expect("reads");
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
