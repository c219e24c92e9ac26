//! Telling webhooks: whose turn it is, what is left to send, and what became of it.
//!
//! A [`Turn`] has private fields and is made only by [`claim`] and [`look`], at the epoch that an acquisition issued. [`settle`] locks the webhook
//! at that epoch first; the locking read is the proof, the type is the reminder.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use contract::{ChatId, DeliveryId, Event, EventId, EventType, SessionId, TenantId, WebhookId};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, log};

mod settle;
pub use settle::{Ending, Health, Patience, Settled, Settlement, settle};

/// One worker's ownership of one webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    tenant: TenantId,
    webhook: WebhookId,
    worker: Uuid,
    epoch: i64,
}

impl Turn {
    /// Whose webhook it is.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// Which webhook.
    pub const fn webhook(&self) -> WebhookId {
        self.webhook
    }
}

/// What a renewal answers.
#[derive(Debug, Clone, Copy)]
pub struct Renewed {
    /// By the database's clock.
    pub now: DateTime<Utc>,
    /// How many webhooks one worker should hold, so that all have about as many.
    pub share: i64,
}

/// Renews a worker's lease, and with it all that it holds.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn renew(pool: &PgPool, worker: Uuid, lease: Duration) -> Result<Renewed> {
    let row = sqlx::query!(
        r#"with mine as (
               insert into webhook_worker (id, held_until) values ($1, clock_timestamp() + make_interval(secs => $2))
               on conflict (id) do update set held_until = excluded.held_until),
               gone as (delete from webhook_worker where held_until < clock_timestamp() - interval '1 hour' and id <> $1)
           select clock_timestamp() as "now!", (select count(*) from webhook where state = 'active') as "active!",
                  (select count(*) from webhook_worker where held_until > clock_timestamp() and id <> $1) + 1 as "workers!""#,
        worker,
        lease.as_secs_f64()
    )
    .fetch_one(pool)
    .await?;
    Ok(Renewed { now: row.now, share: (row.active + row.workers - 1) / row.workers })
}

/// Takes at most `most` active webhooks that no live worker holds.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn claim(pool: &PgPool, worker: Uuid, most: i64) -> Result<Vec<Turn>> {
    let rows = sqlx::query!(
        "with free as (
             select w.id from webhook w
              where w.state = 'active' and (w.owner is null or w.owner <> $1 and not exists (
                    select 1 from webhook_worker k where k.id = w.owner and k.held_until > clock_timestamp()))
              order by w.id limit $2 for update skip locked)
         update webhook w set owner = $1, epoch = epoch + 1 from free where w.id = free.id returning w.tenant, w.id, w.epoch",
        worker,
        most
    )
    .fetch_all(pool)
    .await?;
    let turn = |tenant, id, epoch| Turn { tenant: TenantId::from_uuid(tenant), webhook: WebhookId::from_uuid(id), worker, epoch };
    Ok(rows.into_iter().map(|r| turn(r.tenant, r.id, r.epoch)).collect())
}

/// How one of a worker's webhooks looks to it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The turn.
    pub turn: Turn,
    /// Changes whenever the webhook is to be told otherwise than before: its settings, a replay, something to send at another time.
    pub mark: i64,
}

/// All that a worker holds: of what it does not find here it has lost the turn.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn look(pool: &PgPool, worker: Uuid) -> Result<Vec<Seen>> {
    let rows = sqlx::query!(
        r#"select w.tenant, w.id, w.epoch, hashtextextended(row(w.state, w.url, w.types, w.sessions, w.chats, w.ignore_groups, w.ignore_status,
                      w.ignore_own, w.ordered_by, w.concurrency, w.secret, w.previous_secret, w.previous_until, w.headers, w.replay_until,
                      w.cursor_seq < w.replay_until,
                      (select min(coalesce(d.next_at, d.created_at)) from webhook_delivery d where d.webhook = w.id and d.state = 'waiting'))::text, 0) as "mark!"
             from webhook w where w.owner = $1"#,
        worker
    )
    .fetch_all(pool)
    .await?;
    let turn = |tenant, id, epoch| Turn { tenant: TenantId::from_uuid(tenant), webhook: WebhookId::from_uuid(id), worker, epoch };
    Ok(rows.into_iter().map(|r| Seen { turn: turn(r.tenant, r.id, r.epoch), mark: r.mark }).collect())
}

