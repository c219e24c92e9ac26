//! Refresh tokens: only hashes, one family a login. Presenting an old member of a family ends the family.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{AuditAction, TenantId, UserId};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Result,
    audit::Act,
    users::{Credentials, Rol, Standing},
};

/// SHA-256 of a token.
pub type Hash = [u8; 32];

/// How long the immediate predecessor is answered with the same successor: an answer can be lost on its way.
const GRACE_SECONDS: f64 = 30.0;

/// Starts a family, of the generation of the password that was checked. Answers the database's time, from which the access token's lifetime counts.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn issue(pool: &PgPool, user: &Credentials, family: Uuid, hash: &Hash, lifetime: Duration) -> Result<DateTime<Utc>> {
    let issued_at = sqlx::query_scalar!(
        "insert into refresh_token (hash, family, tenant, app_user, generation, expires_at)
         values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6)) returning issued_at",
        hash.as_slice(),
        family,
        user.tenant.uuid(),
        user.user.uuid(),
        user.generation,
        lifetime.as_secs_f64()
    )
    .fetch_one(pool)
    .await?;
    Ok(issued_at)
}

/// A refresh token that was presented.
#[derive(Debug, Clone, Copy)]
pub struct Presented {
    /// Whose.
    pub tenant: TenantId,
    /// Who.
    pub user: UserId,
    /// Its role now.
    pub rol: Rol,
    /// Whether it may work.
    pub standing: Standing,
    /// The login.
    pub family: Uuid,
    /// Neither revoked, nor expired, nor voided by a change of password or role.
    pub live: bool,
}

/// The token of that hash. The hash is a secret of 256 bits, so it names its tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn find(pool: &PgPool, hash: &Hash) -> Result<Option<Presented>> {
    let row = sqlx::query!(
        r#"select r.tenant, r.app_user, r.family, u.rol, u.state, t.state as tenant_state,
                  r.revoked_at is null and r.expires_at > clock_timestamp() and r.generation = u.generation as "live!"
             from refresh_token r join app_user u on u.id = r.app_user and u.tenant = r.tenant join tenant t on t.id = r.tenant
            where r.hash = $1"#,
        hash.as_slice()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| {
        Some(Presented {
            tenant: TenantId::from_uuid(r.tenant),
            user: UserId::from_uuid(r.app_user),
            rol: Rol::from_name(&r.rol)?,
            standing: Standing::of(&r.state, &r.tenant_state),
            family: r.family,
            live: r.live,
        })
    }))
}

/// What became of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The successor counts from now on.
    Rotated(DateTime<Utc>),
    /// It had been rotated moments ago, into the token of this hash, which nobody has used yet.
    Repeated {
        /// The stored successor.
        successor: Vec<u8>,
        /// The time.
        now: DateTime<Utc>,
    },
    /// An old token: somebody has a copy. The family has been revoked.
    Reused,
}

/// Replaces a token by its successor.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn rotate(pool: &PgPool, user: (TenantId, UserId), hash: &Hash, successor: &Hash, lifetime: Duration) -> Result<Rotation> {
    let tenant = user.0;
    let rotated = sqlx::query_scalar!(
        r#"with old as (
               update refresh_token set successor = $3, rotated_at = clock_timestamp()
                where hash = $2 and tenant = $1 and successor is null and revoked_at is null and expires_at > clock_timestamp()
               returning family, app_user, generation),
               new as (
               insert into refresh_token (hash, family, tenant, app_user, generation, expires_at)
               select $3, family, $1, app_user, generation, clock_timestamp() + make_interval(secs => $4) from old
               returning issued_at)
           select issued_at from new"#,
        tenant.uuid(),
        hash.as_slice(),
        successor.as_slice(),
        lifetime.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    match rotated {
        Some(now) => Ok(Rotation::Rotated(now)),
        None => presented_again(pool, user, hash).await,
    }
}

async fn presented_again(pool: &PgPool, (tenant, user): (TenantId, UserId), hash: &Hash) -> Result<Rotation> {
    let recent = sqlx::query!(
        r#"select s.hash as successor, clock_timestamp() as "now!"
             from refresh_token o join refresh_token s on s.hash = o.successor
            where o.tenant = $1 and o.hash = $2 and o.revoked_at is null and o.rotated_at > clock_timestamp() - make_interval(secs => $3)
              and s.rotated_at is null and s.revoked_at is null"#,
        tenant.uuid(),
        hash.as_slice(),
        GRACE_SECONDS
    )
    .fetch_optional(pool)
    .await?;
    if let Some(row) = recent {
        return Ok(Rotation::Repeated { successor: row.successor, now: row.now });
    }
    let act = Act::new(None, AuditAction::LoginRevoked, user, json!({}));
    sqlx::query!(
        "with f as (
             update refresh_token set revoked_at = clock_timestamp()
              where tenant = $1 and revoked_at is null and family = (select family from refresh_token where tenant = $1 and hash = $2)
             returning 1)
         insert into audit (tenant, id, action, target, detail) select $1, $3, $4, $5, $6 where exists (select 1 from f)",
        tenant.uuid(),
        hash.as_slice(),
        Act::id(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .execute(pool)
    .await?;
    Ok(Rotation::Reused)
}

/// Ends a login.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn revoke(pool: &PgPool, tenant: TenantId, family: Uuid) -> Result<()> {
    sqlx::query!(
        "update refresh_token set revoked_at = clock_timestamp() where tenant = $1 and family = $2 and revoked_at is null",
        tenant.uuid(),
        family
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Marks a stream ticket as used; `false` where it has been used before. What can no longer be used is forgotten in passing.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn spend_ticket(pool: &PgPool, tenant: TenantId, ticket: Uuid, usable_until: DateTime<Utc>) -> Result<bool> {
    let spent = sqlx::query!(
        "with old as (delete from spent_ticket where expires_at < clock_timestamp())
         insert into spent_ticket (id, tenant, expires_at) select $1, $2, $3 where $3 > clock_timestamp() on conflict do nothing",
        ticket,
        tenant.uuid(),
        usable_until
    )
    .execute(pool)
    .await?;
    Ok(spent.rows_affected() == 1)
}
