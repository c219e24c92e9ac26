//! People: those of a tenant as its ADMINs see them, and whether their tokens still count. Their one-time links: [`crate::links`].

use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, StoreError, accept::IdempotencyKey, audit::Act, idempotency, links::NewLink, snapshot::Snapshot};

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
    /// PHC string.
    pub password_hash: Option<String>,
    /// Which of the user's logins count: those that were checked against the password of now are of this generation.
    pub generation: i32,
}

/// The user of an e-mail address, whatever its case. Who has only been invited has no credentials.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn credentials(pool: &PgPool, email: &str) -> Result<Option<Credentials>> {
    let row = sqlx::query!(
        "select u.id, u.tenant, u.rol, u.state, t.state as tenant_state, u.password_hash, u.generation
           from app_user u join tenant t on t.id = u.tenant where lower(u.email) = lower($1) and u.password_hash is not null",
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
            generation: r.generation,
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
    /// Whether it may write to people whose chats were not granted to it.
    pub can_start_chats: bool,
    /// When this was read, by the database's clock: token lifetimes are judged by it.
    pub now: DateTime<Utc>,
}

/// The standings of users and of the logins (`family`) that their tokens came from, in the order in which they are asked for. `None`: no such
/// user.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn statuses(pool: &PgPool, of: &[(TenantId, UserId, Uuid)]) -> Result<Vec<Option<Status>>> {
    let tenants: Vec<Uuid> = of.iter().map(|(tenant, ..)| tenant.uuid()).collect();
    let users: Vec<Uuid> = of.iter().map(|(_, user, _)| user.uuid()).collect();
    let families: Vec<Uuid> = of.iter().map(|(.., family)| *family).collect();
    let rows = sqlx::query!(
        r#"select a.o as "o!", u.rol, u.state, u.can_start_chats, t.state as tenant_state, clock_timestamp() as "now!",
                  exists (select 1 from refresh_token r
                           where r.family = a.family and r.tenant = a.tenant and r.app_user = a.app_user and r.revoked_at is null
                             and r.generation = u.generation) as "live!"
             from unnest($1::uuid[], $2::uuid[], $3::uuid[]) with ordinality as a (tenant, app_user, family, o)
             join app_user u on u.tenant = a.tenant and u.id = a.app_user join tenant t on t.id = u.tenant"#,
        &tenants,
        &users,
        &families
    )
    .fetch_all(pool)
    .await?;
    let mut all = vec![None; of.len()];
    for row in rows {
        let place = usize::try_from(row.o - 1).ok().and_then(|at| all.get_mut(at));
        if let (Some(place), Some(rol)) = (place, Rol::from_name(&row.rol)) {
            let standing = Standing::of(&row.state, &row.tenant_state);
            *place = Some(Status { rol, standing, login_live: row.live, can_start_chats: row.can_start_chats, now: row.now });
        }
    }
    Ok(all)
}

/// A person of a tenant.
#[derive(Debug, Clone)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Login name.
    pub email: String,
    /// Shown to colleagues.
    pub name: String,
    /// `ADMIN` or `EMPLEADO`.
    pub rol: String,
    /// `invited`, `active` or `disabled`.
    pub state: String,
    /// Whether it may write to people whose chats were not granted to it.
    pub can_start_chats: bool,
    /// When it last asked for a new password without having got one.
    pub reset_requested_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Its tenant's name.
    pub tenant_name: String,
}

struct Row {
    id: Uuid,
    email: String,
    name: String,
    rol: String,
    state: String,
    can_start_chats: bool,
    reset_requested_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    tenant_name: String,
}

impl From<Row> for User {
    fn from(r: Row) -> Self {
        Self {
            id: UserId::from_uuid(r.id),
            email: r.email,
            name: r.name,
            rol: r.rol,
            state: r.state,
            can_start_chats: r.can_start_chats,
            reset_requested_at: r.reset_requested_at,
            created_at: r.created_at,
            tenant_name: r.tenant_name,
        }
    }
}

/// One user of a tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, user: UserId) -> Result<Option<User>> {
    let row = sqlx::query_as!(
        Row,
        "select u.id, u.email, u.name, u.rol, u.state, u.can_start_chats, u.reset_requested_at, u.created_at, t.name as tenant_name
           from app_user u join tenant t on t.id = u.tenant where u.tenant = $1 and u.id = $2",
        tenant.uuid(),
        user.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(User::from))
}

/// A tenant's users, oldest first, those after `after`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, after: Option<UserId>, limit: i64) -> Result<Vec<User>> {
    let rows = sqlx::query_as!(
        Row,
        "select u.id, u.email, u.name, u.rol, u.state, u.can_start_chats, u.reset_requested_at, u.created_at, t.name as tenant_name
           from app_user u join tenant t on t.id = u.tenant where u.tenant = $1 and ($2::uuid is null or u.id > $2) order by u.id limit $3",
        tenant.uuid(),
        after.map(UserId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(User::from).collect())
}

