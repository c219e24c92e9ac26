//! One-time links of users: an invitation, a new password. A new link replaces the older one of its purpose, using it deletes it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use sqlx::PgPool;

use crate::{
    Result, StoreError,
    accept::IdempotencyKey,
    audit::Act,
    idempotency,
    tokens::Hash,
    users::{Credentials, Rol, Standing},
};

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Joining.
    Invitation,
    /// Setting a new password.
    PasswordReset,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::PasswordReset => "password_reset",
        }
    }
    /// How long a link can be used: 7 days to join, an hour to set a password.
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::Invitation => Duration::from_secs(7 * 24 * 3600),
            Self::PasswordReset => Duration::from_secs(3600),
        }
    }
    /// The state of a user that has a use for it.
    const fn state(self) -> &'static str {
        match self {
            Self::Invitation => "invited",
            Self::PasswordReset => "active",
        }
    }
}

/// A link to make.
#[derive(Debug, Clone, Copy)]
pub struct NewLink {
    /// Of its secret.
    pub hash: Hash,
    /// How long it can be used.
    pub lifetime: Duration,
}

/// Makes a link. `None`: the tenant has no such user, or one in a state that has no use for it; or a request of
/// this key made one before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn make(
    pool: &PgPool,
    tenant: TenantId,
    user: UserId,
    purpose: Purpose,
    link: &NewLink,
    act: &Act,
    key: Option<&IdempotencyKey>,
) -> Result<Option<DateTime<Utc>>> {
    let expires_at = sqlx::query_scalar!(
        "with u as materialized (
             select id from app_user
              where id = $2 and case when tenant = $1 and state = $4 then remember($1, $12, $10) else false end),
              r as (update app_user set reset_requested_at = null from u where app_user.id = u.id and $3 = 'password_reset'),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $7, $8, $9, $10, $11 from u)
         insert into user_link (app_user, purpose, tenant, hash, expires_at)
         select id, $3, $1, $5, clock_timestamp() + make_interval(secs => $6) from u
             on conflict (app_user, purpose)
             do update set hash = excluded.hash, created_at = clock_timestamp(), expires_at = excluded.expires_at
         returning expires_at",
        tenant.uuid(),
        user.uuid(),
        purpose.as_str(),
        purpose.state(),
        link.hash.as_slice(),
        link.lifetime.as_secs_f64(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail,
        idempotency::asked(key)
    )
    .fetch_optional(pool)
    .await?;
    Ok(expires_at)
}

/// Whose a link is, while it can be used. Its secret of 256 bits names the tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn holder(pool: &PgPool, hash: &Hash, purpose: Purpose) -> Result<Option<(TenantId, UserId)>> {
    let row = sqlx::query!(
        "select u.tenant, u.id from user_link l join app_user u on u.id = l.app_user join tenant t on t.id = l.tenant
          where l.hash = $1 and l.purpose = $2 and l.expires_at > clock_timestamp() and u.state = $3 and t.state = 'active'",
        hash.as_slice(),
        purpose.as_str(),
        purpose.state()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| (TenantId::from_uuid(r.tenant), UserId::from_uuid(r.id))))
}

/// Why a link was not used.
#[derive(Debug, thiserror::Error)]
pub enum UseLink {
    /// Used, replaced, expired or never made.
    #[error("the link does not count (any more)")]
    Void,
    /// Another user of the installation logs in with this address.
    #[error("another user has this e-mail address")]
    EmailTaken,
    /// Nothing was decided.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What using a link sets.
#[derive(Debug)]
pub struct Redeemed<'a> {
    /// The link's.
    pub hash: Hash,
    /// PHC string.
    pub password_hash: &'a str,
    /// Replaces what the ADMIN wrote.
    pub name: Option<&'a str>,
}

/// Uses a link of a user: the password is set, the user is active, and every older login of it is void.
///
/// # Errors
/// [`UseLink`].
pub async fn redeem(
    pool: &PgPool,
    (tenant, user): (TenantId, UserId),
    purpose: Purpose,
    new: &Redeemed<'_>,
    act: &Act,
) -> Result<Credentials, UseLink> {
    let row = sqlx::query!(
        "with l as (
             delete from user_link l using tenant t
              where l.tenant = $1 and l.app_user = $2 and l.purpose = $3 and l.hash = $5 and l.expires_at > clock_timestamp()
                and t.id = l.tenant and t.state = 'active'
             returning l.app_user),
              u as (
             update app_user u
                set password_hash = $6, state = 'active', name = coalesce($7, u.name), generation = u.generation + 1, reset_requested_at = null
               from l where u.id = l.app_user and u.tenant = $1 and u.state = $4
             returning u.rol, u.generation),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $8, $9, $10, $11, $12 from u)
         select rol, generation from u",
        tenant.uuid(),
        user.uuid(),
        purpose.as_str(),
        purpose.state(),
        new.hash.as_slice(),
        new.password_hash,
        new.name,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await;
    let row = match row {
        Ok(row) => row.ok_or(UseLink::Void)?,
        Err(sqlx::Error::Database(why)) if why.constraint() == Some("app_user_email_key") => return Err(UseLink::EmailTaken),
        Err(why) => return Err(StoreError::from(why).into()),
    };
    Ok(Credentials {
        tenant,
        user,
        rol: Rol::from_name(&row.rol).ok_or(UseLink::Void)?,
        standing: Standing::Active,
        password_hash: Some(new.password_hash.to_owned()),
        generation: row.generation,
    })
}

/// Replaces the password that was checked by a new one; every login of the user is void. `None`: it has been changed since.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn change_password(pool: &PgPool, checked: &Credentials, password_hash: &str, act: &Act) -> Result<Option<i32>> {
    let generation = sqlx::query_scalar!(
        "with u as (
             update app_user set password_hash = $4, generation = generation + 1
              where tenant = $1 and id = $2 and generation = $3 and state = 'active'
             returning generation),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $5, $6, $7, $8, $9 from u)
         select generation from u",
        checked.tenant.uuid(),
        checked.user.uuid(),
        checked.generation,
        password_hash,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    Ok(generation)
}

/// Notes that somebody who says to be this user cannot log in: its ADMINs see it. Repeated within ten minutes it changes nothing.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn forgot_password(pool: &PgPool, tenant: TenantId, user: UserId, act: &Act) -> Result<()> {
    sqlx::query!(
        "with u as (
             update app_user set reset_requested_at = clock_timestamp()
              where tenant = $1 and id = $2 and state = 'active'
                and (reset_requested_at is null or reset_requested_at < clock_timestamp() - interval '10 minutes')
             returning tenant)
         insert into audit (tenant, id, action, target, detail) select tenant, $3, $4, $5, $6 from u",
        tenant.uuid(),
        user.uuid(),
        Act::id(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .execute(pool)
    .await?;
    Ok(())
}
