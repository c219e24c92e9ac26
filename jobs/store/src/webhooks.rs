//! Webhooks as their tenant sees and sets them. Who tells them, and what becomes of deliveries, is the worker's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{ChatId, Event, EventId, EventType, Principal, SessionId, TenantId, WebhookId, WebhookOrder, WebhookReason, WebhookState};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, accept::IdempotencyKey, audit::Act, idempotency, snapshot::Snapshot};

pub mod deliveries;
pub mod replay;

/// A webhook. Its secrets are sealed, and not part of it.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Which.
    pub id: WebhookId,
    /// What it is for.
    pub name: String,
    /// Where events go.
    pub url: String,
    /// Whether they go.
    pub state: WebhookState,
    /// Why they do not.
    pub reason: Option<WebhookReason>,
    /// Since when.
    pub state_at: DateTime<Utc>,
    /// What it is told.
    pub filter: Filter,
    /// In which order.
    pub ordered_by: WebhookOrder,
    /// How many chats at once, where it is told in the order of each.
    pub concurrency: i16,
    /// The names of the tenant's own headers.
    pub header_names: Vec<String>,
    /// Until when the secret of before signs too.
    pub previous_until: Option<DateTime<Utc>>,
    /// Everything up to here is settled or waits.
    pub cursor: i64,
    /// How many deliveries wait.
    pub waiting: i64,
    /// Since when nothing has succeeded.
    pub failing_since: Option<DateTime<Utc>>,
    /// When something last did.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When something last failed.
    pub last_failure_at: Option<DateTime<Utc>>,
    /// What that was.
    pub last_failure: Option<String>,
    /// Who made it.
    pub created_by: Principal,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Which events a webhook is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these types only; empty: of all.
    pub types: Vec<EventType>,
    /// Of these sessions only.
    pub sessions: Option<Vec<SessionId>>,
    /// Of these chats only.
    pub chats: Option<Vec<ChatId>>,
    /// Nothing of groups.
    pub ignore_groups: bool,
    /// Nothing of status updates.
    pub ignore_status: bool,
    /// No message that the account itself wrote.
    pub ignore_own: bool,
}

struct Row {
    id: Uuid,
    name: String,
    url: String,
    state: String,
    reason: Option<String>,
    state_at: DateTime<Utc>,
    types: Vec<String>,
    sessions: Option<Vec<Uuid>>,
    chats: Option<Vec<Uuid>>,
    ignore_groups: bool,
    ignore_status: bool,
    ignore_own: bool,
    ordered_by: String,
    concurrency: i16,
    header_names: Vec<String>,
    previous_until: Option<DateTime<Utc>>,
    cursor_seq: i64,
    waiting: i64,
    failing_since: Option<DateTime<Utc>>,
    last_success_at: Option<DateTime<Utc>>,
    last_failure_at: Option<DateTime<Utc>>,
    last_failure: Option<String>,
    created_by: Uuid,
    by_key: bool,
    created_at: DateTime<Utc>,
}

impl Row {
    fn webhook(self) -> Webhook {
        Webhook {
            id: WebhookId::from_uuid(self.id),
            name: self.name,
            url: self.url,
            // The table's checks allow no other names.
            state: WebhookState::from_name(&self.state).unwrap_or(WebhookState::Disabled),
            reason: self.reason.as_deref().and_then(WebhookReason::from_name),
            state_at: self.state_at,
            filter: Filter {
                types: self.types.into_iter().map(EventType::from).collect(),
                sessions: self.sessions.map(|all| all.into_iter().map(SessionId::from_uuid).collect()),
                chats: self.chats.map(|all| all.into_iter().map(ChatId::from_uuid).collect()),
                ignore_groups: self.ignore_groups,
                ignore_status: self.ignore_status,
                ignore_own: self.ignore_own,
            },
            ordered_by: WebhookOrder::from_name(&self.ordered_by).unwrap_or(WebhookOrder::Endpoint),
            concurrency: self.concurrency,
            header_names: self.header_names,
            previous_until: self.previous_until,
            cursor: self.cursor_seq,
            waiting: self.waiting,
            failing_since: self.failing_since,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            last_failure: self.last_failure,
            created_by: Principal::of(self.created_by, self.by_key),
            created_at: self.created_at,
        }
    }
}

