//! What a tenant may use: the operator's defaults, and what it set for one tenant.

use contract::TenantId;
use sqlx::{PgConnection, PgPool};

use crate::{Result, snapshot::Snapshot};

/// The limits of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Messages accepted in a minute.
    pub sends_per_minute: i64,
    /// Messages accepted in a day.
    pub sends_per_day: i64,
    /// Streams of one user or key.
    pub streams_per_principal: i64,
    /// Streams of all.
    pub streams: i64,
    /// Requests that wait for something.
    pub waiting_requests: i64,
    /// Pairing codes for one number in an hour.
    pub pairing_codes_per_hour: i64,
}

/// One limit, as an ADMIN reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// How much.
    pub value: i64,
    /// How much of it is used, where that is a count of rows.
    pub used: Option<i64>,
}

/// Reads what the services enforce.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId) -> Result<Limits> {
    let all = all(&mut *pool.acquire().await?, tenant).await?;
    // A name that is not there (a migration yet to come) limits nothing.
    let value = |name: &str| all.iter().find(|l| l.name == name).map_or(i64::MAX, |l| l.value);
    Ok(Limits {
        sends_per_minute: value("sendsPerMinute"),
        sends_per_day: value("sendsPerDay"),
        streams_per_principal: value("streamsPerPrincipal"),
        streams: value("streams"),
        waiting_requests: value("waitingRequests"),
        pairing_codes_per_hour: value("pairingCodesPerHour"),
    })
}

/// All limits by name, with what is used of those that count rows.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId) -> Result<Vec<Limit>> {
    all(snapshot.connection(), tenant).await
}

async fn all(connection: &mut PgConnection, tenant: TenantId) -> Result<Vec<Limit>> {
    let rows = sqlx::query_as!(
        Limit,
        r#"select distinct on (name) name, value,
                  case name when 'sessions' then (select count(*) from session where tenant = $1 and deleting_at is null)
                            when 'users' then (select count(*) from app_user where tenant = $1 and state <> 'disabled')
                            when 'apiKeys' then (select count(*) from api_key where tenant = $1 and revoked_at is null)
                            when 'webhooks' then (select count(*) from webhook where tenant = $1)
                            when 'exports' then (select count(*) from export where tenant = $1 and expires_at > clock_timestamp()) end as used
             from usage_limit where tenant = $1 or tenant is null
            order by name, tenant nulls last"#,
        tenant.uuid()
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
