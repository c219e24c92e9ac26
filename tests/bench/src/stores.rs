//! A Postgres and a Redis of the benchmark's own, and what is asked of them around a measurement.

use std::{collections::BTreeMap, ffi::OsStr, sync::Arc, time::Duration};

use contract::{Command, JobId, MarkRead, SessionId, TenantId};
use harness::{Error, Folder, User, postgres::Postgres, process::Process};
use queue::Redis;
use redis::{FromRedisValue, aio::MultiplexedConnection};
use sqlx::PgPool;
use store::accept::NewJob;

/// Connections of the pool: what a host and an API together would have.
pub const POOL: u32 = 20;

/// The stores.
pub struct Stores {
    /// Whose sessions these are.
    pub tenant: TenantId,
    /// The pool that queries go through.
    pub pool: PgPool,
    /// The queue's Redis.
    pub redis: Redis,
    /// A connection to it that nothing of ours stands before.
    pub raw: MultiplexedConnection,
    /// The server behind both.
    pub server: harness::redis::Redis,
    /// The server behind the pool.
    pub postgres: Postgres,
    user: User,
    folder: Folder,
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
        let queue = Redis::connect(&server.url()).await?;
        let raw = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
        Ok(Arc::new(Self { tenant, pool, redis: queue, raw, server, postgres, user, folder }))
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

    /// The same, owned by nobody and to be claimed by nobody, whatever became of their owners.
    ///
    /// # Errors
    /// The database's.
    pub async fn retire_sessions(&self) -> Result<(), Error> {
        sqlx::query("update session set state = 'stopped', wanted = 'stopped', owner = null, host = null").execute(&self.pool).await?;
        Ok(())
    }

    /// How many sessions somebody owns.
    ///
    /// # Errors
    /// The database's.
    pub async fn owned(&self) -> Result<usize, Error> {
        let owned = "select count(*) from session where owner is not null";
        Ok(usize::try_from(sqlx::query_scalar::<_, i64>(owned).fetch_one(&self.pool).await?)?)
    }

    /// This program with other arguments, as a process of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn again(&self, name: &str, arguments: &[String]) -> Result<Process, Error> {
        let program = self.folder.copy(&std::env::current_exe()?)?;
        self.process(name, program.as_ref(), arguments)
    }

    /// A Node program as a process of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn node(&self, name: &str, arguments: &[String]) -> Result<Process, Error> {
        self.process(name, "node".as_ref(), arguments)
    }

    fn process(&self, name: &str, program: &OsStr, arguments: &[String]) -> Result<Process, Error> {
        let mut command = self.user.tied(program, "KILL");
        command.current_dir(self.folder.path()).args(arguments);
        // What an earlier one of this name has said is not its own.
        let logs = self.folder.sub("logs")?;
        let _ = std::fs::remove_file(logs.join(format!("{name}.log")));
        Ok(Process::start(name, &logs, command)?)
    }

    /// How often Redis has been asked what, by its own count: what scripts call is counted as well. Looks of ours are not.
    ///
    /// # Errors
    /// Redis' own.
    pub async fn calls(&self) -> Result<BTreeMap<String, u64>, Error> {
        let info = self.info("commandstats").await?;
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        // Each look makes a connection of its own, which introduces itself.
        let ours = |name: &str| name.starts_with("client|") || ["hello", "info"].contains(&name);
        Ok(info.lines().filter_map(calls).filter(|(name, _)| !ours(name)).collect())
    }

    /// A number of a section of Redis' `INFO`.
    ///
    /// # Errors
    /// Redis' own, or that there is no such number.
    pub async fn redis_number(&self, section: &str, name: &str) -> Result<f64, Error> {
        let info = self.info(section).await?;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.ok_or_else(|| format!("Redis says nothing of {name}"))?.trim().parse()?)
    }

    async fn info(&self, section: &str) -> Result<String, Error> {
        Ok(String::from_redis_value(self.server.command(&["INFO", section]).await)?)
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

/// What has been added between two counts.
pub fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, of: impl Fn(&str) -> bool) -> u64 {
    after.iter().filter(|(name, _)| of(name)).map(|(name, n)| n - before.get(name).copied().unwrap_or(0)).sum()
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