/// Headers of the tenant's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Sealed; none: there are none.
    pub sealed: Option<Vec<u8>>,
    /// What is shown of them.
    pub names: Vec<String>,
}

/// A webhook to make.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Its id: what is sealed is sealed for it.
    pub id: WebhookId,
    /// What it is for.
    pub name: &'a str,
    /// Where events go.
    pub url: &'a str,
    /// What it is told.
    pub filter: &'a Filter,
    /// In which order.
    pub ordered_by: WebhookOrder,
    /// How many chats at once.
    pub concurrency: i16,
    /// Sealed.
    pub secret: &'a [u8],
    /// Of the tenant's own.
    pub headers: &'a Headers,
    /// Who makes it.
    pub created_by: Principal,
}

fn names(types: &[EventType]) -> Vec<String> {
    types.iter().map(|t| t.as_str().to_owned()).collect()
}
fn sessions(all: Option<&Vec<SessionId>>) -> Option<Vec<Uuid>> {
    all.map(|all| all.iter().map(|s| s.uuid()).collect())
}
fn chats(all: Option<&Vec<ChatId>>) -> Option<Vec<Uuid>> {
    all.map(|all| all.iter().map(|c| c.uuid()).collect())
}

/// Makes a webhook, active, that is told of what happens from now on. `None`: a request of this idempotency key made one before.
///
/// # Errors
/// [`crate::StoreError`]; its `quota` where the tenant has as many as it may have.
pub async fn create(
    pool: &PgPool,
    tenant: TenantId,
    new: &NewWebhook<'_>,
    act: &Act,
    once: Option<&IdempotencyKey>,
) -> Result<Option<Webhook>> {
    let (sessions, chats) = (sessions(new.filter.sessions.as_ref()), chats(new.filter.chats.as_ref()));
    let done = sqlx::query_scalar!(
        "with w as (
             insert into webhook (id, tenant, created_by, name, url, types, sessions, chats, ignore_groups, ignore_status, ignore_own, ordered_by,
                                  concurrency, secret, headers, header_names, cursor_seq)
             select $2, $1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, c.seq from tenant_counter c
              where case when c.tenant = $1 then remember($1, $17, $20) else false end
             returning id),
             a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $18, $19, $21, $20, $22 from w)
         select id from w",
        tenant.uuid(),
        new.id.uuid(),
        new.created_by.uuid(),
        new.name,
        new.url,
        &names(&new.filter.types),
        sessions.as_deref(),
        chats.as_deref(),
        new.filter.ignore_groups,
        new.filter.ignore_status,
        new.filter.ignore_own,
        new.ordered_by.as_str(),
        new.concurrency,
        new.secret,
        new.headers.sealed.as_deref(),
        &new.headers.names,
        idempotency::asked(once),
        Act::id(),
        act.actor(),
        act.target,
        act.action.as_str(),
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    match done {
        Some(_) => fetch(pool, tenant, new.id).await,
        None => Ok(None),
    }
}

/// One webhook of a tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, webhook: WebhookId) -> Result<Option<Webhook>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, name, url, state, reason, state_at, types, sessions, chats, ignore_groups, ignore_status, ignore_own, ordered_by, concurrency,
                  header_names, case when previous_until > clock_timestamp() then previous_until end as previous_until, cursor_seq,
                  (select count(*) from webhook_delivery d where d.webhook = w.id and d.state = 'waiting') as "waiting!",
                  failing_since, last_success_at, last_failure_at, last_failure, created_by,
                  exists (select 1 from api_key k where k.tenant = $1 and k.id = w.created_by) as "by_key!", created_at
             from webhook w where tenant = $1 and id = $2"#,
        tenant.uuid(),
        webhook.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::webhook))
}

