//! One moment of the database: a list and the tenant's `seq` that belongs to it.

use chrono::{DateTime, Utc};
use contract::TenantId;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::Result;

/// A read-only transaction. What is read through it is complete up to `seq`: a client that subscribes after `seq` misses nothing and sees
/// nothing twice. It takes no row locks.
#[derive(Debug)]
pub struct Snapshot {
    tx: Transaction<'static, Postgres>,
    /// The tenant's last event at this moment.
    pub seq: i64,
    /// The moment, by the database's clock.
    pub as_of: DateTime<Utc>,
}

impl Snapshot {
    /// Opens one for a tenant.
    ///
    /// # Errors
    /// [`crate::StoreError`].
    pub async fn open(pool: &PgPool, tenant: TenantId) -> Result<Self> {
        let mut tx = pool.begin_with("begin isolation level repeatable read read only").await?;
        let row = sqlx::query!(
            r#"select coalesce((select seq from tenant_counter where tenant = $1), 0) as "seq!", clock_timestamp() as "now!""#,
            tenant.uuid()
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(Self { tx, seq: row.seq, as_of: row.now })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// The time by the one clock that decides.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn now(pool: &PgPool) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(pool).await?)
}
