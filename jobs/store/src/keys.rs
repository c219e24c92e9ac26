//! API keys: of machines, made by an ADMIN, never mightier than it is now.

use chrono::{DateTime, Utc};
use contract::{ChatId, GrantId, KeyId, Scope, SessionId, TenantId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Result,
    accept::IdempotencyKey,
    audit::Act,
    grants::Viewer,
    idempotency,
    snapshot::Snapshot,
    tokens::Hash,
    users::{Rol, Standing},
};

/// A key as its tenant's ADMINs see it. The secret is known to nobody.
#[derive(Debug, Clone)]
pub struct Key {
    /// Which.
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// The only sessions it reaches; none: all.
    pub sessions: Option<Vec<SessionId>>,
    /// Whether it reaches only what is granted to it.
    pub limited: bool,
    /// From where it may be used; none: from everywhere.
    pub cidrs: Option<Vec<String>>,
    /// Until when.
    pub expires_at: Option<DateTime<Utc>>,
    /// Since when no more.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    sessions: Option<Vec<Uuid>>,
    limited: bool,
    cidrs: Option<Vec<String>>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    created_by: Uuid,
    created_at: DateTime<Utc>,
}

impl Row {
    fn key(self) -> Key {
        Key {
            id: KeyId::from_uuid(self.id),
            name: self.name,
            scopes: scopes(&self.scopes),
            sessions: self.sessions.map(|all| all.into_iter().map(SessionId::from_uuid).collect()),
            limited: self.limited,
            cidrs: self.cidrs,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
            created_by: UserId::from_uuid(self.created_by),
            created_at: self.created_at,
        }
    }
}

fn scopes(names: &[String]) -> Vec<Scope> {
    names.iter().filter_map(|n| Scope::from_name(n)).collect()
}

/// A key to make.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// Its id.
    pub id: KeyId,
    /// Of its secret.
    pub hash: Hash,
    /// What it is for.
    pub name: &'a str,
    /// What it may be used for.
    pub scopes: &'a [Scope],
    /// The only sessions it reaches; none: all.
    pub sessions: Option<&'a [SessionId]>,
    /// The only chats it reaches, to read and write; none: all of its sessions.
    pub chats: Option<&'a [ChatId]>,
    /// From where it may be used; none: from everywhere.
    pub cidrs: Option<&'a [String]>,
    /// Until when.
    pub expires_at: Option<DateTime<Utc>>,
    /// Who makes it.
    pub created_by: UserId,
}

/// Makes a key with what is granted to it, in one statement. A chat list grants those chats; a session list without one, all chats of the
/// sessions. `None`: one of the sessions or chats is not the tenant's, or a chat is of none of the sessions, or the maker is no ADMIN any more; or a request
/// of this idempotency key made one before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn create(pool: &PgPool, tenant: TenantId, new: &NewKey<'_>, act: &Act, once: Option<&IdempotencyKey>) -> Result<Option<Key>> {
    let sessions: Option<Vec<Uuid>> = new.sessions.map(|all| all.iter().map(|s| s.uuid()).collect());
    let chats: Option<Vec<Uuid>> = new.chats.map(|all| all.iter().map(|c| c.uuid()).collect());
    let grants: Vec<Uuid> = (0..chats.as_ref().or(sessions.as_ref()).map_or(0, Vec::len)).map(|_| GrantId::new().uuid()).collect();
    let names: Vec<String> = new.scopes.iter().map(|s| s.as_str().to_owned()).collect();
    let done = sqlx::query_scalar!(
        r#"with k as (
               insert into api_key (id, tenant, created_by, name, secret_hash, scopes, sessions, limited, cidrs, expires_at)
               select $2, $1, $3, $4, $5, $6, $7, $7::uuid[] is not null or $8::uuid[] is not null, $9::text[]::cidr[], $10
                where case when exists (select 1 from app_user u where u.tenant = $1 and u.id = $3 and u.rol = 'ADMIN' and u.state = 'active')
                  and not exists (select 1 from unnest($7::uuid[]) x (id)
                                   where not exists (select 1 from session s where s.tenant = $1 and s.id = x.id and s.deleting_at is null))
                  and not exists (select 1 from unnest($8::uuid[]) x (id)
                                   where not exists (select 1 from chat c where c.tenant = $1 and c.id = x.id and c.merged_into is null
                                                        and ($7::uuid[] is null or c.session = any($7))))
                           then remember($1, $17, $15) else false end
               returning id),
              g as (
               insert into access_grant (id, tenant, api_key, session, chat, all_chats, access, created_by)
               select x.grant_id, $1, k.id, coalesce(c.session, x.id), c.id, c.id is null, 'write', $3
                 from k, unnest(coalesce($8::uuid[], $7::uuid[]), $11::uuid[]) x (id, grant_id)
                 left join chat c on c.tenant = $1 and c.id = x.id and $8::uuid[] is not null),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $12, $13, $14, $15, $16 from k)
           select id from k"#,
        tenant.uuid(),
        new.id.uuid(),
        new.created_by.uuid(),
        new.name,
        new.hash.as_slice(),
        &names,
        sessions.as_deref(),
        chats.as_deref(),
        new.cidrs,
        new.expires_at,
        &grants,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail,
        idempotency::asked(once)
    )
    .fetch_optional(pool)
    .await?;
    match done {
        Some(_) => fetch(pool, tenant, new.id).await,
        None => Ok(None),
    }
}

