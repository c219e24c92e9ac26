//! What the page reports: messages become rows and events in one statement; receipts move acks forward only.

use contract::{ChatId, Event, EventType, Evidence, JobId, JobState, MessageId, MessageStatus};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Held, Result, lane_jobs,
    log::{self, Columns, NewEvent},
    outcomes::job_data,
};

/// A message as the page has it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The chat, resolved before.
    pub chat: ChatId,
    /// Whether the linked account sent it (from its phone, another device, or through us).
    pub from_me: bool,
    /// The canonical sender in a group; empty in private chats and for our own.
    pub sender: String,
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// WhatsApp's type, but `text` for what it calls `chat`.
    pub kind: String,
    /// The text.
    pub body: Option<String>,
    /// The ack the page shows.
    pub ack: i16,
    /// WhatsApp's time, seconds since 1970.
    pub at: i64,
    /// WhatsApp id of the message it replies to.
    pub reply_to: Option<String>,
    /// Whether it may be announced: decrypted, and not from history.
    pub announce: bool,
    /// Found by reconciliation, not heard as it came.
    pub recovered: bool,
    /// The page's row.
    pub row_id: Option<i64>,
    /// The name its sender uses.
    pub sender_name: Option<String>,
}

/// Records messages (at most 200 a call) with their events. `mark`: the page row up to which everything is recorded once these are. `None`:
/// no longer ours.
///
/// An event is made where none was made before, the content is there and the message is newer than the link. A message of our own that a job
/// sent is announced by the job's outcome.
///
/// `messages_of` looks with a snapshot of its own, taken under the session's lock: a repeat whose first try is still on its way (its
/// connection was lost, it waits for the counter) waits for that, and then sees what it wrote.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn record(pool: &PgPool, held: &Held, messages: &[Incoming], mark: Option<i64>) -> Result<Option<Vec<Event>>> {
    let ids: Vec<MessageId> = messages.iter().map(|_| MessageId::new()).collect();
    let known = known_ids(pool, held, messages).await?;
    let data: Vec<Value> = messages.iter().zip(&ids).zip(&known).map(|((m, id), known)| message_data(m, known.unwrap_or(*id))).collect();
    let columns = Columns::of(
        &messages.iter().zip(data).map(|(m, data)| NewEvent { kind: EventType::Message, chat: Some(m.chat), data }).collect::<Vec<_>>(),
    );
    let of = |f: fn(&Incoming) -> String| messages.iter().map(f).collect::<Vec<_>>();
    let status = |m: &Incoming| if m.from_me { MessageStatus::from_ack(m.ack.max(1)) } else { MessageStatus::Received }.as_str().to_owned();
    let rows = sqlx::query!(
        r#"with held as (select tenant, account, linked_at from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                i as (
                    select * from unnest($4::uuid[], $5::uuid[], $6::bool[], $7::text[], $8::text[], $9::text[], $10::text[], $11::smallint[],
                                         $12::bigint[], $13::text[], $14::bool[], $15::bool[], $16::bigint[], $17::text[], $18::uuid[],
                                         $19::jsonb[]) with ordinality
                      as i (id, chat, from_me, sender, wa_id, kind, body, ack, at, reply_to, announce, recovered, row_id, status, event, data, o)),
                judged as (
                    select i.*, k.id as known,
                           i.announce and (k.id is null or k.announced_seq is null and k.job is null)
                             and i.at >= extract(epoch from date_trunc('second', held.linked_at)) as tell
                      from held, i left join lateral messages_of(held.tenant, $1, i.wa_id) k
                        on k.from_me = i.from_me and (i.from_me or k.chat = i.chat and k.sender = i.sender)),
                told as (select *, row_number() over (order by o) as n from judged where tell),
                mark as (
                    update session set profile_row_id = greatest(profile_row_id, $20) from held
                     where session.id = $1 and $20::bigint is not null returning 1),
                c as (
                    update tenant_counter set seq = seq + (select count(*) from told) from held
                     where tenant_counter.tenant = held.tenant and (select count(*) from mark) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as now),
                numbered as (select told.o, c.seq - (select count(*) from told) + told.n as seq from told, c),
                fresh as (
                    insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, body, status, ack, source, sent_at,
                                         reply_to, row_id, announced_seq, recovered)
                    select j.id, held.tenant, $1, coalesce(held.account, ''), j.chat, j.from_me, j.sender, j.wa_id, j.kind, j.body, j.status, j.ack,
                           'phone', to_timestamp(j.at), j.reply_to, j.row_id, numbered.seq, j.recovered
                      from held, judged j left join numbered on numbered.o = j.o
                     where j.known is null
                    on conflict on constraint message_wa_key do nothing),
                again as (
                    update message m set body = coalesce(j.body, m.body), kind = case when j.body is null then m.kind else j.kind end,
                           row_id = coalesce(j.row_id, m.row_id), announced_seq = coalesce(m.announced_seq, numbered.seq)
                      from judged j left join numbered on numbered.o = j.o
                     where m.id = j.known and m.job is null),
                chats as (
                    update chat set last_message_at = greatest(chat.last_message_at, to_timestamp(x.at)), unread = chat.unread + x.unread
                      from (select chat, max(at) as at, count(*) filter (where known is null and not from_me and tell) as unread
                              from judged group by chat) x
                     where chat.id = x.chat),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, numbered.seq, (c.now at time zone 'UTC')::date, told.event, 'message', c.now, $1, told.chat, told.data
                      from c, told join numbered on numbered.o = told.o
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true order by e.seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &ids.iter().map(|i| i.uuid()).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.chat.uuid()).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.from_me).collect::<Vec<_>>(),
        &of(|m| m.sender.clone()),
        &of(|m| m.wa_id.clone()),
        &of(|m| m.kind.clone()),
        &messages.iter().map(|m| m.body.clone()).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|m| m.ack).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.at).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.reply_to.clone()).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|m| m.announce).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.recovered).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.row_id).collect::<Vec<_>>() as &[Option<i64>],
        &messages.iter().map(status).collect::<Vec<_>>(),
        &columns.ids,
        &columns.data,
        mark,
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let event = |r: Option<log::Row>| r.and_then(|r| r.event(held.tenant()));
    Ok(Some(
        rows.into_iter()
            .filter_map(|r| {
                let (session, chat) = (r.session, r.chat);
                event((|| Some(log::Row { id: r.id?, seq: r.seq?, kind: r.kind?, at: r.at?, session, chat, data: r.data? }))())
            })
            .collect(),
    ))
}

