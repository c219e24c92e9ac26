//! What ends a job: job, message and events in one statement.

use contract::{
    Event, Evidence, Fact, Failure, JobId, JobResult, JobState, MessageStatus, Outcome, Timestamp,
    event::{JobBody, JobFact, MessageBody, MessageFact, MessageRef, MessageSource},
};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    Held, Result,
    lane_jobs::LaneJob,
    log::{self, Columns, NewEvent},
    receipts,
};

/// What became of an outcome.
#[derive(Debug)]
pub enum Recorded {
    /// Written, with these events.
    Written(Vec<Event>),
    /// It had been written before by this owner (the answer was lost): its events are in the log.
    Already,
    /// There is no such job any more: the database lost it.
    Gone,
    /// This process no longer owns the session.
    Fenced,
}

/// What a job ended with.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub evidence: Option<Evidence>,
    pub result: Option<JobResult>,
    pub error: Option<Failure>,
}

/// What is told of a job that ended.
pub(crate) fn job_fact(job: &LaneJob, attempts: i32, state: JobState, end: End) -> Fact {
    let End { evidence, result, error } = end;
    let fact = JobFact {
        id: job.id,
        kind: job.kind.clone(),
        state,
        chat: job.chat,
        message: job.message.map(|id| MessageRef { id }),
        reference: job.reference.clone(),
        created_by: job.created_by,
        resend_of: job.resend_of,
        attempts,
        evidence,
        result,
        error,
    };
    Fact::JobUpdated(JobBody { job: fact })
}

