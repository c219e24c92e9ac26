//! The only SQL. A module a table group; every query takes the tenant, or a [`Held`] that was made under one.
//!
//! Statements that touch `session`, `lane_position` or `tenant_counter` are single and auto-committed, and lock in that order.

pub mod accept;
pub mod acks;
pub mod aliases;
pub mod background;
pub mod background_jobs;
pub mod counters;
pub mod deletion;
pub mod ends;
pub mod erasures;
pub mod incoming;
pub mod lane_jobs;
pub mod leases;
pub mod link_pages;
pub mod log;
pub mod outcomes;
pub mod owned;
pub mod profiles;
pub mod receipts;
pub mod restored;
pub mod retention;
pub mod turns;

pub mod audit;
pub mod chats;
pub mod contacts;
pub mod cursor;
pub mod events;
pub mod exports;
pub mod grants;
pub mod history;
pub mod idempotency;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod links;
pub mod messages;
pub mod schema;
pub mod sealed;
pub mod sessions;
pub mod snapshot;
pub mod tenants;
pub mod tokens;
pub mod users;
pub mod webhook_turns;
pub mod webhooks;

use std::time::Duration;

use sqlx::Connection;

pub use leases::Held;
pub use sqlx::PgPool;

/// The schema, applied by `zaguan-api migrate` as its owner.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// The database did not do what was asked; nothing was decided.
#[derive(Debug, thiserror::Error)]
#[error("database: {0}")]
pub struct StoreError(#[from] pub sqlx::Error);

impl StoreError {
    /// Whether the tenant has as many of something as it may have: the name of the limit.
    pub fn quota(&self) -> Option<&str> {
        match &self.0 {
            sqlx::Error::Database(why) => why.constraint()?.strip_suffix("_quota"),
            _ => None,
        }
    }

    /// Whether the statement may have been committed all the same: the connection was lost before an answer came, or the server went down
    /// (which it may while the commit waits for its standby).
    pub fn outcome_unclear(&self) -> bool {
        match &self.0 {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(why) => matches!(why.code().as_deref(), Some("57P01" | "57P02")),
            _ => false,
        }
    }

    /// Whether what the statement is about is no longer there: the row itself, or one that it points at.
    pub fn is_gone(&self) -> bool {
        matches!(self.0, sqlx::Error::RowNotFound) || self.sqlstate().as_deref() == Some("23503")
    }

    /// Whether the same statement may succeed later without anybody changing anything: the database was not reached, had no room, or was in
    /// the way of itself. All else is a mistake of ours.
    pub fn is_passing(&self) -> bool {
        match &self.0 {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Classes of SQLSTATE: connection, read-only server, login, rollback, resources, locks, intervention, its disk.
            sqlx::Error::Database(why) => why
                .code()
                .is_none_or(|code| ["08", "25", "28", "3D", "40", "53", "55", "57", "58"].contains(&code.get(..2).unwrap_or_default())),
            _ => false,
        }
    }

    /// Whether the database refuses what the statement carries (SQLSTATE class 22): repeating it changes nothing.
    pub fn data_refused(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("22"))
    }

    /// The database's own code, where it answered.
    pub fn sqlstate(&self) -> Option<String> {
        self.0.as_database_error()?.code().map(Into::into)
    }
}

/// How long a statement may take in all: longer than the server lets it run, so that only a connection that fell silent meets it.
const STATEMENT_WITHIN: Duration = Duration::from_secs(12);

/// A statement with a deadline. One that passes it has an unclear outcome ([`StoreError::outcome_unclear`]): for what may be repeated.
///
/// # Errors
/// Those of the statement, and the deadline.
pub async fn within<T>(statement: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_| Err(StoreError(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
    tokio::time::timeout(STATEMENT_WITHIN, statement).await.unwrap_or_else(silent)
}

/// What a store function answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Opens a pool. Connections are made on demand; `size` is the most this process uses.
///
/// # Errors
/// Where the URL does not parse or the first connection fails.
pub async fn connect(url: &str, size: u32) -> Result<PgPool> {
    Ok(pool_options(size).connect_with(connect_options(url)?).await?)
}

/// The same, without a first connection: for a process that may start before the database.
///
/// # Errors
/// Where the URL does not parse.
pub fn connect_lazy(url: &str, size: u32) -> Result<PgPool> {
    Ok(pool_options(size).connect_lazy_with(connect_options(url)?))
}

/// One connection for migrations: a large table's index takes longer than any request may.
///
/// # Errors
/// Where the URL does not parse or the connection fails.
pub async fn connect_owner(url: &str) -> Result<PgPool> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    Ok(pool_options(1).connect_with(options.options([("lock_timeout", "30s"), ("statement_timeout", "0")])).await?)
}

/// Forgets the connections that nobody uses, without a farewell: those of a process that was frozen may be dead and not show it.
pub fn forget_idle(pool: &PgPool) {
    while let Some(connection) = pool.try_acquire() {
        drop(connection.detach());
    }
}

/// How long a connection may take to show that it lives: one that fell silent would hold its caller, or its place in the pool, for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

fn pool_options(size: u32) -> sqlx::postgres::PgPoolOptions {
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(5))
        // In place of the pool's own test, which waits for ever.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(lives(connection)))
        // A caller may have given up in the middle of a statement; what the pool itself does with such a connection waits for ever too.
        .after_release(|connection, _| Box::pin(lives(connection)))
}

async fn lives(connection: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, connection.ping()).await;
    answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
}

fn connect_options(url: &str) -> Result<sqlx::postgres::PgConnectOptions> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    Ok(options.options([("lock_timeout", "5s"), ("statement_timeout", "10s"), ("idle_in_transaction_session_timeout", "5s")]))
}
