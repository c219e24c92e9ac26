//! Receipts move acks forward only. The `message` event of a message comes first, always: until it is written a receipt only raises the ack,
//! which that event then tells.

use contract::{ChatId, Event, Evidence, Fact, JobId, JobState, MessageId, MessageStatus, event::MessageAckBody};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Held, Result,
    lane_jobs::{self, LaneJob},
    log::{self, Columns, NewEvent, OwnedRow},
    outcomes::{End, job_fact, own_message},
};

/// A receipt: the message with this id part has reached this ack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// 1 sent, 2 delivered, 3 read, 4 played.
    pub ack: i16,
}

/// Moves acks of our own messages forward, with events; a receipt turns every `unknown` job of its message into `succeeded`. `None`: no
/// longer ours.
///
/// The rows are read first, because the events name them. The caller keeps outcomes of the same session from being recorded meanwhile.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn record(pool: &PgPool, held: &Held, receipts: &[Receipt]) -> Result<Option<Vec<Event>>> {
    let mut written = Vec::new();
    for receipt in receipts {
        let Some(events) = self::receipt(pool, held, receipt).await? else { return Ok(None) };
        written.extend(events);
    }
    Ok(Some(written))
}

/// The jobs of a message that a proof turns.
pub(crate) async fn unknown_jobs(pool: &PgPool, held: &Held, message: MessageId, but: Option<JobId>) -> Result<Vec<LaneJob>> {
    let ids = sqlx::query_scalar!(
        "select id from job where tenant = $1 and session = $2 and message = $3 and state = 'unknown' and ($4::uuid is null or id <> $4) order by id",
        held.tenant().uuid(),
        held.session().uuid(),
        message.uuid(),
        but.map(JobId::uuid)
    )
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        jobs.extend(lane_jobs::load(pool, held.tenant(), held.session(), JobId::from_uuid(id)).await?);
    }
    Ok(jobs)
}

/// What a proof says of a job that was `unknown`.
pub(crate) fn proved(job: &LaneJob, ack: i16, key: Option<&str>) -> NewEvent {
    let wa_key = job.wa_key.as_deref().or(key).unwrap_or_default().to_owned();
    let end = End { evidence: Some(Evidence { wa_key, ack }), ..End::default() };
    NewEvent::of(job.chat, &job_fact(job, job.attempt, JobState::Succeeded, end))
}

async fn receipt(pool: &PgPool, held: &Held, receipt: &Receipt) -> Result<Option<Vec<Event>>> {
    let row = sqlx::query!(
        r#"select m.id, coalesce(c.merged_into, c.id) as "chat!", m.reference, m.job, m.announced_seq is not null as "announced!"
             from message m join chat c on c.id = m.chat
            where m.tenant = $1 and m.session = $2 and m.from_me and m.wa_id = $3 and coalesce(m.ack, 0::smallint) < $4::smallint"#,
        held.tenant().uuid(),
        held.session().uuid(),
        receipt.wa_id,
        receipt.ack
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Some(Vec::new())) };
    let (message, chat) = (MessageId::from_uuid(row.id), ChatId::from_uuid(row.chat));
    let status = MessageStatus::from_ack(receipt.ack);
    let unknown = unknown_jobs(pool, held, message, None).await?;
    let mut events = Vec::new();
    if row.announced {
        let (wa_id, job) = (receipt.wa_id.clone(), row.job.map(JobId::from_uuid));
        let message = contract::event::MessageAck { id: message, wa_id, ack: receipt.ack, status, job, reference: row.reference };
        events.push(NewEvent::of(Some(chat), &Fact::MessageAck(MessageAckBody { message })));
    } else if let Some(told) = unknown.first().and_then(|job| own_message(job, receipt.ack)) {
        // Nobody else is going to announce it: its jobs have ended.
        events.push(NewEvent::of(Some(chat), &told));
    }
    events.extend(unknown.iter().map(|job| proved(job, receipt.ack, None)));
    write(pool, held, message, receipt.ack, &events).await
}

async fn write(pool: &PgPool, held: &Held, message: MessageId, ack: i16, events: &[NewEvent]) -> Result<Option<Vec<Event>>> {
    let columns = Columns::of(events);
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                m as (
                    select message.id, message.sent_at from message, held
                     where message.id = $4 and message.tenant = held.tenant and coalesce(message.ack, 0::smallint) < $5::smallint
                       for no key update of message),
                j as (
                    update job set state = 'succeeded', error = null,
                           evidence = jsonb_build_object('waKey', coalesce(job.evidence ->> 'waKey', job.wa_key, ''), 'ack', $5::smallint)
                      from m where job.session = $1 and job.message = m.id and job.state in ('unknown', 'succeeded') returning 1),
                c as (
                    update tenant_counter set seq = seq + cardinality($7::uuid[]) from held
                     where tenant_counter.tenant = held.tenant and cardinality($7::uuid[]) > 0
                       and exists (select 1 from m) and (select count(*) from j) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq - cardinality($7::uuid[]) + t.o, (c.at at time zone 'UTC')::date, t.id, t.kind, c.at, $1, t.chat, t.data
                      from c, unnest($7::uuid[], $8::text[], $9::uuid[], $10::jsonb[]) with ordinality as t (id, kind, chat, data, o)
                    returning id, seq, type, at, session, chat, data),
                mm as (
                    update message set ack = $5::smallint, status = $6,
                           announced_seq = coalesce(announced_seq, (select seq from e where type = 'message'))
                      from m where message.id = m.id),
                ch as (
                    update chat set last_message_at = greatest(chat.last_message_at, m.sent_at)
                      from e, m where e.type = 'message' and chat.id = e.chat)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true order by e.seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        message.uuid(),
        ack,
        MessageStatus::from_ack(ack).as_str(),
        &columns.ids,
        &columns.kinds,
        &columns.chats as &[Option<Uuid>],
        &columns.data,
    )
    .fetch_all(pool)
    .await?;
    Ok(log::owned_events(rows, held.tenant()))
}
