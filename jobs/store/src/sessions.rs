//! Sessions as their tenant sees them. What is `wanted` is written here; all else by the owner, under `held`.

use chrono::{DateTime, Utc};
use contract::{
    Event, EventId, EventType, HostId, Reason, SessionId, SessionSettings, SessionState, Signal, TenantId, event::LinkedAccount,
};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::{Result, StoreError, accept::IdempotencyKey, grants::Viewer, idempotency, owned, snapshot::Snapshot};

/// A row of `session`.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub tenant: TenantId,
    /// Unique within the tenant.
    pub name: String,
    /// Whether the short routes mean it.
    pub is_default: bool,
    /// What it is doing.
    pub state: SessionState,
    /// Why.
    pub reason: Option<Reason>,
    /// Since when.
    pub state_at: DateTime<Utc>,
    /// The linked account's phone digits.
    pub account: Option<String>,
    /// Its LID.
    pub account_lid: Option<String>,
    /// Its name.
    pub account_name: Option<String>,
    /// The only account that may be linked, as phone digits.
    pub expected_account: Option<String>,
    /// What its tenant has set.
    pub settings: SessionSettings,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

impl Session {
    /// The account that new chats belong to; empty before the first link.
    pub fn account(&self) -> &str {
        self.account.as_deref().unwrap_or_default()
    }
}

/// How a caller names a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By its id.
    Id(SessionId),
    /// By its name.
    Name(String),
    /// The one that the short routes mean.
    Default,
}

struct Row {
    id: uuid::Uuid,
    name: String,
    is_default: bool,
    state: String,
    reason: Option<String>,
    state_at: DateTime<Utc>,
    account: Option<String>,
    account_lid: Option<String>,
    account_name: Option<String>,
    expected_account: Option<String>,
    settings: Value,
    created_at: DateTime<Utc>,
}

impl Row {
    fn session(self, tenant: TenantId) -> Session {
        Session {
            id: SessionId::from_uuid(self.id),
            tenant,
            name: self.name,
            is_default: self.is_default,
            // The table's check allows no other name.
            state: SessionState::from_name(&self.state).unwrap_or(SessionState::Failed),
            reason: self.reason.as_deref().and_then(Reason::from_name),
            state_at: self.state_at,
            account: self.account,
            account_lid: self.account_lid,
            account_name: self.account_name,
            expected_account: self.expected_account,
            // Written by us only; what does not read back is at its default.
            settings: serde_json::from_value(self.settings).unwrap_or_default(),
            created_at: self.created_at,
        }
    }
}

/// The tenant's session of that id or name.
///
/// # Errors
/// [`StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, named: &Named) -> Result<Option<Session>> {
    let (id, name, default) = match named {
        Named::Id(id) => (Some(id.uuid()), None, false),
        Named::Name(name) => (None, Some(name.as_str()), false),
        Named::Default => (None, None, true),
    };
    let row = sqlx::query_as!(
        Row,
        "select id, name, is_default, state, reason, state_at, account, account_lid, account_name, expected_account, settings, created_at
           from session where tenant = $1 and deleting_at is null and (id = $2 or name = $3 or $4 and is_default)",
        tenant.uuid(),
        id,
        name,
        default
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| r.session(tenant)))
}

/// The sessions that the viewer sees, oldest first, those after `after`: all of its tenant, or those of the key's list.
///
/// # Errors
/// [`StoreError`].
pub async fn list(snapshot: &mut Snapshot, viewer: Viewer, after: Option<SessionId>, limit: i64) -> Result<Vec<Session>> {
    let connection: &mut PgConnection = snapshot.connection();
    let rows = sqlx::query_as!(
        Row,
        "select id, name, is_default, state, reason, state_at, account, account_lid, account_name, expected_account, settings, created_at
           from session where tenant = $1 and deleting_at is null and ($2::uuid is null or id > $2)
            and ($4::uuid is null or exists (
                 select 1 from api_key k where k.tenant = $1 and k.id = $4 and (k.sessions is null or session.id = any(k.sessions))))
          order by id limit $3",
        viewer.tenant().uuid(),
        after.map(SessionId::uuid),
        limit,
        viewer.key()
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|r| r.session(viewer.tenant())).collect())
}

/// Why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateSession {
    /// The tenant has one of that name.
    #[error("the tenant has a session of this name")]
    NameTaken,
    /// Nothing was decided.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session to create.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// Unique within the tenant.
    pub name: &'a str,
    /// The only account that may be linked, as phone digits.
    pub expected_account: Option<&'a str>,
    /// What its tenant sets.
    pub settings: SessionSettings,
}

