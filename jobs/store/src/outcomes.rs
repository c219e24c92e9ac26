//! What ends a job: job, message and events in one statement.

use contract::{Event, EventType, JobState, MessageStatus, Outcome};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    Held, Result,
    lane_jobs::LaneJob,
    log::{self, Columns, NewEvent},
};

/// What became of an outcome.
#[derive(Debug)]
pub enum Recorded {
    /// Written, with these events.
    Written(Vec<Event>),
    /// It had been written before by this owner (the answer was lost): its events are in the log.
    Already,
    /// This process no longer owns the session.
    Fenced,
}

/// The body of a `job.updated` event.
pub(crate) fn job_data(job: &LaneJob, attempts: i32, state: JobState, evidence: &Value, result: &Value, error: &Value) -> Value {
    json!({"job": {
        "id": job.id, "kind": job.kind, "state": state, "chat": job.chat, "message": job.message.map(|id| json!({"id": id})),
        "reference": job.reference, "attempts": attempts, "evidence": evidence, "result": result, "error": error,
    }})
}

/// Ends a running job under the ownership that started it; `job` as it was loaded before that start. The message is announced here, where it had not been.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats until it knows.
pub async fn record(pool: &PgPool, held: &Held, job: &LaneJob, outcome: &Outcome) -> Result<Recorded> {
    let none = Value::Null;
    let (evidence, result, error) = match outcome {
        Outcome::Succeeded { evidence, result } => (json!(evidence), result.clone().unwrap_or(Value::Null), none),
        Outcome::Failed(failure) | Outcome::Unknown(failure) => (none.clone(), none, json!(failure)),
    };
    let ack = match outcome {
        Outcome::Succeeded { evidence: Some(evidence), .. } => Some(evidence.ack),
        Outcome::Succeeded { evidence: None, .. } | Outcome::Failed(_) | Outcome::Unknown(_) => None,
    };
    let status = match outcome {
        Outcome::Succeeded { .. } => ack.map_or(MessageStatus::Sent, MessageStatus::from_ack),
        Outcome::Failed(_) => MessageStatus::Failed,
        Outcome::Unknown(_) => MessageStatus::Unknown,
    };
    let mut events = vec![NewEvent {
        kind: EventType::JobUpdated,
        chat: job.chat,
        data: job_data(job, job.attempt + 1, outcome.state(), &evidence, &result, &error),
    }];
    if let Some(data) = ack.and_then(|ack| own_message(job, ack)) {
        events.insert(0, NewEvent { kind: EventType::Message, chat: job.chat, data });
    }
    let columns = Columns::of(&events);
    let stored = |v: &Value| (!v.is_null()).then(|| v.clone());
    let rows = sqlx::query_as!(
        log::Row,
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                j as (
                    update job set state = $5, result = $6, evidence = $7, error = $8, finished_at = clock_timestamp()
                      from held
                     where job.id = $4 and job.session = $1 and job.tenant = held.tenant and job.state = 'running' and job.epoch = $2
                    returning job.tenant, job.message, job.chat),
                m as (
                    select message.id, message.announced_seq, message.ack from message join j on message.id = j.message
                       for no key update of message),
                told as (
                    select t.*, row_number() over (order by t.o) as n
                      from unnest($9::uuid[], $10::text[], $11::uuid[], $12::jsonb[]) with ordinality as t (id, kind, chat, data, o)
                     where t.kind <> 'message' or exists (select 1 from m where m.announced_seq is null)),
                c as (
                    update tenant_counter set seq = seq + (select count(*) from told) from j
                     where tenant_counter.tenant = j.tenant
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq - (select count(*) from told) + told.n, (c.at at time zone 'UTC')::date, told.id, told.kind, c.at, $1,
                           told.chat, told.data
                      from c, told
                    returning id, seq, type, at, session, chat, data),
                mm as (
                    update message set announced_seq = coalesce(m.announced_seq, (select seq from e where type = 'message')),
                           ack = greatest(m.ack, $13::smallint), status = case when m.ack > coalesce($13::smallint, 0) then message.status else $14 end
                      from m where message.id = m.id),
                ch as (
                    update chat set last_message_at = greatest(chat.last_message_at, (select at from c)) from j
                     where chat.id = j.chat and $13::smallint is not null)
           select id as "id!", seq as "seq!", type as "kind!", at as "at!", session, chat, data as "data!" from e order by seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.id.uuid(),
        outcome.state().as_str(),
        stored(&result),
        stored(&evidence),
        stored(&error),
        &columns.ids,
        &columns.kinds,
        &columns.chats as &[Option<uuid::Uuid>],
        &columns.data,
        ack,
        status.as_str(),
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() { not_written(pool, held, job).await } else { Ok(Recorded::Written(log::events(rows, held.tenant()))) }
}

async fn not_written(pool: &PgPool, held: &Held, job: &LaneJob) -> Result<Recorded> {
    let already = sqlx::query_scalar!(
        r#"select j.epoch = $2 and j.state not in ('queued', 'running') as "already!"
             from session s join job j on j.session = s.id
            where s.id = $1 and s.tenant = $5 and s.epoch = $2 and s.owner = $3 and j.id = $4"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.id.uuid(),
        held.tenant().uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(if already == Some(true) { Recorded::Already } else { Recorded::Fenced })
}

/// The body of the `message` event of a message that a job sent.
fn own_message(job: &LaneJob, ack: i16) -> Option<Value> {
    let message = job.message?;
    let contract::Command::SendText(send) = job.command.as_ref().ok()? else { return None };
    Some(json!({"message": {
        "id": message, "fromMe": true, "type": "text", "text": send.text, "status": MessageStatus::from_ack(ack), "ack": ack,
        "source": "api", "job": job.id, "reference": job.reference, "waId": contract::wa_id_of(message),
    }}))
}
