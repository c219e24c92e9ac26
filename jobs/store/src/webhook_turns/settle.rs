//! What became of deliveries: their rows, the cursor, the webhook's health, and its end where there is one, in one statement.

use std::time::Duration;

use contract::{ChatId, DeliveryId, Event, EventId, EventType};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Kind, Turn};
use crate::{
    Result,
    log::{self, OwnedRow},
};

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The receiver took it.
    Delivered,
    /// It is tried again after so long.
    Waiting(Duration),
    /// It is given up.
    Dead,
}

/// A delivery, new or known.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Its row.
    pub id: DeliveryId,
    /// The event.
    pub event: EventId,
    /// Its place in the log.
    pub seq: Option<i64>,
    /// The event's type.
    pub event_type: String,
    /// The event's chat.
    pub chat: Option<ChatId>,
    /// Why it was sent.
    pub kind: Kind,
    /// How it stands.
    pub ending: Ending,
    /// Attempts so far.
    pub attempt: i32,
    /// HTTP's status of the last attempt.
    pub status: Option<i16>,
    /// Why there was none, or why it did not count.
    pub error: Option<&'static str>,
    /// How long it took.
    pub took: Option<Duration>,
    /// How the answer began.
    pub answer: Option<String>,
    /// What to send where it is in no log.
    pub body: Option<Value>,
}

/// How the receiver did.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Attempts that failed since the last one that did not.
    pub failures: i32,
    /// Whether one did not fail.
    pub succeeded: bool,
    /// What the last failure was.
    pub last_failure: Option<String>,
    /// It says that it is gone for good.
    pub gone: bool,
}

/// When a receiver that only fails is told no more.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// It has failed for so long.
    pub after: Duration,
    /// And so many times.
    pub failures: i32,
}

/// What a settling statement answers.
#[derive(Debug)]
pub struct Settled {
    /// The cursor as it is now: another one than asked for where somebody turned it meanwhile.
    pub cursor: i64,
    /// Whether the webhook is still to be told.
    pub active: bool,
    /// What is to be published.
    pub events: Vec<Event>,
}

