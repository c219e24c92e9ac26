//! The only SQL. A module a table group; every query takes the tenant, or a [`Held`] that was made under one.
//!
//! Statements that touch `session`, `lane_position` or `tenant_counter` are single and auto-committed, and lock in that order.

pub mod accept;
pub mod aliases;
pub mod background;
pub mod counters;
pub mod deletion;
pub mod ends;
pub mod incoming;
pub mod lane_jobs;
pub mod leases;
pub mod link_pages;
pub mod log;
pub mod outcomes;
pub mod owned;
pub mod retention;
pub mod turns;

pub mod chats;
pub mod cursor;
pub mod events;
pub mod grants;
pub mod jobs;
pub mod messages;
pub mod schema;
pub mod sessions;
pub mod snapshot;
pub mod tenants;
pub mod tokens;
pub mod users;

pub use leases::Held;
pub use sqlx::PgPool;

/// The schema, applied by `zaguan-api migrate` as its owner.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// The database did not do what was asked; nothing was decided.
#[derive(Debug, thiserror::Error)]
#[error("database: {0}")]
pub struct StoreError(#[from] pub sqlx::Error);

impl StoreError {
    /// Whether the statement may have been committed all the same: the connection was lost before an answer came.
    pub fn outcome_unclear(&self) -> bool {
        matches!(self.0, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed)
    }
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

fn pool_options(size: u32) -> sqlx::postgres::PgPoolOptions {
    sqlx::postgres::PgPoolOptions::new().max_connections(size).acquire_timeout(std::time::Duration::from_secs(5))
}

fn connect_options(url: &str) -> Result<sqlx::postgres::PgConnectOptions> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    Ok(options.options([("lock_timeout", "5s"), ("statement_timeout", "10s"), ("idle_in_transaction_session_timeout", "5s")]))
}
