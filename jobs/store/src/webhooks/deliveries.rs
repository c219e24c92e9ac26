//! Deliveries: what has been sent to a webhook, what waits, and what was given up. Most rows are the worker's; asking for one more is here.

use chrono::{DateTime, Utc};
use contract::{ChatId, DeliveryId, DeliveryKind, DeliveryState, EventId, TenantId, WebhookId, WebhookState};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, accept::IdempotencyKey, audit::Act, idempotency, snapshot::Snapshot};

/// How many deliveries of one webhook may wait before nothing more is added by hand.
pub const MOST_WAITING: i64 = 1000;

/// A row of `webhook_delivery`.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Which.
    pub id: DeliveryId,
    /// Of which webhook.
    pub webhook: WebhookId,
    /// The event: `webhook-id`.
    pub event: EventId,
    /// The event's place in the log; none: it is in none.
    pub seq: Option<i64>,
    /// The event's type.
    pub event_type: String,
    /// The event's chat.
    pub chat: Option<ChatId>,
    /// Why it is sent.
    pub kind: DeliveryKind,
    /// Where it is.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: i32,
    /// When the next one is due.
    pub next_at: Option<DateTime<Utc>>,
    /// HTTP's status of the last one.
    pub status: Option<i16>,
    /// Why there was none.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i32>,
    /// How the answer began.
    pub answer: Option<String>,
    /// When it was written down.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    event: Uuid,
    seq: Option<i64>,
    event_type: String,
    chat: Option<Uuid>,
    kind: String,
    state: String,
    attempt: i32,
    next_at: Option<DateTime<Utc>>,
    status: Option<i16>,
    error: Option<String>,
    duration_ms: Option<i32>,
    answer: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    fn delivery(self, webhook: WebhookId) -> Delivery {
        Delivery {
            id: DeliveryId::from_uuid(self.id),
            webhook,
            event: EventId::from_uuid(self.event),
            seq: self.seq,
            event_type: self.event_type,
            chat: self.chat.map(ChatId::from_uuid),
            // The table's checks allow no other names.
            kind: DeliveryKind::from_name(&self.kind).unwrap_or(DeliveryKind::Live),
            state: DeliveryState::from_name(&self.state).unwrap_or(DeliveryState::Dead),
            attempts: self.attempt,
            next_at: self.next_at,
            status: self.status,
            error: self.error,
            duration_ms: self.duration_ms,
            answer: self.answer,
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }
}

/// Which deliveries a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<DeliveryState>,
    /// Of this type of event.
    pub event_type: Option<String>,
    /// Older than this one.
    pub before: Option<DeliveryId>,
}

/// A webhook's deliveries, newest first.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, webhook: WebhookId, filter: &Filter, limit: i64) -> Result<Vec<Delivery>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, event, seq, type as event_type, chat, kind, state, attempt, next_at, status, error, duration_ms, answer, created_at, finished_at
           from webhook_delivery
          where tenant = $1 and webhook = $2 and ($3::text is null or state = $3) and ($4::text is null or type = $4)
            and ($5::uuid is null or id < $5)
          order by id desc limit $6",
        tenant.uuid(),
        webhook.uuid(),
        filter.state.map(DeliveryState::as_str),
        filter.event_type,
        filter.before.map(DeliveryId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(|r| r.delivery(webhook)).collect())
}

/// One delivery of a webhook.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, webhook: WebhookId, delivery: DeliveryId) -> Result<Option<Delivery>> {
    let row = sqlx::query_as!(
        Row,
        "select id, event, seq, type as event_type, chat, kind, state, attempt, next_at, status, error, duration_ms, answer, created_at, finished_at
           from webhook_delivery where tenant = $1 and webhook = $2 and id = $3",
        tenant.uuid(),
        webhook.uuid(),
        delivery.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| r.delivery(webhook)))
}