/// Settles deliveries. The cursor moves from the one to the other; where somebody turned it meanwhile it stays, and what would wait behind it
/// does not: it is read from the log again. Answers to events that were erased meanwhile are not kept. May be repeated. `None`: the turn is
/// over, nothing is written.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn settle(
    pool: &PgPool,
    turn: &Turn,
    (from, to): (i64, i64),
    rows: &[Settlement],
    health: &Health,
    patience: Patience,
) -> Result<Option<Settled>> {
    let c = Columns::of(rows);
    let said = json!({"webhook": turn.webhook});
    let answer = sqlx::query!(
        r#"with mine as (
                    select id, tenant, state, failures, failing_since, cursor_seq from webhook where tenant = $1 and id = $2 and owner = $3 and epoch = $4 for update),
                verdict as (
                    select id, case when $9 then 'disabled' else 'paused' end as state, case when $9 then 'gone' else 'failing' end as reason from mine
                     where state = 'active' and ($9 or $6 > 0 and not $7 and failures + $6 >= $11
                           and coalesce(failing_since, clock_timestamp()) <= clock_timestamp() - make_interval(secs => $10))),
                gone as materialized (
                    select erased_among(mine.tenant, array(
                           select x.seq from unnest($14::bigint[], $24::text[]) x (seq, answer) where x.seq is not null and x.answer is not null)) as seqs
                      from mine),
                put as (
                    insert into webhook_delivery (id, tenant, webhook, event, seq, type, chat, kind, state, attempt, next_at, status, error, duration_ms,
                                                  answer, body, finished_at)
                    select r.id, mine.tenant, mine.id, r.event, r.seq, r.type, r.chat, r.kind, r.state,
                           case when v.id is not null and r.state = 'waiting' then 0 else r.attempt end,
                           case when v.id is null and r.state = 'waiting' then clock_timestamp() + make_interval(secs => r.retry_in) end,
                           r.status, r.error, r.duration_ms, case when r.seq = any(gone.seqs) then null else r.answer end, r.body,
                           case when r.state <> 'waiting' then clock_timestamp() end
                      from mine cross join gone left join verdict v on true cross join
                           unnest($12::uuid[], $13::uuid[], $14::bigint[], $15::text[], $16::uuid[], $17::text[], $18::text[], $19::int[],
                                  $20::float8[], $21::smallint[], $22::text[], $23::int[], $24::text[], $25::jsonb[])
                        as r (id, event, seq, type, chat, kind, state, attempt, retry_in, status, error, duration_ms, answer, body)
                     where not (mine.cursor_seq <> $5 and r.state = 'waiting' and r.kind in ('live', 'replay') and r.seq > mine.cursor_seq)
                    on conflict (id) do update set state = excluded.state, attempt = excluded.attempt, next_at = excluded.next_at,
                       status = excluded.status, error = excluded.error, duration_ms = excluded.duration_ms, answer = excluded.answer,
                       finished_at = excluded.finished_at
                    returning 1),
                parked as (
                    update webhook_delivery d set attempt = 0, next_at = null from verdict v
                     where d.webhook = v.id and d.state = 'waiting' and d.kind in ('live', 'replay') and d.id <> all($12)),
                moved as (
                    update webhook w set
                           cursor_seq = case when w.cursor_seq = $5 then $26 else w.cursor_seq end,
                           last_success_at = case when $7 then clock_timestamp() else w.last_success_at end,
                           last_failure_at = case when $8::text is not null then clock_timestamp() else w.last_failure_at end,
                           last_failure = coalesce($8, w.last_failure),
                           failures = case when $7 then $6 else w.failures + $6 end,
                           failing_since = case when $6 = 0 and $7 then null when $6 = 0 then w.failing_since
                                                when $7 then clock_timestamp() else coalesce(w.failing_since, clock_timestamp()) end,
                           state = coalesce(v.state, w.state), reason = case when v.id is null then w.reason else v.reason end,
                           state_at = case when v.id is null then w.state_at else clock_timestamp() end
                      from mine left join verdict v on true where w.id = mine.id
                    returning w.cursor_seq, w.state, v.state as ending, v.reason),
                c as (
                    update tenant_counter set seq = seq + 1 from moved
                     where tenant_counter.tenant = $1 and moved.ending is not null and (select count(*) from put) >= 0
                    returning seq, clock_timestamp() as at, moved.ending, moved.reason),
                e as (
                    insert into event (tenant, seq, day, id, type, at, data)
                    select $1, c.seq, (c.at at time zone 'UTC')::date, $27, $28, c.at,
                           $29::jsonb || jsonb_build_object('state', c.ending, 'reason', c.reason) from c
                    returning id, seq, type as kind, at, session, chat, data)
           select moved.cursor_seq, moved.state = 'active' as "active!", e.id as "id?", e.seq as "seq?", e.kind as "kind?", e.at as "at?",
                  e.session as "session?", e.chat as "chat?", e.data as "data?"
             from moved left join e on true"#,
        turn.tenant.uuid(),
        turn.webhook.uuid(),
        turn.worker,
        turn.epoch,
        from,
        health.failures,
        health.succeeded,
        health.last_failure.as_deref(),
        health.gone,
        patience.after.as_secs_f64(),
        patience.failures,
        &c.ids,
        &c.events,
        &c.seqs as &[Option<i64>],
        &c.types,
        &c.chats as &[Option<Uuid>],
        &c.kinds,
        &c.states,
        &c.attempts,
        &c.retries as &[Option<f64>],
        &c.statuses as &[Option<i16>],
        &c.errors as &[Option<String>],
        &c.durations as &[Option<i32>],
        &c.answers as &[Option<String>],
        &c.bodies as &[Option<Value>],
        to,
        EventId::new().uuid(),
        EventType::WebhookStatus.as_str(),
        said,
    )
    .fetch_optional(pool)
    .await?;
    Ok(answer.map(|r| {
        let (cursor, active) = (r.cursor_seq, r.active);
        let row = OwnedRow { ours: true, id: r.id, seq: r.seq, kind: r.kind, at: r.at, session: r.session, chat: r.chat, data: r.data };
        Settled { cursor, active, events: log::owned_events(vec![row], turn.tenant).unwrap_or_default() }
    }))
}

#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    events: Vec<Uuid>,
    seqs: Vec<Option<i64>>,
    types: Vec<String>,
    chats: Vec<Option<Uuid>>,
    kinds: Vec<String>,
    states: Vec<String>,
    attempts: Vec<i32>,
    retries: Vec<Option<f64>>,
    statuses: Vec<Option<i16>>,
    errors: Vec<Option<String>>,
    durations: Vec<Option<i32>>,
    answers: Vec<Option<String>>,
    bodies: Vec<Option<Value>>,
}

impl Columns {
    fn of(rows: &[Settlement]) -> Self {
        let mut c = Self::default();
        for row in rows {
            let (state, retry) = match row.ending {
                Ending::Delivered => ("delivered", None),
                Ending::Waiting(after) => ("waiting", Some(after.as_secs_f64())),
                Ending::Dead => ("dead", None),
            };
            c.ids.push(row.id.uuid());
            c.events.push(row.event.uuid());
            c.seqs.push(row.seq);
            c.types.push(row.event_type.clone());
            c.chats.push(row.chat.map(ChatId::uuid));
            c.kinds.push(row.kind.name().to_owned());
            c.states.push(state.to_owned());
            c.attempts.push(row.attempt);
            c.retries.push(retry);
            c.statuses.push(row.status);
            c.errors.push(row.error.map(str::to_owned));
            c.durations.push(row.took.map(|d| i32::try_from(d.as_millis()).unwrap_or(i32::MAX)));
            c.answers.push(row.answer.clone());
            c.bodies.push(row.body.clone());
        }
        c
    }
}
