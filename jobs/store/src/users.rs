//! People, and whether their tokens still count.

use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::Result;

/// The two roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rol {
    /// Everything of its tenant.
    Admin,
    /// The chats granted to it.
    Empleado,
}

impl Rol {
    /// The name in tokens, answers and Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "ADMIN",
            Self::Empleado => "EMPLEADO",
        }
    }
    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Admin, Self::Empleado].into_iter().find(|r| r.as_str() == name)
    }
}

/// Whether a tenant's people may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Yes.
    Active,
    /// The user is not (yet, or any more) allowed in, or the tenant is being deleted.
    UserInactive,
    /// The operator suspended the tenant.
    TenantSuspended,
}

impl Standing {
    /// By the two states.
    pub(crate) fn of(user: &str, tenant: &str) -> Self {
        match (user, tenant) {
            ("active", "active") => Self::Active,
            ("active", "suspended") => Self::TenantSuspended,
            _ => Self::UserInactive,
        }
    }
}

/// What a login compares.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Whose.
    pub tenant: TenantId,
    /// Who.
    pub user: UserId,
    /// Its role.
    pub rol: Rol,
    /// Whether it may work.
    pub standing: Standing,
    /// PHC string; none before an invitation was accepted.
    pub password_hash: Option<String>,
}

/// The user of an e-mail address, whatever its case.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn credentials(pool: &PgPool, email: &str) -> Result<Option<Credentials>> {
    let row = sqlx::query!(
        "select u.id, u.tenant, u.rol, u.state, t.state as tenant_state, u.password_hash
           from app_user u join tenant t on t.id = u.tenant where lower(u.email) = lower($1)",
        email
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| {
        Some(Credentials {
            tenant: TenantId::from_uuid(r.tenant),
            user: UserId::from_uuid(r.id),
            rol: Rol::from_name(&r.rol)?,
            standing: Standing::of(&r.state, &r.tenant_state),
            password_hash: r.password_hash,
        })
    }))
}

/// What each request asks about the holder of an access token.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// The role of now, whatever the token says.
    pub rol: Rol,
    /// Whether it may work.
    pub standing: Standing,
    /// Whether the login that the token came from has been neither logged out nor voided by a change of password or role.
    pub login_live: bool,
    /// When this was read, by the database's clock: token lifetimes are judged by it.
    pub now: DateTime<Utc>,
}

/// The standing of a user and of the login (`family`) a token came from. `None`: no such user.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn status(pool: &PgPool, tenant: TenantId, user: UserId, family: Uuid) -> Result<Option<Status>> {
    let row = sqlx::query!(
        r#"select u.rol, u.state, t.state as tenant_state, clock_timestamp() as "now!",
                  exists (select 1 from refresh_token r
                           where r.family = $3 and r.tenant = $1 and r.app_user = $2 and r.revoked_at is null
                             and r.issued_at >= u.tokens_valid_from) as "live!"
             from app_user u join tenant t on t.id = u.tenant where u.tenant = $1 and u.id = $2"#,
        tenant.uuid(),
        user.uuid(),
        family
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| {
        Some(Status { rol: Rol::from_name(&r.rol)?, standing: Standing::of(&r.state, &r.tenant_state), login_live: r.live, now: r.now })
    }))
}

/// A user as it sees itself.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Who.
    pub id: UserId,
    /// Login name.
    pub email: String,
    /// Shown to colleagues.
    pub name: String,
    /// Its role.
    pub rol: Rol,
    /// Its tenant's name.
    pub tenant_name: String,
}

/// Reads one user of a tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn profile(pool: &PgPool, tenant: TenantId, user: UserId) -> Result<Option<Profile>> {
    let row = sqlx::query!(
        "select u.email, u.name, u.rol, t.name as tenant_name from app_user u join tenant t on t.id = u.tenant where u.tenant = $1 and u.id = $2",
        tenant.uuid(),
        user.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| Some(Profile { id: user, email: r.email, name: r.name, rol: Rol::from_name(&r.rol)?, tenant_name: r.tenant_name })))
}