/// A tenant's webhooks, oldest first, those after `after`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, after: Option<WebhookId>, limit: i64) -> Result<Vec<Webhook>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, name, url, state, reason, state_at, types, sessions, chats, ignore_groups, ignore_status, ignore_own, ordered_by, concurrency,
                  header_names, case when previous_until > clock_timestamp() then previous_until end as previous_until, cursor_seq,
                  (select count(*) from webhook_delivery d where d.webhook = w.id and d.state = 'waiting') as "waiting!",
                  failing_since, last_success_at, last_failure_at, last_failure, created_by,
                  exists (select 1 from api_key k where k.tenant = $1 and k.id = w.created_by) as "by_key!", created_at
             from webhook w where tenant = $1 and ($2::uuid is null or id > $2) order by id limit $3"#,
        tenant.uuid(),
        after.map(WebhookId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::webhook).collect())
}

/// A webhook's headers as they are stored, for whoever changes some of them.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn sealed_headers(pool: &PgPool, tenant: TenantId, webhook: WebhookId) -> Result<Option<Option<Vec<u8>>>> {
    let found = sqlx::query_scalar!("select headers from webhook where tenant = $1 and id = $2", tenant.uuid(), webhook.uuid());
    Ok(found.fetch_optional(pool).await?)
}

/// What a tenant changes of a webhook; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// What it is for.
    pub name: Option<String>,
    /// Where events go.
    pub url: Option<String>,
    /// Of which types; empty: of all.
    pub types: Option<Vec<EventType>>,
    /// Of which sessions, or of all.
    pub sessions: Option<Option<Vec<SessionId>>>,
    /// Of which chats, or of all.
    pub chats: Option<Option<Vec<ChatId>>>,
    /// Nothing of groups.
    pub ignore_groups: Option<bool>,
    /// Nothing of status updates.
    pub ignore_status: Option<bool>,
    /// No message that the account itself wrote.
    pub ignore_own: Option<bool>,
    /// In which order.
    pub ordered_by: Option<WebhookOrder>,
    /// How many chats at once.
    pub concurrency: Option<i16>,
    /// The headers that take the place of those (sealed) that were read before.
    pub headers: Option<(Option<Vec<u8>>, Headers)>,
    /// Active again, or paused.
    pub state: Option<WebhookState>,
}

/// What became of a change.
#[derive(Debug)]
pub enum Changed {
    /// It was made; the event where it began or ended being told.
    Done(Option<Event>),
    /// Somebody else changed the headers meanwhile: read them again.
    HeadersMoved,
    /// The tenant has no such webhook.
    NotFound,
}

/// Changes a webhook, and tells of it where its state changes: one statement. A webhook that becomes active again goes on from its cursor.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn change(pool: &PgPool, tenant: TenantId, webhook: WebhookId, change: &Change, act: &Act) -> Result<Changed> {
    let state = change.state.map(|state| match state {
        WebhookState::Active => (state, None),
        WebhookState::Paused | WebhookState::Disabled => (state, Some(WebhookReason::Requested)),
    });
    let (event, data) = (EventId::new(), status(webhook, state));
    let types = change.types.as_deref().map(names);
    let sessions = sessions(change.sessions.as_ref().and_then(Option::as_ref));
    let chats = chats(change.chats.as_ref().and_then(Option::as_ref));
    let (before, headers) = change.headers.as_ref().map_or((None, None), |(before, now)| (before.as_deref(), Some(now)));
    let row = sqlx::query!(
        r#"with old as (select id, state, headers from webhook where tenant = $1 and id = $2 for no key update),
               u as (
               update webhook w set name = coalesce($3, w.name), url = coalesce($4, w.url), types = coalesce($5, w.types),
                      sessions = case when $6 then $7 else w.sessions end, chats = case when $8 then $9 else w.chats end,
                      ignore_groups = coalesce($10, w.ignore_groups), ignore_status = coalesce($11, w.ignore_status),
                      ignore_own = coalesce($12, w.ignore_own), ordered_by = coalesce($13, w.ordered_by),
                      concurrency = coalesce($14, w.concurrency),
                      headers = case when $15 then $16 else w.headers end,
                      header_names = case when $15 then $17 else w.header_names end,
                      state = coalesce($18::text, w.state),
                      reason = case when $18 <> w.state then $19 else w.reason end,
                      state_at = case when $18 <> w.state then clock_timestamp() else w.state_at end,
                      failing_since = case when $18 = 'active' and w.state <> 'active' then null else w.failing_since end
                 from old where w.id = old.id and (not $15 or w.headers is not distinct from $20)
               returning w.id, $18::text is not null and $18 <> old.state as turned),
               a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $21, $22, $23, $24, $25 from u),
               c as (
               update tenant_counter set seq = seq + 1 from u where tenant_counter.tenant = $1 and u.turned returning seq, clock_timestamp() as at),
               e as (
               insert into event (tenant, seq, day, id, type, at, data)
               select $1, seq, (at at time zone 'UTC')::date, $26, $27, at, $28 from c
               returning seq, at)
           select u.id is not null as "changed!", e.seq as "seq?", e.at as "at?" from old left join u on true left join e on true"#,
        tenant.uuid(),
        webhook.uuid(),
        change.name,
        change.url,
        types.as_deref(),
        change.sessions.is_some(),
        sessions.as_deref(),
        change.chats.is_some(),
        chats.as_deref(),
        change.ignore_groups,
        change.ignore_status,
        change.ignore_own,
        change.ordered_by.map(WebhookOrder::as_str),
        change.concurrency,
        change.headers.is_some(),
        headers.and_then(|h| h.sealed.as_deref()),
        headers.map(|h| h.names.as_slice()).unwrap_or_default(),
        state.map(|(state, _)| state.as_str()),
        state.and_then(|(_, reason)| reason).map(WebhookReason::as_str),
        before,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail,
        event.uuid(),
        EventType::WebhookStatus.as_str(),
        data
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Changed::NotFound) };
    if !row.changed {
        return Ok(Changed::HeadersMoved);
    }
    let event = row.seq.zip(row.at).map(|(seq, timestamp)| Event {
        id: event,
        seq,
        kind: EventType::WebhookStatus,
        timestamp,
        tenant,
        session: None,
        chat: None,
        data,
    });
    Ok(Changed::Done(event))
}