/// Gives a webhook back. What waits is sent at once by whoever takes it when it is active again, where it is not now.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn release(pool: &PgPool, turn: &Turn) -> Result<()> {
    sqlx::query!(
        "with w as (update webhook set owner = null where tenant = $1 and id = $2 and owner = $3 and epoch = $4 returning id, state)
         update webhook_delivery d set next_at = null from w
          where w.state <> 'active' and d.webhook = w.id and d.state = 'waiting' and d.kind in ('live', 'replay')",
        turn.tenant.uuid(),
        turn.webhook.uuid(),
        turn.worker,
        turn.epoch
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives everything back at once: the worker ends.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn leave(pool: &PgPool, worker: Uuid) -> Result<()> {
    sqlx::query!("with k as (delete from webhook_worker where id = $1) update webhook set owner = null where owner = $1", worker)
        .execute(pool)
        .await?;
    Ok(())
}

/// Why an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It happened.
    Live,
    /// The cursor was turned back.
    Replay,
    /// This one was asked for again.
    Redelivery,
    /// A test call.
    Test,
}

impl Kind {
    /// As in the row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Replay => "replay",
            Self::Redelivery => "redelivery",
            Self::Test => "test",
        }
    }
    fn from_name(name: &str) -> Self {
        [Self::Replay, Self::Redelivery, Self::Test].into_iter().find(|k| k.name() == name).unwrap_or(Self::Live)
    }
}

/// How a webhook is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Whether it is to be told at all.
    pub active: bool,
    /// Where.
    pub url: String,
    /// Of these types only; empty: of all.
    pub types: Vec<EventType>,
    /// Of these sessions only.
    pub sessions: Option<Vec<SessionId>>,
    /// Of these chats only, and of those that were merged into or with them.
    pub chats: Option<Vec<ChatId>>,
    /// Nothing of groups.
    pub ignore_groups: bool,
    /// Nothing of status updates.
    pub ignore_status: bool,
    /// No message from the account itself.
    pub ignore_own: bool,
    /// One at a time in each chat, rather than one at a time.
    pub by_chat: bool,
    /// How many chats at once.
    pub concurrency: usize,
    /// Sealed.
    pub secret: Vec<u8>,
    /// Sealed, while it lives.
    pub previous_secret: Option<Vec<u8>>,
    /// When that ends.
    pub previous_until: Option<DateTime<Utc>>,
    /// Sealed: a JSON object.
    pub headers: Option<Vec<u8>>,
    /// Up to here it has been told before.
    pub replay_until: i64,
}

/// Something that waits to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its row.
    pub id: DeliveryId,
    /// The event.
    pub event: EventId,
    /// Its place in the log; none: the row brings the body.
    pub seq: Option<i64>,
    /// The event's type.
    pub event_type: String,
    /// The event's chat.
    pub chat: Option<ChatId>,
    /// The chat that goes on for it.
    pub whole_chat: Option<ChatId>,
    /// Why it is sent.
    pub kind: Kind,
    /// Attempts so far.
    pub attempt: i32,
    /// When it is due, from now.
    pub due_in: Duration,
    /// What to send where it is in no log.
    pub body: Option<Value>,
}

/// What a turn begins with.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// How to tell it.
    pub hook: Hook,
    /// Everything up to here is settled or waits.
    pub cursor: i64,
    /// The smallest `seq` still in the log.
    pub floor: i64,
    /// What waits, in order.
    pub waiting: Vec<Waiting>,
}

