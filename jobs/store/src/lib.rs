//! The only SQL. A module a table group; every query takes the tenant, or a [`Held`] that was made under one.
//!
//! Statements that touch `session`, `lane_position` or `tenant_counter` are single and auto-committed, and lock in that order.

pub mod accept;
pub mod aliases;
pub mod counters;
pub mod ends;
pub mod incoming;
pub mod lane_jobs;
pub mod leases;
pub mod log;
pub mod outcomes;
pub mod owned;

pub use leases::Held;
pub use sqlx::PgPool;

/// The schema, applied by `zaguan-api migrate` as its owner.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// The database did not do what was asked; nothing was decided.
#[derive(Debug, thiserror::Error)]
#[error("database: {0}")]
pub struct StoreError(#[from] pub sqlx::Error);

/// What a store function answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Opens a pool. Connections are made on demand; `size` is the most this process uses.
///
/// # Errors
/// Where the URL does not parse or the first connection fails.
pub async fn connect(url: &str, size: u32) -> Result<PgPool> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(std::time::Duration::from_secs(5))
        .connect_with(options.options([
            ("lock_timeout", "5s"),
            ("statement_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "5s"),
        ]))
        .await?;
    Ok(pool)
}