/// What became of asking for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It waits to be sent.
    Waiting(DeliveryId),
    /// There is nothing to repeat: it waits already, or it was a test call.
    NotRepeatable(DeliveryState, DeliveryKind),
    /// The event has been dropped from the log.
    EventGone,
    /// Nothing is sent to the webhook now.
    NotActive(WebhookState),
    /// As many as may wait do.
    Full,
    /// A request of this idempotency key did it before.
    Before,
    /// The tenant has no such webhook or delivery.
    NotFound,
}

/// Asks for one event to be sent again, beside the order. The event must still be in the log.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn redeliver(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    delivery: DeliveryId,
    act: &Act,
    once: Option<&IdempotencyKey>,
) -> Result<Asked> {
    let id = DeliveryId::new();
    let row = sqlx::query!(
        r#"with d as (
               select d.event, d.seq, d.type, d.chat, d.state, d.kind,
                      exists (select 1 from event e where e.tenant = $1 and e.seq = d.seq) as logged,
                      (select count(*) from webhook_delivery o where o.webhook = $2 and o.state = 'waiting') as waiting
                 from webhook_delivery d where d.tenant = $1 and d.webhook = $2 and d.id = $3),
               n as (
               insert into webhook_delivery (id, tenant, webhook, event, seq, type, chat, kind, state)
               select $4, $1, $2, d.event, d.seq, d.type, d.chat, 'redelivery', 'waiting' from d
                where case when d.state <> 'waiting' and d.logged and d.waiting < $5 then remember($1, $6, $7) else false end
               returning id),
               a as (insert into audit (tenant, id, actor, action, target, detail) select $1, $8, $9, $10, $11, $12 from n)
           select d.state, d.kind, d.logged as "logged!", d.waiting as "waiting!", n.id is not null as "made!" from d left join n on true"#,
        tenant.uuid(),
        webhook.uuid(),
        delivery.uuid(),
        id.uuid(),
        MOST_WAITING,
        idempotency::asked(once),
        id.to_string(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Asked::NotFound) };
    let state = DeliveryState::from_name(&row.state).unwrap_or(DeliveryState::Dead);
    let kind = DeliveryKind::from_name(&row.kind).unwrap_or(DeliveryKind::Live);
    Ok(match () {
        () if row.made => Asked::Waiting(id),
        () if state == DeliveryState::Waiting || kind == DeliveryKind::Test => Asked::NotRepeatable(state, kind),
        () if !row.logged => Asked::EventGone,
        () if row.waiting >= MOST_WAITING => Asked::Full,
        () => Asked::Before,
    })
}

/// Asks for a test call: an event of no log, which brings its body and is tried once. The webhook must be active.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn test(
    pool: &PgPool,
    tenant: TenantId,
    webhook: WebhookId,
    (event, body): (EventId, &Value),
    once: Option<&IdempotencyKey>,
) -> Result<Asked> {
    let id = DeliveryId::new();
    let row = sqlx::query!(
        r#"with w as (
               select w.id, w.state, (select count(*) from webhook_delivery o where o.webhook = $2 and o.state = 'waiting') as waiting
                 from webhook w where w.tenant = $1 and w.id = $2),
               n as (
               insert into webhook_delivery (id, tenant, webhook, event, type, kind, state, body)
               select $3, $1, w.id, $4, $5, 'test', 'waiting',
                      $6::jsonb || jsonb_build_object('timestamp', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
                 from w where case when w.state = 'active' and w.waiting < $7 then remember($1, $8, $9) else false end
               returning id)
           select w.state, w.waiting as "waiting!", n.id is not null as "made!" from w left join n on true"#,
        tenant.uuid(),
        webhook.uuid(),
        id.uuid(),
        event.uuid(),
        contract::WEBHOOK_TEST,
        body,
        MOST_WAITING,
        idempotency::asked(once),
        id.to_string()
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Asked::NotFound) };
    let state = WebhookState::from_name(&row.state).unwrap_or(WebhookState::Disabled);
    Ok(match () {
        () if row.made => Asked::Waiting(id),
        () if state != WebhookState::Active => Asked::NotActive(state),
        () if row.waiting >= MOST_WAITING => Asked::Full,
        () => Asked::Before,
    })
}