/// Creates a session, stopped, with its position counter. `None`: a request of this key did before.
///
/// # Errors
/// [`CreateSession`].
pub async fn create(
    pool: &PgPool,
    tenant: TenantId,
    new: NewSession<'_>,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Session>, CreateSession> {
    let id = SessionId::new();
    let row = sqlx::query_as!(
        Row,
        "with s as (
             insert into session (id, tenant, name, expected_account, settings) select $1, $2, $3, $4, $5 where remember($2, $6, $7)
             returning id, name, is_default, state, reason, state_at, account, account_lid, account_name, expected_account, settings, created_at),
             p as (insert into lane_position (session, tenant) select id, $2 from s)
         select * from s",
        id.uuid(),
        tenant.uuid(),
        new.name,
        new.expected_account,
        json!(new.settings),
        idempotency::asked(key),
        id.to_string()
    )
    .fetch_optional(pool)
    .await;
    match row {
        Ok(row) => Ok(row.map(|row| row.session(tenant))),
        Err(why) if is_taken(&why) => Err(CreateSession::NameTaken),
        Err(why) => Err(StoreError::from(why).into()),
    }
}

fn is_taken(why: &sqlx::Error) -> bool {
    matches!(why, sqlx::Error::Database(why) if why.constraint() == Some("session_tenant_name_key"))
}

/// What a tenant changes of a session; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// A new name.
    pub name: Option<String>,
    /// Another account to expect, or none any more.
    pub expected_account: Option<Option<String>>,
    /// All settings.
    pub settings: Option<SessionSettings>,
    /// It becomes the default; the one that was is none any more.
    pub make_default: bool,
}

/// Changes a session. `None`: the tenant has no such session (any more).
///
/// # Errors
/// [`CreateSession`].
pub async fn change(pool: &PgPool, tenant: TenantId, session: SessionId, change: &Change) -> Result<Option<Session>, CreateSession> {
    let row = sqlx::query_as!(
        Row,
        r#"update session set name = coalesce($3, name),
                  expected_account = case when $4 then $5 else expected_account end,
                  settings = coalesce($6, settings)
            where id = $1 and tenant = $2 and deleting_at is null
           returning id, name, is_default, state, reason, state_at, account, account_lid, account_name, expected_account, settings, created_at"#,
        session.uuid(),
        tenant.uuid(),
        change.name,
        change.expected_account.is_some(),
        change.expected_account.clone().flatten(),
        change.settings.map(|s| json!(s))
    )
    .fetch_optional(pool)
    .await;
    let row = match row {
        Ok(row) => row,
        Err(why) if is_taken(&why) => return Err(CreateSession::NameTaken),
        Err(why) => return Err(StoreError::from(why).into()),
    };
    match row {
        Some(row) if change.make_default && !row.is_default => Ok(make_default(pool, tenant, session).await?),
        row => Ok(row.map(|row| row.session(tenant))),
    }
}

/// One statement: the count makes the old default go before the new one comes, which the unique index demands of every instant. Both rows
/// are locked first, in one order for all, and the old default goes only if the new one is still there.
async fn make_default(pool: &PgPool, tenant: TenantId, session: SessionId) -> Result<Option<Session>> {
    loop {
        let done = sqlx::query!(
            "with locked as (
                 select id from session
                  where tenant = $1 and (is_default or id = $2 and deleting_at is null) order by id for no key update),
                  target as (select id from locked where id = $2),
                  off as (
                 update session set is_default = false from target
                  where session.tenant = $1 and session.is_default and session.id <> target.id
                 returning 1)
             update session set is_default = true from target
              where session.id = target.id and session.deleting_at is null and (select count(*) from off) >= 0",
            tenant.uuid(),
            session.uuid()
        )
        .execute(pool)
        .await;
        match done {
            Ok(_) => return fetch(pool, tenant, &Named::Id(session)).await,
            // Two were made the default at the same moment: the later one sees the other now.
            Err(sqlx::Error::Database(why)) if why.constraint() == Some("session_default_key") => {}
            Err(why) => return Err(why.into()),
        }
    }
}

/// What a tenant asks of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Run; `allow_new_account`: another account than the known one may be linked.
    Running {
        /// Said anew by each start of a session that was down.
        allow_new_account: bool,
    },
    /// Stop.
    Stopped,
}

impl Wanted {
    const fn name(self) -> &'static str {
        match self {
            Self::Running { .. } => "running",
            Self::Stopped => "stopped",
        }
    }
    const fn signal(self) -> Signal {
        match self {
            Self::Running { .. } => Signal::StartRequested,
            Self::Stopped => Signal::Stopped,
        }
    }
}

/// Writes down what is wanted. A session that is down becomes `starting` here, so that a host claims it; one that no host holds becomes
/// `stopped` here; every other change of state is its owner's. Answers the row, and the event where the state changed.
///
/// # Errors
/// [`StoreError`].
pub async fn want(pool: &PgPool, tenant: TenantId, session: SessionId, wanted: Wanted) -> Result<Option<(Session, Option<Event>)>> {
    loop {
        let Some(seen) = fetch(pool, tenant, &Named::Id(session)).await? else { return Ok(None) };
        if let Some(event) = write_wanted(pool, &seen, wanted).await? {
            let row = fetch(pool, tenant, &Named::Id(session)).await?;
            return Ok(row.map(|row| (row, event)));
        }
        // The owner changed the state in between: the transition is computed from what is there now.
    }
}

