//! Companies.

pub mod deletion;

use contract::{SessionId, TenantId};
use sqlx::PgPool;

use crate::StoreError;

/// The name of the session that every tenant has from the start.
pub const DEFAULT_SESSION: &str = "default";

/// A tenant to create, with its founding ADMIN.
#[derive(Debug, Clone)]
pub struct NewTenant<'a> {
    /// Its id, and the founding ADMIN's UUID.
    pub id: TenantId,
    /// Shown to its people.
    pub name: &'a str,
    /// The ADMIN's e-mail.
    pub email: &'a str,
    /// The ADMIN's password, hashed (PHC string).
    pub password_hash: &'a str,
}

/// Why a tenant was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTenant {
    /// E-mail addresses are unique over the installation.
    #[error("another user has this e-mail address")]
    EmailTaken,
    /// Nothing was decided.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Those of them that are there and not being deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn there(pool: &PgPool, tenants: &[TenantId]) -> Result<Vec<TenantId>, StoreError> {
    let ids: Vec<_> = tenants.iter().map(|tenant| tenant.uuid()).collect();
    let rows = sqlx::query_scalar!("select id from tenant where id = any($1) and state <> 'deleting'", &ids).fetch_all(pool).await?;
    Ok(rows.into_iter().map(TenantId::from_uuid).collect())
}

/// Creates a tenant with its ADMIN, its session `default` and its counters: one statement, so that none of them is ever missing.
///
/// # Errors
/// [`CreateTenant`].
pub async fn create(pool: &PgPool, new: &NewTenant<'_>) -> Result<SessionId, CreateTenant> {
    let session = SessionId::new();
    let done = sqlx::query!(
        "with t as (insert into tenant (id, name) values ($1, $2)),
              u as (insert into app_user (id, tenant, email, name, rol, password_hash) values ($1, $1, $3, $2, 'ADMIN', $4)),
              s as (insert into session (id, tenant, name, is_default) values ($5, $1, $6, true)),
              p as (insert into lane_position (session, tenant) values ($5, $1))
         insert into tenant_counter (tenant) values ($1)",
        new.id.uuid(),
        new.name,
        new.email,
        new.password_hash,
        session.uuid(),
        DEFAULT_SESSION
    )
    .execute(pool)
    .await;
    match done {
        Ok(_) => Ok(session),
        Err(sqlx::Error::Database(why)) if why.constraint() == Some("app_user_email_key") => Err(CreateTenant::EmailTaken),
        Err(why) => Err(StoreError::from(why).into()),
    }
}