/// The ids of those messages that have a row already: their events must name it.
async fn known_ids(pool: &PgPool, held: &Held, messages: &[Incoming]) -> Result<Vec<Option<MessageId>>> {
    let wa_ids: Vec<_> = messages.iter().map(|m| m.wa_id.clone()).collect();
    let rows = sqlx::query!(
        "select id, wa_id, from_me, chat, sender from message where tenant = $1 and session = $2 and wa_id = any($3)",
        held.tenant().uuid(),
        held.session().uuid(),
        &wa_ids
    )
    .fetch_all(pool)
    .await?;
    let find =
        |m: &Incoming| rows.iter().find(|r| matches_row(m, &r.wa_id, r.from_me, r.chat, &r.sender)).map(|r| MessageId::from_uuid(r.id));
    Ok(messages.iter().map(find).collect())
}

fn matches_row(m: &Incoming, wa_id: &str, from_me: bool, chat: Uuid, sender: &str) -> bool {
    m.wa_id == wa_id && m.from_me == from_me && (from_me || (chat == m.chat.uuid() && sender == m.sender))
}

fn message_data(m: &Incoming, id: MessageId) -> Value {
    let status = if m.from_me { MessageStatus::from_ack(m.ack.max(1)) } else { MessageStatus::Received };
    let mut data = json!({"message": {
        "id": id, "fromMe": m.from_me, "type": m.kind, "text": m.body, "status": status,
        "ack": m.ack, "source": "phone", "waId": m.wa_id, "sender": (!m.sender.is_empty()).then_some(&m.sender), "senderName": m.sender_name,
        "replyTo": m.reply_to, "timestamp": m.at,
    }});
    if m.recovered {
        data["message"]["recovered"] = json!(true);
    }
    data
}