/// One key of a tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, key: KeyId) -> Result<Option<Key>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, name, scopes, sessions, limited, cidrs::text[] as "cidrs", expires_at, revoked_at, last_used_at, created_by, created_at
             from api_key where tenant = $1 and id = $2"#,
        tenant.uuid(),
        key.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::key))
}

/// A tenant's keys, oldest first, those after `after`; revoked ones too.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, after: Option<KeyId>, limit: i64) -> Result<Vec<Key>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, name, scopes, sessions, limited, cidrs::text[] as "cidrs", expires_at, revoked_at, last_used_at, created_by, created_at
             from api_key where tenant = $1 and ($2::uuid is null or id > $2) order by id limit $3"#,
        tenant.uuid(),
        after.map(KeyId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::key).collect())
}

/// Revokes a key. `None`: the tenant has no such key; `false`: it had been revoked.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn revoke(pool: &PgPool, tenant: TenantId, key: KeyId, act: &Act) -> Result<Option<bool>> {
    let row = sqlx::query!(
        r#"with k as (
               update api_key set revoked_at = clock_timestamp() where tenant = $1 and id = $2 and revoked_at is null returning id),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $3, $4, $5, $6, $7 from k)
           select exists (select 1 from k) as "now!" from api_key where tenant = $1 and id = $2"#,
        tenant.uuid(),
        key.uuid(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| r.now))
}

/// How far a key reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// As far as its maker.
    Tenant,
    /// The sessions of its list, and in them what is granted to it.
    Sessions,
    /// The chats that are granted to it.
    Chats,
}

/// What each request asks about a key.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whose.
    pub tenant: TenantId,
    /// Who made it: it reaches nothing that its maker does not reach now.
    pub maker: UserId,
    /// The maker's role of now.
    pub rol: Rol,
    /// Whether the maker and the tenant are in order.
    pub standing: Standing,
    /// Whether it has been revoked.
    pub revoked: bool,
    /// Until when it counts.
    pub expires_at: Option<DateTime<Utc>>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// What it reaches.
    pub reach: Reach,
    /// From where it may be used.
    pub cidrs: Option<Vec<String>>,
    /// When this was read.
    pub now: DateTime<Utc>,
}

/// How keys are, in the order in which they are asked for, and that they are being used (written at most once a minute). The hash is a secret of
/// 256 bits: with the id it names its tenant. `None`: no such key.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn statuses(pool: &PgPool, of: &[(KeyId, Hash)]) -> Result<Vec<Option<Status>>> {
    let ids: Vec<Uuid> = of.iter().map(|(id, _)| id.uuid()).collect();
    let hashes: Vec<Vec<u8>> = of.iter().map(|(_, hash)| hash.to_vec()).collect();
    let rows = sqlx::query!(
        r#"select a.o as "o!", k.tenant, k.created_by, u.rol, u.state, t.state as tenant_state, k.revoked_at is not null as "revoked!",
                  k.expires_at, k.scopes, k.limited, k.sessions is not null as "listed!", k.cidrs::text[] as cidrs,
                  clock_timestamp() as "now!", k.last_used_at is null or k.last_used_at < clock_timestamp() - interval '1 minute' as "note!"
             from unnest($1::uuid[], $2::bytea[]) with ordinality as a (id, hash, o)
             join api_key k on k.id = a.id and k.secret_hash = a.hash
             join app_user u on u.id = k.created_by and u.tenant = k.tenant join tenant t on t.id = k.tenant"#,
        &ids,
        &hashes
    )
    .fetch_all(pool)
    .await?;
    let mut all = vec![None; of.len()];
    let (mut used, mut tenants) = (Vec::new(), Vec::new());
    for row in rows {
        let Some(at) = usize::try_from(row.o - 1).ok().filter(|at| *at < of.len()) else { continue };
        if row.note && !row.revoked {
            used.push(ids[at]);
            tenants.push(row.tenant);
        }
        let Some(rol) = Rol::from_name(&row.rol) else { continue };
        all[at] = Some(Status {
            tenant: TenantId::from_uuid(row.tenant),
            maker: UserId::from_uuid(row.created_by),
            rol,
            standing: Standing::of(&row.state, &row.tenant_state),
            revoked: row.revoked,
            expires_at: row.expires_at,
            scopes: scopes(&row.scopes),
            reach: match (row.limited, row.listed) {
                (false, _) => Reach::Tenant,
                (true, true) => Reach::Sessions,
                (true, false) => Reach::Chats,
            },
            cidrs: row.cidrs,
            now: row.now,
        });
    }
    note_use(pool, &tenants, &used).await?;
    Ok(all)
}

async fn note_use(pool: &PgPool, tenants: &[Uuid], keys: &[Uuid]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    // In the order of their ids, so that two processes that note the same do not wait for each other in a ring.
    sqlx::query!(
        "with used as (
             select k.id from api_key k join unnest($1::uuid[], $2::uuid[]) as a (tenant, id) on k.tenant = a.tenant and k.id = a.id
              where k.last_used_at is null or k.last_used_at < clock_timestamp() - interval '1 minute'
              order by k.id for no key update of k)
         update api_key set last_used_at = clock_timestamp() from used where api_key.id = used.id",
        tenants,
        keys
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether a key's list of sessions has this one, or it has no list.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn reaches(pool: &PgPool, viewer: Viewer, session: SessionId) -> Result<bool> {
    let Some(key) = viewer.key() else { return Ok(true) };
    let found = sqlx::query_scalar!(
        "select 1 from api_key where tenant = $1 and id = $2 and (sessions is null or $3 = any(sessions))",
        viewer.tenant().uuid(),
        key,
        session.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}