/// Ends a running job under the ownership that started it; `job` as it was loaded before that start. The message is announced here, where it
/// had not been, with the highest ack known; success is proof for every `unknown` job of the same message too.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats until it knows.
pub async fn record(pool: &PgPool, held: &Held, job: &LaneJob, outcome: &Outcome) -> Result<Recorded> {
    let end = match outcome {
        Outcome::Succeeded { evidence, result } => End { evidence: evidence.clone(), result: result.clone(), error: None },
        Outcome::Failed(failure) | Outcome::Unknown(failure) => End { error: Some(failure.clone()), ..End::default() },
    };
    let (result, evidence, error) =
        (end.result.as_ref().map(|r| json!(r)), end.evidence.as_ref().map(|e| json!(e)), end.error.as_ref().map(|e| json!(e)));
    let proof = match outcome {
        Outcome::Succeeded { evidence: Some(evidence), .. } => Some(evidence),
        Outcome::Succeeded { evidence: None, .. } | Outcome::Failed(_) | Outcome::Unknown(_) => None,
    };
    let ack = proof.map(|e| e.ack);
    let status = match outcome {
        Outcome::Succeeded { .. } => ack.map_or(MessageStatus::Sent, MessageStatus::from_ack),
        Outcome::Failed(_) => MessageStatus::Failed,
        Outcome::Unknown(_) => MessageStatus::Unknown,
    };
    let mut events = vec![NewEvent::of(job.chat, &job_fact(job, job.attempt + 1, outcome.state(), end))];
    if let Some(told) = ack.and_then(|ack| own_message(job, ack)) {
        events.insert(0, NewEvent::of(job.chat, &told));
    }
    // The caller lets no receipt be recorded meanwhile, so these are all, and none of them turns before this does.
    if let (Some(proof), Some(message)) = (proof, job.message) {
        let others = receipts::unknown_jobs(pool, held, message, Some(job.id)).await?;
        events.extend(others.iter().map(|other| receipts::proved(other, proof.ack, Some(&proof.wa_key))));
    }
    let columns = Columns::of(&events);
    let reads = matches!(outcome, Outcome::Succeeded { result: Some(JobResult::Read { .. }), .. });
    let rows = sqlx::query_as!(
        log::Row,
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                j as (
                    update job set state = $5, result = $6, error = $8, finished_at = clock_timestamp(),
                           evidence = case when $13::smallint is null then $7::jsonb else jsonb_set($7::jsonb, '{ack}', to_jsonb(greatest(
                               (select message.ack from message where message.id = job.message), $13::smallint))) end
                      from held
                     where job.id = $4 and job.session = $1 and job.tenant = held.tenant and job.state = 'running' and job.epoch = $2
                    returning job.tenant, job.message, job.chat),
                m as (
                    select message.id, message.announced_seq, message.ack, greatest(message.ack, $13::smallint) as known
                      from message join j on message.id = j.message
                       for no key update of message),
                others as (
                    update job set state = 'succeeded', error = null,
                           evidence = jsonb_build_object('waKey', coalesce(job.wa_key, $7::jsonb ->> 'waKey'), 'ack', m.known)
                      from j join m on m.id = j.message where job.session = $1 and job.message = j.message and job.id <> $4 and job.state = 'unknown' and $13::smallint >= 1
                    returning 1),
                told as (
                    select t.id, t.kind, t.chat, row_number() over (order by t.o) as n,
                           case when t.kind = 'message' and m.known > $13
                                then jsonb_set(jsonb_set(t.data, '{message,ack}', to_jsonb(m.known)), '{message,status}',
                                               to_jsonb(case m.known when 2 then 'delivered' when 3 then 'read' else 'played' end::text))
                                when t.kind = 'job.updated' and m.known > $13
                                then jsonb_set(t.data, '{job,evidence,ack}', to_jsonb(m.known))
                                else t.data end as data
                      from unnest($9::uuid[], $10::text[], $11::uuid[], $12::jsonb[]) with ordinality as t (id, kind, chat, data, o)
                      left join m on true
                     where t.kind <> 'message' or m.id is not null and m.announced_seq is null),
                c as (
                    update tenant_counter set seq = seq + (select count(*) from told) from j
                     where tenant_counter.tenant = j.tenant and (select count(*) from others) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq - (select count(*) from told) + told.n, (c.at at time zone 'UTC')::date, told.id, told.kind, c.at, $1,
                           told.chat, told.data
                      from c, told
                    returning id, seq, type, at, session, chat, data),
                mm as (
                    update message set announced_seq = coalesce(m.announced_seq, (select seq from e where type = 'message')), ack = m.known,
                           status = case when m.ack > coalesce($13::smallint, 0) then message.status
                                         when $14 = 'failed' and exists (
                                              select 1 from job o where o.message = m.id and o.id <> $4 and o.state = 'unknown') then 'unknown'
                                         else $14 end
                      from m where message.id = m.id),
                ch as (
                    update chat set last_message_at = case when $13::smallint is null then chat.last_message_at
                                                           else greatest(chat.last_message_at, (select at from c)) end,
                           unread = case when $15 then 0 else chat.unread end
                      from j join chat told on told.id = j.chat
                     where chat.id = coalesce(told.merged_into, told.id) and ($13::smallint is not null or $15))
           select id as "id!", seq as "seq!", type as "kind!", at as "at!", session, chat, data as "data!" from e order by seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.id.uuid(),
        outcome.state().as_str(),
        result,
        evidence,
        error,
        &columns.ids,
        &columns.kinds,
        &columns.chats as &[Option<uuid::Uuid>],
        &columns.data,
        ack,
        status.as_str(),
        reads,
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() { not_written(pool, held, job).await } else { Ok(Recorded::Written(log::events(rows, held.tenant()))) }
}

async fn not_written(pool: &PgPool, held: &Held, job: &LaneJob) -> Result<Recorded> {
    let row = sqlx::query!(
        r#"select j.epoch = $2 and j.state not in ('queued', 'running') as "already?", j.id is null as "gone!"
             from session s left join job j on j.session = s.id and j.id = $4
            where s.id = $1 and s.tenant = $5 and s.epoch = $2 and s.owner = $3"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.id.uuid(),
        held.tenant().uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        Some(row) if row.gone => Recorded::Gone,
        Some(row) if row.already == Some(true) => Recorded::Already,
        Some(_) | None => Recorded::Fenced,
    })
}

/// A receipt that was recorded for a running job's message.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn proof(pool: &PgPool, held: &Held, job: JobId) -> Result<Option<Evidence>> {
    let row = sqlx::query!(
        r#"select j.wa_key as "wa_key!", m.ack as "ack!" from job j join message m on m.id = j.message
            where j.tenant = $1 and j.session = $2 and j.id = $3 and j.wa_key is not null and m.ack >= 1"#,
        held.tenant().uuid(),
        held.session().uuid(),
        job.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| Evidence { wa_key: r.wa_key, ack: r.ack }))
}

/// What is told of a message that a job sent.
pub(crate) fn own_message(job: &LaneJob, ack: i16) -> Option<Fact> {
    let (id, accepted_at) = (job.message?, job.message_at?);
    let contract::Command::SendText(send) = job.command.as_ref().ok()? else { return None };
    let message = MessageFact {
        id,
        from_me: true,
        kind: "text".to_owned(),
        text: Some(send.text.clone()),
        status: MessageStatus::from_ack(ack),
        ack,
        source: MessageSource::Api,
        sent_by: Some(job.created_by),
        wa_id: contract::wa_id_of(id),
        sender: None,
        reply_to: None,
        timestamp: Timestamp(accepted_at),
        recovered: false,
        job: Some(job.id),
        reference: job.reference.clone(),
    };
    Some(Fact::Message(MessageBody { message }))
}
