//! Who sees which chats.
//!
//! Every query that shows a chat, or what hangs on one, takes a [`Viewer`] and judges by the grants of now, in SQL:
//! `($holder::uuid is null or exists (select 1 from live_grant g where g.holder = $holder and …))`. Nothing of it is cached.

use chrono::{DateTime, Utc};
use contract::{
    AccessKind, ChatId, Event, EventId, EventType, Fact, GrantId, History, JobId, KeyId, Principal, SessionId, TenantId, Timestamp, UserId,
    event::{GrantBody, GrantFact},
};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Result,
    accept::IdempotencyKey,
    audit::Act,
    idempotency,
    log::{self, Columns, NewEvent},
    snapshot::Snapshot,
};

/// In whose eyes a query looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    tenant: TenantId,
    holder: Option<Principal>,
}

impl Viewer {
    /// Who sees all of a tenant: an ADMIN, or its key without lists.
    pub const fn all(tenant: TenantId) -> Self {
        Self { tenant, holder: None }
    }
    /// Who sees what was granted to `holder`: an EMPLEADO, or a key with lists.
    pub const fn granted(tenant: TenantId, holder: Principal) -> Self {
        Self { tenant, holder: Some(holder) }
    }
    /// Whose data.
    pub const fn tenant(self) -> TenantId {
        self.tenant
    }
    /// Whether nothing is hidden.
    pub const fn sees_all(self) -> bool {
        self.holder.is_none()
    }
    /// Whose grants are asked, or none: all is seen.
    pub(crate) fn holder(self) -> Option<Uuid> {
        self.holder.map(Principal::uuid)
    }
    /// The same, as events name it.
    pub(crate) fn holder_name(self) -> Option<String> {
        self.holder.map(|h| h.to_string())
    }
    /// The key whose list of sessions limits it. People see that all sessions of their tenant exist.
    pub(crate) fn key(self) -> Option<Uuid> {
        match self.holder {
            Some(Principal::Key(key)) => Some(key.uuid()),
            Some(Principal::User(_)) | None => None,
        }
    }
}

/// What a viewer may do in a chat it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether it may send, mark read and the like.
    pub write: bool,
    /// Messages from before are hidden (`history: fromNow`).
    pub since: Option<DateTime<Utc>>,
}

/// A row of `access_grant`.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Which.
    pub id: GrantId,
    /// Whose.
    pub holder: Principal,
    /// In which session.
    pub session: SessionId,
    /// Of which chat; none: of all of the session.
    pub chat: Option<ChatId>,
    /// Whether more than reading is allowed.
    pub write: bool,
    /// From when on messages are shown; none: all.
    pub from_at: Option<DateTime<Utc>>,
    /// Until when it counts; none: until it is taken back.
    pub expires_at: Option<DateTime<Utc>>,
    /// Who gave it.
    pub created_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
}

struct Row {
    id: Uuid,
    app_user: Option<Uuid>,
    api_key: Option<Uuid>,
    session: Uuid,
    chat: Option<Uuid>,
    access: String,
    from_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    created_by: Uuid,
    created_at: DateTime<Utc>,
}

impl Row {
    fn grant(self) -> Grant {
        // The table's check allows exactly one of the two.
        let holder = match (self.app_user, self.api_key) {
            (_, Some(key)) => Principal::Key(KeyId::from_uuid(key)),
            (user, None) => Principal::User(UserId::from_uuid(user.unwrap_or_default())),
        };
        Grant {
            id: GrantId::from_uuid(self.id),
            holder,
            session: SessionId::from_uuid(self.session),
            chat: self.chat.map(ChatId::from_uuid),
            write: self.access == "write",
            from_at: self.from_at,
            expires_at: self.expires_at,
            created_by: UserId::from_uuid(self.created_by),
            created_at: self.created_at,
        }
    }
}

/// A grant to give.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// To whom.
    pub holder: Principal,
    /// In which session of the tenant.
    pub session: SessionId,
    /// Of which chat of the session; none: of all.
    pub chat: Option<ChatId>,
    /// Whether more than reading is allowed.
    pub write: bool,
    /// Whether messages from before are hidden.
    pub from_now: bool,
    /// Until when; none: until it is taken back.
    pub expires_at: Option<DateTime<Utc>>,
    /// Who gives it.
    pub created_by: UserId,
}

/// Gives a grant in place of those of the same holder and target: rows, audit and event in one statement. `None`: the tenant has no such
/// holder, session or chat; or a request of this key gave it before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn give(
    pool: &PgPool,
    tenant: TenantId,
    new: &NewGrant,
    act: &Act,
    key: Option<&IdempotencyKey>,
) -> Result<Option<(Grant, Event)>> {
    insert(pool, tenant, GrantId::new(), new, act, Give::InPlace(key)).await
}