/// `None`: the state is no longer the one that was seen.
async fn write_wanted(pool: &PgPool, seen: &Session, wanted: Wanted) -> Result<Option<Option<Event>>> {
    let next = seen.state.next(wanted.signal());
    let (state, reason) = next.map_or((seen.state, seen.reason), |(state, reason)| (state, reason));
    let new_account = matches!(wanted, Wanted::Running { allow_new_account: true });
    let event = EventId::new();
    let data = status_data(seen, state, reason);
    let row = sqlx::query!(
        r#"with s as (
               select id, $6 and ($4 = 'running' or owner is null) as moves from session
                where id = $1 and tenant = $2 and state = $3 and deleting_at is null for no key update),
               u as (
               update session set wanted = $4,
                      allow_new_account = case when s.moves then $5 when $4 = 'running' then allow_new_account or $5 else allow_new_account end,
                      state = case when s.moves then $7 else state end,
                      reason = case when s.moves then $8 else reason end,
                      state_at = case when s.moves then clock_timestamp() else state_at end
                 from s where session.id = s.id
               returning s.moves),
               c as (
               update tenant_counter set seq = seq + 1 from u where tenant = $2 and u.moves returning seq, clock_timestamp() as at),
               e as (
               insert into event (tenant, seq, day, id, type, at, session, data)
               select $2, seq, (at at time zone 'UTC')::date, $9, $10, at, $1, $11 from c
               returning seq, at)
           select e.seq as "seq?", e.at as "at?" from u left join e on true"#,
        seen.id.uuid(),
        seen.tenant.uuid(),
        seen.state.as_str(),
        wanted.name(),
        new_account,
        next.is_some(),
        state.as_str(),
        reason.map(Reason::as_str),
        event.uuid(),
        EventType::SessionStatus.as_str(),
        data
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| {
        Some(Event {
            id: event,
            seq: r.seq?,
            kind: EventType::SessionStatus,
            timestamp: r.at?,
            tenant: seen.tenant,
            session: Some(seen.id),
            chat: None,
            data,
        })
    }))
}

/// The body of a `session.status` event.
fn status_data(session: &Session, state: SessionState, reason: Option<Reason>) -> Value {
    let (lid, name) = (session.account_lid.clone(), session.account_name.clone());
    let me = session.account.clone().map(|phone| LinkedAccount { phone, lid, name });
    owned::status(state, reason, me).data()
}

/// Sessions of all tenants that have been without a host for `after` and do not say so yet: those that were never taken, and those whose host
/// is not among the `living`. With the major version that a host's browser must have to open its profile.
///
/// # Errors
/// [`StoreError`].
pub async fn waiting_for_capacity(pool: &PgPool, after: std::time::Duration, living: &[HostId]) -> Result<Vec<(TenantId, SessionId, i32)>> {
    let living: Vec<_> = living.iter().map(|h| h.uuid()).collect();
    let rows = sqlx::query!(
        "select tenant, id, profile_major from session
          where state in ('starting', 'linking', 'syncing', 'working', 'reconnecting') and wanted = 'running' and deleting_at is null
            and (owner is null or host is null or host <> all($2)) and (held_until is null or held_until < clock_timestamp())
            and reason is distinct from 'capacity'
            and state_at <= clock_timestamp() - make_interval(secs => $1)",
        after.as_secs_f64(),
        &living
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), SessionId::from_uuid(r.id), r.profile_major)).collect())
}

/// Says that a session waits for a free slot. `None`: it does not wait any more.
///
/// # Errors
/// [`StoreError`].
pub async fn lacks_capacity(pool: &PgPool, tenant: TenantId, session: SessionId, living: &[HostId]) -> Result<Option<Event>> {
    let Some(seen) = fetch(pool, tenant, &Named::Id(session)).await? else { return Ok(None) };
    let Some((state, reason)) = seen.state.next(Signal::NoCapacity) else { return Ok(None) };
    let living: Vec<_> = living.iter().map(|h| h.uuid()).collect();
    let (id, data) = (EventId::new(), status_data(&seen, state, reason));
    let row = sqlx::query!(
        r#"with s as (
               update session set state = $3, reason = $4, state_at = case when state = $3 then state_at else clock_timestamp() end,
                      worked_until = case when state = 'working' then state_at else worked_until end
                where id = $1 and tenant = $2 and state = $5 and deleting_at is null
                  and (owner is null or host is null or host <> all($6)) and (held_until is null or held_until < clock_timestamp())
               returning tenant),
               c as (
               update tenant_counter set seq = seq + 1 from s where tenant_counter.tenant = s.tenant returning seq, clock_timestamp() as at)
           insert into event (tenant, seq, day, id, type, at, session, data)
           select $2, seq, (at at time zone 'UTC')::date, $7, $8, at, $1, $9 from c
           returning seq, at"#,
        session.uuid(),
        tenant.uuid(),
        state.as_str(),
        reason.map(Reason::as_str),
        seen.state.as_str(),
        &living,
        id.uuid(),
        EventType::SessionStatus.as_str(),
        data
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| Event {
        id,
        seq: r.seq,
        kind: EventType::SessionStatus,
        timestamp: r.at,
        tenant,
        session: Some(session),
        chat: None,
        data,
    }))
}