/// The body of a `webhook.status` event.
fn status(webhook: WebhookId, state: Option<(WebhookState, Option<WebhookReason>)>) -> Value {
    let (state, reason) = state.unzip();
    json!({"webhook": webhook, "state": state, "reason": reason.flatten()})
}

/// Deletes a webhook with its deliveries. `false`: the tenant has no such webhook.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn delete(pool: &PgPool, tenant: TenantId, webhook: WebhookId, act: &Act) -> Result<bool> {
    let gone = sqlx::query_scalar!(
        "with w as (delete from webhook where tenant = $1 and id = $2 returning id),
             a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $3, $4, $5, $6, $7 from w)
         select id from w",
        tenant.uuid(),
        webhook.uuid(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    Ok(gone.is_some())
}

/// Gives a webhook a new (sealed) secret; the one it had signs too for `overlap`. `None`: the tenant has no such webhook, or a request of this
/// idempotency key did it before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn rotate(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    (secret, overlap): (&[u8], Duration),
    act: &Act,
    once: Option<&IdempotencyKey>,
) -> Result<Option<Webhook>> {
    let done = sqlx::query_scalar!(
        "with w as (
             update webhook set secret = $3, previous_secret = case when $4::float8 > 0 then secret end,
                    previous_until = case when $4 > 0 then clock_timestamp() + make_interval(secs => $4) end
              where case when tenant = $1 and id = $2 then remember($1, $5, $9) else false end
             returning id),
             a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $6, $7, $8, $9, $10 from w)
         select id from w",
        tenant.uuid(),
        webhook.uuid(),
        secret,
        overlap.as_secs_f64(),
        idempotency::asked(once),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    match done {
        Some(_) => fetch(pool, tenant, webhook).await,
        None => Ok(None),
    }
}

/// Those of these chats that the tenant has, each by the chat that goes on for it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn chats_of(pool: &PgPool, tenant: TenantId, asked: &[ChatId]) -> Result<Vec<(ChatId, ChatId)>> {
    let ids: Vec<Uuid> = asked.iter().map(|c| c.uuid()).collect();
    let rows = sqlx::query!(
        r#"select id, coalesce(merged_into, id) as "whole!" from chat where tenant = $1 and id = any($2)"#,
        tenant.uuid(),
        &ids
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| (ChatId::from_uuid(r.id), ChatId::from_uuid(r.whole))).collect())
}
