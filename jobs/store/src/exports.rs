//! Chats that were written into files, as callers see them. Making and sweeping them: [`making`].

use chrono::{DateTime, Utc};
use contract::{ChatId, ExportId, JobId, Principal, SessionId, TenantId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, audit::Act, grants::Viewer, snapshot::Snapshot};

pub mod making;

/// A row of `export`.
#[derive(Debug, Clone)]
pub struct Export {
    /// Which.
    pub id: ExportId,
    /// Of which session.
    pub session: SessionId,
    /// Of which chat; where that has been merged, of the one that goes on.
    pub chat: ChatId,
    /// Messages from before are not in it.
    pub since: Option<DateTime<Utc>>,
    /// The job that made it.
    pub job: JobId,
    /// Who asked for it.
    pub created_by: Principal,
    /// Where it lies in the object store.
    pub object: String,
    /// Its own key, sealed.
    pub key: Vec<u8>,
    /// Bytes of the file.
    pub size: i64,
    /// Their digest.
    pub sha256: Vec<u8>,
    /// Messages in it.
    pub messages: i64,
    /// What was recorded later is not in it.
    pub snapshot_at: DateTime<Utc>,
    /// When it was there.
    pub created_at: DateTime<Utc>,
    /// Until when it is kept.
    pub expires_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    session: Uuid,
    chat: Uuid,
    since: Option<DateTime<Utc>>,
    job: Uuid,
    created_by: Uuid,
    by_key: bool,
    object: String,
    key: Vec<u8>,
    size: i64,
    sha256: Vec<u8>,
    messages: i64,
    snapshot_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl Row {
    fn export(self) -> Export {
        Export {
            id: ExportId::from_uuid(self.id),
            session: SessionId::from_uuid(self.session),
            chat: ChatId::from_uuid(self.chat),
            since: self.since,
            job: JobId::from_uuid(self.job),
            created_by: Principal::of(self.created_by, self.by_key),
            object: self.object,
            key: self.key,
            size: self.size,
            sha256: self.sha256,
            messages: self.messages,
            snapshot_at: self.snapshot_at,
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }
}

/// An export that the viewer sees: its chat is granted now, and as far back as the export goes. (That an EMPLEADO sees none is the
/// operation's rule.)
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, viewer: Viewer, id: ExportId) -> Result<Option<Export>> {
    let row = sqlx::query_as!(
        Row,
        r#"select x.id, x.session, c.id as chat, x.since, x.job, x.created_by,
                  exists (select 1 from api_key k where k.id = x.created_by and k.tenant = $1) as "by_key!",
                  x.object, x.key, x.size, x.sha256, x.messages, x.snapshot_at, x.created_at, x.expires_at
             from export x join session s on s.id = x.session and s.deleting_at is null
                  join chat named on named.id = x.chat join chat c on c.id = coalesce(named.merged_into, named.id)
            where x.tenant = $1 and x.id = $2 and x.expires_at > clock_timestamp()
              and ($3::uuid is null or c.account = coalesce(s.account, '') and exists (
                   select 1 from live_grant g
                    where g.tenant = $1 and g.holder = $3 and g.session = x.session and (g.chat = c.id or g.all_chats)
                      and (g.from_at is null or g.from_at <= x.since)))"#,
        viewer.tenant().uuid(),
        id.uuid(),
        viewer.holder()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::export))
}

/// Which exports a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Of one session.
    pub session: Option<SessionId>,
    /// Of one chat, by any of its ids.
    pub chat: Option<ChatId>,
    /// Asked for before this one.
    pub before: Option<ExportId>,
}

/// The exports that the viewer sees, newest first: [`fetch`].
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, viewer: Viewer, filter: Filter, limit: i64) -> Result<Vec<Export>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select x.id, x.session, c.id as chat, x.since, x.job, x.created_by,
                  exists (select 1 from api_key k where k.id = x.created_by and k.tenant = $1) as "by_key!",
                  x.object, x.key, x.size, x.sha256, x.messages, x.snapshot_at, x.created_at, x.expires_at
             from export x join session s on s.id = x.session and s.deleting_at is null
                  join chat named on named.id = x.chat join chat c on c.id = coalesce(named.merged_into, named.id)
            where x.tenant = $1 and x.expires_at > clock_timestamp() and ($4::uuid is null or x.session = $4)
              and ($5::uuid is null or c.id in (select $5::uuid union select coalesce(n.merged_into, n.id) from chat n where n.id = $5))
              and ($6::uuid is null or x.id < $6)
              and ($2::uuid is null or c.account = coalesce(s.account, '') and exists (
                   select 1 from live_grant g
                    where g.tenant = $1 and g.holder = $2 and g.session = x.session and (g.chat = c.id or g.all_chats)
                      and (g.from_at is null or g.from_at <= x.since)))
            order by x.id desc limit $3"#,
        viewer.tenant().uuid(),
        viewer.holder(),
        limit,
        filter.session.map(SessionId::uuid),
        filter.chat.map(ChatId::uuid),
        filter.before.map(ExportId::uuid)
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::export).collect())
}

/// Takes an export away, with its key. The caller has looked whether it may. Answers where its object lies; `None`: it is gone.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn delete(pool: &PgPool, tenant: TenantId, id: ExportId, act: &Act) -> Result<Option<String>> {
    let object = sqlx::query_scalar!(
        "with x as (delete from export where tenant = $1 and id = $2 returning object),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $3, $4, $5, $6, $7 from x)
         select object from x",
        tenant.uuid(),
        id.uuid(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    Ok(object)
}

/// Whether the tenant has as many exports as it may have, those that are being made included. What comes at the same moment is not seen: this
/// protects machines, not people.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn is_full(pool: &PgPool, tenant: TenantId) -> Result<bool> {
    let full = sqlx::query_scalar!(
        r#"select (select count(*) from export where tenant = $1 and expires_at > clock_timestamp())
                + (select count(*) from job where tenant = $1 and lane = 'background' and kind = 'exportChat' and state in ('queued', 'running'))
               >= limit_of($1, 'exports') as "full""#,
        tenant.uuid()
    )
    .fetch_one(pool)
    .await?;
    Ok(full == Some(true))
}

/// Takes away the exports that may hold something of a person, in one session or in all: those of its chats, under whatever ids those were
/// merged, and those of groups, where nobody can tell any more who wrote what is gone. Those that are being made are let go of, and begin again
/// with what is left. To be called once messages and names are erased: what was exported before that is found here, and what is exported after it
/// does not have them. Answers where the objects lie: nobody can read them any more, for the keys are gone.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn remove_of_person(pool: &PgPool, tenant: TenantId, session: Option<SessionId>, chats: &[Uuid]) -> Result<Vec<String>> {
    // First these: whoever made one of them can write its row no more, or has written it, and then it is seen below.
    sqlx::query!(
        "update job set claim = null, claimed_until = null where tenant = $1 and lane = 'background' and kind = 'exportChat' and state = 'running'",
        tenant.uuid()
    )
    .execute(pool)
    .await?;
    let objects = sqlx::query_scalar!(
        "delete from export x using chat named
          where x.tenant = $1 and named.id = x.chat and ($2::uuid is null or x.session = $2)
            and (named.kind <> 'private' or exists (
                 select 1 from chat e where e.id = any($3) and e.tenant = $1
                    and coalesce(e.merged_into, e.id) = coalesce(named.merged_into, named.id)))
         returning x.object",
        tenant.uuid(),
        session.map(SessionId::uuid),
        chats
    )
    .fetch_all(pool)
    .await?;
    Ok(objects)
}