/// Grants a chat to whoever wrote to it first with `job`, from that job on: unless it is granted, or has been granted or taken back since
/// the job was accepted. So it may be called again for a job, and gives nothing back that somebody took.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn start_chat(pool: &PgPool, tenant: TenantId, new: &NewGrant, job: JobId, act: &Act) -> Result<Option<(Grant, Event)>> {
    insert(pool, tenant, GrantId::new(), new, act, Give::WhereNone(job)).await
}

/// What a new grant does to those that are there.
#[derive(Clone, Copy)]
enum Give<'a> {
    /// It takes the place of those of the same holder and target, once a key.
    InPlace(Option<&'a IdempotencyKey>),
    /// It is not given where one covers it, or did since this job was accepted.
    WhereNone(JobId),
}

async fn insert(pool: &PgPool, tenant: TenantId, id: GrantId, new: &NewGrant, act: &Act, give: Give<'_>) -> Result<Option<(Grant, Event)>> {
    let (replaces, key_used, job) = match give {
        Give::InPlace(key) => (true, key, None),
        Give::WhereNone(job) => (false, None, Some(job.uuid())),
    };
    let (user, key) = match new.holder {
        Principal::User(id) => (Some(id.uuid()), None),
        Principal::Key(id) => (None, Some(id.uuid())),
    };
    let event = EventId::new();
    let data = json!(body(id, new));
    // WhatsApp's times are whole seconds, and so is the one from which on messages are shown. A grant that was taken back leaves no row of
    // its own: the audit log tells.
    let row = sqlx::query!(
        r#"with target as (
               select date_trunc('second', coalesce(
                      (select j.created_at from job j where j.tenant = $1 and j.id = $21), clock_timestamp())) as now
                 from session s
                where s.id = $5 and case when s.tenant = $1 and s.deleting_at is null and ($6::uuid is null or exists (
                      select 1 from chat c where c.tenant = $1 and c.session = $5 and c.id = $6 and c.merged_into is null))
                  and (exists (select 1 from app_user u where u.tenant = $1 and u.id = $3)
                       or exists (select 1 from api_key k where k.tenant = $1 and k.id = $4 and k.revoked_at is null))
                  and ($11 or not exists (
                      select 1 from live_grant g
                       where g.tenant = $1 and g.holder = coalesce($3, $4) and g.session = $5 and (g.all_chats or g.chat = $6)))
                  and ($21::uuid is null or exists (
                      select 1 from job j
                       where j.tenant = $1 and j.session = $5 and j.id = $21
                         and not exists (
                             select 1 from access_grant g
                              where g.tenant = $1 and g.holder = coalesce($3, $4) and g.session = $5 and (g.all_chats or g.chat = $6)
                                and (g.expires_at is null or g.expires_at > j.created_at))
                         and not exists (
                             select 1 from audit a
                              where a.tenant = $1 and a.at >= j.created_at and a.action in ('grant.created', 'grant.deleted')
                                and a.detail ->> 'holder' = $22 and a.detail ->> 'session' = $23
                                and (a.detail ->> 'chat' is null or a.detail ->> 'chat' = $24))))
                  then remember($1, $20, $15) else false end),
                old as (
               delete from access_grant g using target
                where $11 and g.tenant = $1 and g.holder = coalesce($3, $4) and g.session = $5 and g.chat is not distinct from $6
                  and g.label is null),
                new as (
               insert into access_grant (id, tenant, app_user, api_key, session, chat, all_chats, access, from_at, expires_at, created_by)
               select $2, $1, $3, $4, $5, $6, $6 is null, $7, case when $8 then now end, $9, $10 from target
               returning from_at, created_at),
                a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $12, $13, $14, $15, $16 from new),
                c as (
               update tenant_counter set seq = seq + 1 from new where tenant_counter.tenant = $1
               returning tenant_counter.seq, clock_timestamp() as at),
                e as (
               insert into event (tenant, seq, day, id, type, at, session, data)
               select $1, seq, (at at time zone 'UTC')::date, $17, $18, at, $5, $19 from c
               returning seq, at)
           select new.from_at, new.created_at, e.seq, e.at from new, e"#,
        tenant.uuid(),
        id.uuid(),
        user,
        key,
        new.session.uuid(),
        new.chat.map(ChatId::uuid),
        access(new.write),
        new.from_now,
        new.expires_at,
        new.created_by.uuid(),
        replaces,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        id.to_string(),
        act.detail,
        event.uuid(),
        EventType::GrantCreated.as_str(),
        data,
        idempotency::asked(key_used),
        job,
        new.holder.to_string(),
        new.session.to_string(),
        new.chat.map(|chat| chat.to_string())
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| {
        let event = Event {
            id: event,
            seq: r.seq,
            kind: EventType::GrantCreated,
            timestamp: r.at,
            tenant,
            session: Some(new.session),
            chat: None,
            data,
        };
        let grant = Grant {
            id,
            holder: new.holder,
            session: new.session,
            chat: new.chat,
            write: new.write,
            from_at: r.from_at,
            expires_at: new.expires_at,
            created_by: new.created_by,
            created_at: r.created_at,
        };
        (grant, event)
    }))
}