/// Everything about a webhook. `None`: it is gone, or the turn is over.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn load(pool: &PgPool, turn: &Turn) -> Result<Option<Loaded>> {
    let row = sqlx::query!(
        r#"select w.state, w.url, w.types, w.sessions, w.chats, w.ignore_groups, w.ignore_status, w.ignore_own, w.ordered_by, w.concurrency,
                  w.secret, w.previous_secret, w.previous_until, w.headers, w.cursor_seq, w.replay_until, c.floor_seq
             from webhook w join tenant_counter c on c.tenant = w.tenant
            where w.tenant = $1 and w.id = $2 and w.owner = $3 and w.epoch = $4"#,
        turn.tenant.uuid(),
        turn.webhook.uuid(),
        turn.worker,
        turn.epoch
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let hook = Hook {
        active: row.state == "active",
        url: row.url,
        types: row.types.into_iter().map(EventType::from).collect(),
        sessions: row.sessions.map(|ids| ids.into_iter().map(SessionId::from_uuid).collect()),
        chats: row.chats.map(|ids| ids.into_iter().map(ChatId::from_uuid).collect()),
        ignore_groups: row.ignore_groups,
        ignore_status: row.ignore_status,
        ignore_own: row.ignore_own,
        by_chat: row.ordered_by == "chat",
        concurrency: if row.ordered_by == "chat" { usize::from(row.concurrency.unsigned_abs()).max(1) } else { 1 },
        secret: row.secret,
        previous_secret: row.previous_secret,
        previous_until: row.previous_until,
        headers: row.headers,
        replay_until: row.replay_until,
    };
    let waiting = waiting(pool, turn).await?;
    Ok(Some(Loaded { hook, cursor: row.cursor_seq, floor: row.floor_seq, waiting }))
}

async fn waiting(pool: &PgPool, turn: &Turn) -> Result<Vec<Waiting>> {
    let rows = sqlx::query!(
        r#"select d.id, d.event, d.seq, d.type as kind, d.chat, coalesce(c.merged_into, d.chat) as whole, d.kind as why, d.attempt, d.body,
                  greatest(0, extract(epoch from d.next_at - clock_timestamp()))::float8 as due_in
             from webhook_delivery d left join chat c on c.id = d.chat
            where d.tenant = $1 and d.webhook = $2 and d.state = 'waiting' order by d.seq nulls first, d.id"#,
        turn.tenant.uuid(),
        turn.webhook.uuid()
    )
    .fetch_all(pool)
    .await?;
    let waiting = rows.into_iter().map(|r| Waiting {
        id: DeliveryId::from_uuid(r.id),
        event: EventId::from_uuid(r.event),
        seq: r.seq,
        event_type: r.kind,
        chat: r.chat.map(ChatId::from_uuid),
        whole_chat: r.whole.map(ChatId::from_uuid),
        kind: Kind::from_name(&r.why),
        attempt: r.attempt,
        due_in: Duration::try_from_secs_f64(r.due_in.unwrap_or(0.0)).unwrap_or_default(),
        body: r.body,
    });
    Ok(waiting.collect())
}

/// What judging needs to know of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatFact {
    /// The chat that goes on for it: itself, where it was not merged.
    pub whole: ChatId,
    /// A group.
    pub group: bool,
    /// Status updates.
    pub status: bool,
}

/// What judging needs to know of these chats.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn chats(pool: &PgPool, tenant: TenantId, chats: &[ChatId]) -> Result<HashMap<ChatId, ChatFact>> {
    let ids: Vec<Uuid> = chats.iter().map(|c| c.uuid()).collect();
    let rows = sqlx::query!(
        r#"select id, coalesce(merged_into, id) as "whole!", kind from chat where tenant = $1 and id = any($2)"#,
        tenant.uuid(),
        &ids
    )
    .fetch_all(pool)
    .await?;
    let fact = |whole, kind: &str| ChatFact { whole: ChatId::from_uuid(whole), group: kind == "group", status: kind == "broadcast" };
    Ok(rows.into_iter().map(|r| (ChatId::from_uuid(r.id), fact(r.whole, &r.kind))).collect())
}

/// An event of the log. `None`: it is kept no longer.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn event(pool: &PgPool, tenant: TenantId, seq: i64) -> Result<Option<Event>> {
    let row = sqlx::query_as!(
        log::Row,
        "select id, seq, type as kind, at, session, chat, data from event where tenant = $1 and seq = $2",
        tenant.uuid(),
        seq
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| r.event(tenant)))
}
