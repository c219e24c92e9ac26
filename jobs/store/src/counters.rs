//! The log's ends, for publishers and readers.

use chrono::{DateTime, Utc};
use contract::{Event, TenantId};
use sqlx::PgPool;

use crate::{Result, log};

/// The last `seq` a tenant issued.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn head(pool: &PgPool, tenant: TenantId) -> Result<i64> {
    let seq = sqlx::query_scalar!("select seq from tenant_counter where tenant = $1", tenant.uuid()).fetch_optional(pool).await?;
    Ok(seq.unwrap_or(0))
}

/// What of a tenant's log is kept, and when that was read.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The last `seq` issued.
    pub head: i64,
    /// The smallest `seq` still kept.
    pub floor: i64,
    /// By the database's clock.
    pub now: DateTime<Utc>,
}

/// Both ends of a tenant's log.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn ends(pool: &PgPool, tenant: TenantId) -> Result<Ends> {
    let row = sqlx::query!(r#"select seq, floor_seq, clock_timestamp() as "now!" from tenant_counter where tenant = $1"#, tenant.uuid())
        .fetch_one(pool)
        .await?;
    Ok(Ends { head: row.seq, floor: row.floor_seq, now: row.now })
}

/// Every tenant's last `seq`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn heads(pool: &PgPool) -> Result<Vec<(TenantId, i64)>> {
    let rows = sqlx::query!("select tenant, seq from tenant_counter where seq > 0").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), r.seq)).collect())
}

/// The events after `after`, in order, at most `limit`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn after(pool: &PgPool, tenant: TenantId, after: i64, limit: i64) -> Result<Vec<Event>> {
    let rows = sqlx::query_as!(
        log::Row,
        "select id, seq, type as kind, at, session, chat, data from event where tenant = $1 and seq > $2 order by seq limit $3",
        tenant.uuid(),
        after,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(log::events(rows, tenant))
}