const fn access(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

/// The body of a grant's events. `holder` is what [`crate::events::read`] judges them by.
fn body(id: GrantId, of: &NewGrant) -> GrantBody {
    let grant = GrantFact {
        id,
        holder: of.holder,
        session: of.session,
        chat: of.chat,
        all: of.chat.is_none(),
        access: if of.write { AccessKind::Write } else { AccessKind::Read },
        history: if of.from_now { History::FromNow } else { History::All },
        expires_at: of.expires_at.map(Timestamp),
    };
    GrantBody { grant }
}

/// Takes a grant of a holder back: row, audit and event in one statement. `None`: the holder has no such grant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn take_back(pool: &PgPool, tenant: TenantId, holder: Principal, id: GrantId, act: &Act) -> Result<Option<Event>> {
    let Some(grant) = fetch(pool, tenant, holder, id).await? else { return Ok(None) };
    let body = body(
        id,
        &NewGrant {
            holder,
            session: grant.session,
            chat: grant.chat,
            write: grant.write,
            from_now: grant.from_at.is_some(),
            expires_at: grant.expires_at,
            created_by: grant.created_by,
        },
    );
    let columns = Columns::of(&[NewEvent::of(None, &Fact::GrantDeleted(body))]);
    // Which chat it was: [`start_chat`] asks.
    let mut detail = act.detail.clone();
    detail["session"] = json!(grant.session);
    detail["chat"] = json!(grant.chat);
    let rows = sqlx::query_as!(
        log::Row,
        "with g as (delete from access_grant where tenant = $1 and holder = $2 and id = $3 returning tenant, session),
              a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $4, $5, $6, $7, $8 from g),
              c as (
             update tenant_counter set seq = seq + 1 from g where tenant_counter.tenant = g.tenant
             returning tenant_counter.seq, clock_timestamp() as at, g.session)
         insert into event (tenant, seq, day, id, type, at, session, data)
         select $1, c.seq, (c.at at time zone 'UTC')::date, $9, $10, c.at, c.session, $11 from c
         returning id, seq, type as kind, at, session, chat, data",
        tenant.uuid(),
        holder.uuid(),
        id.uuid(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        detail,
        columns.ids[0],
        columns.kinds[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    Ok(log::events(rows, tenant).into_iter().next())
}

/// One grant of a user or key.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, holder: Principal, id: GrantId) -> Result<Option<Grant>> {
    let row = sqlx::query_as!(
        Row,
        "select id, app_user, api_key, session, chat, access, from_at, expires_at, created_by, created_at
           from access_grant where tenant = $1 and holder = $2 and id = $3 and label is null",
        tenant.uuid(),
        holder.uuid(),
        id.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::grant))
}

/// The grants of a user or key, oldest first, those after `after`; those whose time is over too.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, holder: Principal, after: Option<GrantId>, limit: i64) -> Result<Vec<Grant>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, app_user, api_key, session, chat, access, from_at, expires_at, created_by, created_at
           from access_grant where tenant = $1 and holder = $2 and label is null and ($3::uuid is null or id > $3) order by id limit $4",
        tenant.uuid(),
        holder.uuid(),
        after.map(GrantId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::grant).collect())
}

/// The grants that cover a chat now, those of all chats of its session included.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn of_chat(
    snapshot: &mut Snapshot,
    tenant: TenantId,
    (session, chat): (SessionId, ChatId),
    after: Option<GrantId>,
    limit: i64,
) -> Result<Vec<Grant>> {
    let rows = sqlx::query_as!(
        Row,
        "select g.id, g.app_user, g.api_key, g.session, g.chat, g.access, g.from_at, g.expires_at, g.created_by, g.created_at
           from access_grant g join live_grant l on l.id = g.id
          where g.tenant = $1 and g.session = $2 and (g.chat = $3 or g.all_chats) and ($4::uuid is null or g.id > $4)
          order by g.id limit $5",
        tenant.uuid(),
        session.uuid(),
        chat.uuid(),
        after.map(GrantId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::grant).collect())
}

/// Whether the viewer may write to every chat of a session, those to come included.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn writes_everywhere(pool: &PgPool, viewer: Viewer, session: SessionId) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select 1 from live_grant where tenant = $1 and holder = $2 and session = $3 and all_chats and writes limit 1",
        viewer.tenant().uuid(),
        viewer.holder(),
        session.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(viewer.sees_all() || found.is_some())
}
