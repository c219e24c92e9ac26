//! Requests that make something else than a job. The statement that makes it remembers the request by what it made (SQL's `remember`), so a
//! repeated one finds that, and two at once make one. Jobs are remembered by [`crate::accept`].

use contract::TenantId;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{Result, accept::IdempotencyKey};

/// What a key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// The same request: the id of what it made.
    Made(String),
    /// A request with another body.
    OtherBody,
}

/// What a key was used for before, if it was.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn before(pool: &PgPool, tenant: TenantId, key: &IdempotencyKey) -> Result<Option<Before>> {
    let row = sqlx::query!(
        "select target, body_hash from idempotency where tenant = $1 and principal = $2 and method = $3 and path = $4 and key = $5",
        tenant.uuid(),
        key.principal,
        key.method,
        key.path,
        key.key
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| {
        let same = r.body_hash == key.body_hash;
        // A path that makes other things makes no jobs.
        r.target.map(|target| if same { Before::Made(target) } else { Before::OtherBody })
    }))
}

/// Remembers a request that writes nothing else. `false`: it was there before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn remember(pool: &PgPool, tenant: TenantId, key: &IdempotencyKey, target: &str) -> Result<bool> {
    let first = sqlx::query_scalar!(r#"select remember($1, $2, $3) as "first!""#, tenant.uuid(), asked(Some(key)), target);
    Ok(first.fetch_one(pool).await?)
}

/// What SQL's `remember` takes.
pub(crate) fn asked(key: Option<&IdempotencyKey>) -> Option<Value> {
    key.map(|key| {
        let body: String = key.body_hash.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"principal": key.principal, "method": key.method, "path": key.path, "key": key.key, "body": body})
    })
}
