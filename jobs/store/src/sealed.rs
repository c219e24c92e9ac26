//! What lies sealed under the master key: tenants' data keys, webhooks' secrets, keys of exports. Sealed anew, row by row, when that key changes.

use contract::{ExportId, TenantId, WebhookId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::Result;

/// A tenant's data key, as it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// What rows name it by.
    pub id: Uuid,
    /// Sealed under the master key.
    pub sealed: Vec<u8>,
}

/// The tenant's data key.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn data_key(pool: &PgPool, tenant: TenantId) -> Result<Option<DataKey>> {
    Ok(sqlx::query_as!(DataKey, "select id, sealed from data_key where tenant = $1", tenant.uuid()).fetch_optional(pool).await?)
}

/// Keeps a first data key. Where somebody was faster, theirs stays; ask [`data_key`] which.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn keep_data_key(pool: &PgPool, tenant: TenantId, sealed: &[u8]) -> Result<()> {
    let insert = sqlx::query!(
        "insert into data_key (id, tenant, sealed) values ($1, $2, $3) on conflict on constraint data_key_tenant_key do nothing",
        Uuid::now_v7(),
        tenant.uuid(),
        sealed
    );
    insert.execute(pool).await?;
    Ok(())
}

/// Data keys of all tenants, in the order of tenants.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn data_keys(pool: &PgPool, after: Option<TenantId>, limit: i64) -> Result<Vec<(TenantId, Vec<u8>)>> {
    let after = after.map_or(Uuid::nil(), |tenant| tenant.uuid());
    let rows = sqlx::query!("select tenant, sealed from data_key where tenant > $1 order by tenant limit $2", after, limit)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), r.sealed)).collect())
}

/// Puts a data key that was sealed anew in the place of `before`. `false`: somebody else has.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn replace_data_key(pool: &PgPool, tenant: TenantId, before: &[u8], after: &[u8]) -> Result<bool> {
    let done = sqlx::query!("update data_key set sealed = $3 where tenant = $1 and sealed = $2", tenant.uuid(), before, after);
    Ok(done.execute(pool).await?.rows_affected() == 1)
}

/// What of a webhook is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedWebhook {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub webhook: WebhookId,
    /// Its secret.
    pub secret: Vec<u8>,
    /// The one before, while both sign.
    pub previous_secret: Option<Vec<u8>>,
    /// Headers of the tenant's own.
    pub headers: Option<Vec<u8>>,
}

/// What of webhooks of all tenants is sealed, in the order of webhooks.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn webhooks(pool: &PgPool, after: Option<WebhookId>, limit: i64) -> Result<Vec<SealedWebhook>> {
    let after = after.map_or(Uuid::nil(), |webhook| webhook.uuid());
    let rows =
        sqlx::query!("select tenant, id, secret, previous_secret, headers from webhook where id > $1 order by id limit $2", after, limit)
            .fetch_all(pool)
            .await?;
    Ok(rows
        .into_iter()
        .map(|r| SealedWebhook {
            tenant: TenantId::from_uuid(r.tenant),
            webhook: WebhookId::from_uuid(r.id),
            secret: r.secret,
            previous_secret: r.previous_secret,
            headers: r.headers,
        })
        .collect())
}

/// Puts what was sealed anew in the place of `before`. `false`: it was changed meanwhile, and is sealed by the current key therefore.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn replace_webhook(pool: &PgPool, before: &SealedWebhook, after: &SealedWebhook) -> Result<bool> {
    let done = sqlx::query!(
        "update webhook set secret = $6, previous_secret = $7, headers = $8
          where tenant = $1 and id = $2 and secret = $3 and previous_secret is not distinct from $4 and headers is not distinct from $5",
        before.tenant.uuid(),
        before.webhook.uuid(),
        before.secret,
        before.previous_secret.as_deref(),
        before.headers.as_deref(),
        after.secret,
        after.previous_secret.as_deref(),
        after.headers.as_deref()
    );
    Ok(done.execute(pool).await?.rows_affected() == 1)
}

/// Keys of exports of all tenants, in the order of exports.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn export_keys(pool: &PgPool, after: Option<ExportId>, limit: i64) -> Result<Vec<(TenantId, ExportId, Vec<u8>)>> {
    let after = after.map_or(Uuid::nil(), |export| export.uuid());
    let rows = sqlx::query!("select tenant, id, key from export where id > $1 order by id limit $2", after, limit).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), ExportId::from_uuid(r.id), r.key)).collect())
}

/// Puts an export's key that was sealed anew in the place of `before`. `false`: somebody else has.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn replace_export_key(pool: &PgPool, tenant: TenantId, export: ExportId, before: &[u8], after: &[u8]) -> Result<bool> {
    let done =
        sqlx::query!("update export set key = $4 where tenant = $1 and id = $2 and key = $3", tenant.uuid(), export.uuid(), before, after);
    Ok(done.execute(pool).await?.rows_affected() == 1)
}