/// A user to invite.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// Its id.
    pub id: UserId,
    /// Where it will log in.
    pub email: &'a str,
    /// Shown to colleagues.
    pub name: &'a str,
    /// Its role.
    pub rol: Rol,
    /// Whether it may write to people whose chats were not granted to it.
    pub can_start_chats: bool,
}

/// Why nobody was invited.
#[derive(Debug, thiserror::Error)]
pub enum Invite {
    /// The tenant has a user of this address. That another tenant has one shows on acceptance only.
    #[error("the tenant has a user of this e-mail address")]
    EmailTaken,
    /// Nothing was decided.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates a user that can do nothing yet, and its invitation. Answers until when that can be accepted. `None`: a request of this key did
/// before.
///
/// # Errors
/// [`Invite`].
pub async fn invite(
    pool: &PgPool,
    tenant: TenantId,
    new: &NewUser<'_>,
    link: &NewLink,
    act: &Act,
    key: Option<&IdempotencyKey>,
) -> Result<Option<DateTime<Utc>>, Invite> {
    let expires_at = sqlx::query_scalar!(
        "with u as (
             insert into app_user (id, tenant, email, name, rol, can_start_chats, state)
             select $2, $1, $3, $4, $5, $6, 'invited' where remember($1, $14, $15)
             returning id),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $9, $10, $11, $12, $13 from u)
         insert into user_link (app_user, purpose, tenant, hash, expires_at)
         select id, 'invitation', $1, $7, clock_timestamp() + make_interval(secs => $8) from u
         returning expires_at",
        tenant.uuid(),
        new.id.uuid(),
        new.email,
        new.name,
        new.rol.as_str(),
        new.can_start_chats,
        link.hash.as_slice(),
        link.lifetime.as_secs_f64(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail,
        idempotency::asked(key),
        new.id.to_string()
    )
    .fetch_optional(pool)
    .await;
    match expires_at {
        Ok(at) => Ok(at),
        Err(sqlx::Error::Database(why)) if why.constraint() == Some("app_user_tenant_email_key") => Err(Invite::EmailTaken),
        Err(why) => Err(StoreError::from(why).into()),
    }
}

/// What is to be changed; nothing said, nothing changed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The name.
    pub name: Option<String>,
    /// The role.
    pub rol: Option<Rol>,
    /// Whether it may write to people whose chats were not granted to it.
    pub can_start_chats: Option<bool>,
    /// Whether it is let in. A user without a password is then as before it was disabled: invited.
    pub enabled: Option<bool>,
}

/// What became of a change.
#[derive(Debug)]
pub enum Changed {
    /// It was made.
    Done(User),
    /// It would leave the tenant without an active ADMIN.
    LastAdmin,
    /// The tenant has no such user.
    NotFound,
}

/// Changes a user. A change of role and disabling void its tokens in the same statement. ADMINs that might lose the last of them lock one
/// another, lowest id first, so that two who leave at once do not both succeed.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn change(pool: &PgPool, tenant: TenantId, user: UserId, change: &Change, act: &Act) -> Result<Changed> {
    let removes = change.rol == Some(Rol::Empleado) || change.enabled == Some(false);
    let done = sqlx::query!(
        "with admins as (
             select id from app_user where tenant = $1 and $7 and rol = 'ADMIN' and state = 'active' order by id for no key update),
              u as (
             update app_user u
                set name = coalesce($3, name), rol = coalesce($4, rol), can_start_chats = coalesce($5, can_start_chats),
                    state = case when $6::boolean is null then state when not $6 then 'disabled' when password_hash is null then 'invited' else 'active' end,
                    generation = generation + (coalesce($4 <> rol, false) or coalesce(not $6, false))::int
              where tenant = $1 and id = $2
                and (not $7 or rol <> 'ADMIN' or state <> 'active' or exists (select 1 from admins a where a.id <> u.id))
             returning id),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $8, $9, $10, $11, $12 from u),
              l as (delete from user_link l using u where l.app_user = u.id and not $6)
         select id from u",
        tenant.uuid(),
        user.uuid(),
        change.name,
        change.rol.map(Rol::as_str),
        change.can_start_chats,
        change.enabled,
        removes,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    let user = fetch(pool, tenant, user).await?;
    Ok(match (done, user) {
        (Some(_), Some(user)) => Changed::Done(user),
        (None, Some(_)) => Changed::LastAdmin,
        (_, None) => Changed::NotFound,
    })
}