/// A receipt: the message with this id part has reached this ack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// 1 sent, 2 delivered, 3 read, 4 played.
    pub ack: i16,
}

/// Moves acks of our own messages forward, with events; a receipt turns an `unknown` job into `succeeded`. `None`: no longer ours.
///
/// The rows are read first, because the events name them. The caller keeps outcomes of the same session from being recorded meanwhile.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn receipts(pool: &PgPool, held: &Held, receipts: &[Receipt]) -> Result<Option<Vec<Event>>> {
    let mut written = Vec::new();
    for receipt in receipts {
        let Some(events) = self::receipt(pool, held, receipt).await? else { return Ok(None) };
        written.extend(events);
    }
    Ok(Some(written))
}

async fn receipt(pool: &PgPool, held: &Held, receipt: &Receipt) -> Result<Option<Vec<Event>>> {
    let row = sqlx::query!(
        r#"select m.id, m.chat, m.reference, j.id as "job?", j.state as "state?", j.wa_key from message m left join job j on j.id = m.job
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
    let evidence = json!(Evidence { wa_key: row.wa_key.unwrap_or_default(), ack: receipt.ack });
    let mut events = vec![NewEvent {
        kind: EventType::MessageAck,
        chat: Some(chat),
        data: json!({"message": {"id": message, "waId": receipt.wa_id, "ack": receipt.ack, "status": status, "job": row.job.map(JobId::from_uuid), "reference": row.reference}}),
    }];
    let proves = row.state.as_deref() == Some(JobState::Unknown.as_str());
    if let (true, Some(job)) = (proves, row.job) {
        let job = lane_jobs::load(pool, held.tenant(), held.session(), JobId::from_uuid(job)).await?;
        events.extend(job.map(|job| NewEvent {
            kind: EventType::JobUpdated,
            chat: Some(chat),
            data: job_data(&job, job.attempt, JobState::Succeeded, &evidence, &Value::Null, &Value::Null),
        }));
    }
    let columns = Columns::of(&events);
    let rows = sqlx::query!(
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                m as (
                    update message set ack = $5::smallint, status = $6 from held
                     where message.id = $4 and message.tenant = held.tenant and coalesce(message.ack, 0::smallint) < $5::smallint
                    returning message.id, message.job),
                j as (
                    update job set state = 'succeeded', evidence = $7, error = null from m
                     where job.id = m.job and job.state in ('unknown', 'succeeded') returning job.id),
                c as (
                    update tenant_counter set seq = seq + cardinality($8::uuid[]) from held
                     where tenant_counter.tenant = held.tenant and exists (select 1 from m) and (select count(*) from j) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq - cardinality($8::uuid[]) + t.o, (c.at at time zone 'UTC')::date, t.id, t.kind, c.at, $1, t.chat, t.data
                      from c, unnest($8::uuid[], $9::text[], $10::uuid[], $11::jsonb[]) with ordinality as t (id, kind, chat, data, o)
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true order by e.seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        message.uuid(),
        receipt.ack,
        status.as_str(),
        evidence,
        &columns.ids,
        &columns.kinds,
        &columns.chats as &[Option<Uuid>],
        &columns.data,
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let row = |r: Option<log::Row>| r.and_then(|r| r.event(held.tenant()));
    Ok(Some(
        rows.into_iter()
            .filter_map(|r| {
                let (session, chat) = (r.session, r.chat);
                row((|| Some(log::Row { id: r.id?, seq: r.seq?, kind: r.kind?, at: r.at?, session, chat, data: r.data? }))())
            })
            .collect(),
    ))
}
