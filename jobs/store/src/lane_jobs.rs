//! Jobs as their owner sees them: what a lane holds, and the start.

use chrono::{DateTime, Utc};
use contract::{
    ChatId, Command, CommandError, Event, Fact, JobId, JobState, Lane, MessageId, Principal, SessionId, SessionSettings, TenantId,
    event::{JobLostBody, JobRef},
};
use sqlx::PgPool;

use crate::{
    Held, Result,
    accept::Waiting,
    log::{self, NewEvent, OwnedRow},
};

/// A job that an owner is about to run.
#[derive(Debug)]
pub struct LaneJob {
    /// Which.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// For which session.
    pub session: SessionId,
    /// In which lane.
    pub lane: Lane,
    /// Where it is now.
    pub state: JobState,
    /// The command, or why it cannot be run here.
    pub command: Result<Command, CommandError>,
    /// The name callers see.
    pub kind: String,
    /// The chat it concerns.
    pub chat: Option<ChatId>,
    /// The message it sends.
    pub message: Option<MessageId>,
    /// When that message was accepted.
    pub message_at: Option<DateTime<Utc>>,
    /// The caller's reference.
    pub reference: Option<String>,
    /// Who asked for it.
    pub created_by: Principal,
    /// How often it was started.
    pub attempt: i32,
    /// The ownership under which it was last started.
    pub epoch: Option<i64>,
    /// The full WhatsApp key of its first start.
    pub wa_key: Option<String>,
    /// The keys under which other jobs were started for the same message.
    pub other_keys: Vec<String>,
    /// The job whose message it sends again.
    pub resend_of: Option<JobId>,
    /// What the tenant has set for the session, now.
    pub settings: SessionSettings,
}

/// Reads one job of a session. `None`: no such row.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn load(pool: &PgPool, tenant: TenantId, session: SessionId, job: JobId) -> Result<Option<LaneJob>> {
    let row = sqlx::query!(
        r#"select j.lane, j.state, j.kind, j.command_version, j.command, coalesce(c.merged_into, j.chat) as chat, j.message, j.reference, j.created_by,
                  exists (select 1 from api_key k where k.id = j.created_by and k.tenant = $1) as "by_key!", j.attempt, j.epoch, j.wa_key, j.resend_of, s.settings,
                  (select m.sent_at from message m where m.id = j.message and m.tenant = $1) as message_at,
                  array(select o.wa_key from job o where o.message = j.message and o.tenant = $1 and o.id <> j.id and o.wa_key is not null) as "other_keys!: Vec<String>"
             from job j join session s on s.id = j.session left join chat c on c.id = j.chat
            where j.tenant = $1 and j.session = $2 and j.id = $3"#,
        tenant.uuid(),
        session.uuid(),
        job.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| LaneJob {
        id: job,
        tenant,
        session,
        // The table's check constraints allow no other name.
        lane: Lane::from_name(&r.lane).unwrap_or(Lane::Write),
        state: JobState::from_name(&r.state).unwrap_or(JobState::Unknown),
        command: Command::decode(r.command_version, r.command),
        kind: r.kind,
        chat: r.chat.map(ChatId::from_uuid),
        message: r.message.map(MessageId::from_uuid),
        message_at: r.message_at,
        reference: r.reference,
        created_by: Principal::of(r.created_by, r.by_key),
        attempt: r.attempt,
        epoch: r.epoch,
        wa_key: r.wa_key,
        other_keys: r.other_keys,
        resend_of: r.resend_of.map(JobId::from_uuid),
        settings: serde_json::from_value(r.settings).unwrap_or_default(),
    }))
}

/// All that a session's lanes should hold, in order.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn unfinished(pool: &PgPool, tenant: TenantId, session: SessionId) -> Result<Vec<Waiting>> {
    let rows = sqlx::query!(
        r#"select id, lane, position as "position!" from job
            where tenant = $1 and session = $2 and position is not null and state in ('queued', 'running') order by position"#,
        tenant.uuid(),
        session.uuid()
    )
    .fetch_all(pool)
    .await?;
    let waiting = |lane: Lane, id, position| Waiting { job: JobId::from_uuid(id), session, lane, position };
    Ok(rows.into_iter().filter_map(|r| Some(waiting(Lane::from_name(&r.lane)?, r.id, r.position))).collect())
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Ours: the page may be asked to act.
    Started {
        /// How often it has been started, this time included.
        attempt: i32,
    },
    /// This process no longer owns the session.
    Fenced,
    /// It has ended (cancelled, or by another owner).
    Ended,
    /// There is no such job (any more).
    Gone,
    /// Its time ran out while it was queued.
    Expired,
    /// It was accepted for an account that is not the linked one any more.
    OtherAccount,
    /// A smaller position of the write lane is unfinished: the lane lost an entry.
    Overtaken,
}

/// The last thing before the page is asked to act: one statement that checks ownership, state, expiry, that the chat is one of the account
/// that is linked now, and that nothing earlier in the write lane is unfinished. Of a deleted session only its logout starts.
///
/// `attempt` is the count that [`load`] saw: a start whose answer was lost is repeated with the same, and counts once however often it is
/// said. `wa_key` is stored once and kept.
///
/// # Errors
/// [`crate::StoreError`]; then nothing may be asked of the page.
pub async fn start(pool: &PgPool, held: &Held, job: JobId, attempt: i32, wa_key: Option<&str>) -> Result<Start> {
    let started = sqlx::query_scalar!(
        "with held as (select tenant, account, deleting_at from session where id = $1 and epoch = $2 and owner = $3 for no key update),
              j as (
                  update job set state = 'running', epoch = $2, wa_key = coalesce(wa_key, $6),
                         attempt = attempt + case when job.state = 'running' and job.epoch = $2 and job.attempt = $5 + 1 then 0 else 1 end,
                         started_at = coalesce(started_at, clock_timestamp())
                    from held
                   where job.id = $4 and job.session = $1 and job.tenant = held.tenant
                     and (job.state = 'queued' and job.expires_at > clock_timestamp()
                          or job.state = 'running' and (job.epoch < $2 or job.attempt = $5 or job.epoch = $2 and job.attempt = $5 + 1))
                     and (held.deleting_at is null or job.kind = 'logout')
                     and (job.chat is null or job.wa_key is not null or exists (
                          select 1 from chat c where c.id = job.chat and c.account in ('', coalesce(held.account, ''))))
                     and (job.lane <> 'write' or not exists (
                          select 1 from job smaller
                           where smaller.session = $1 and smaller.lane = 'write' and smaller.state in ('queued', 'running')
                             and smaller.position < job.position))
                  returning job.attempt, job.message),
              m as (update message set status = 'sending' from j where message.id = j.message and message.status = 'queued')
         select attempt from j",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.uuid(),
        attempt,
        wa_key
    )
    .fetch_optional(pool)
    .await?;
    match started {
        Some(attempt) => Ok(Start::Started { attempt }),
        None => refused(pool, held, job).await,
    }
}

async fn refused(pool: &PgPool, held: &Held, job: JobId) -> Result<Start> {
    let row = sqlx::query!(
        r#"select s.epoch = $3 and s.owner = $4 as "ours", s.deleting_at is not null as "deleting!", j.state as "state?",
                  j.expires_at <= clock_timestamp() as "late?", c.account not in ('', coalesce(s.account, '')) as "other?"
             from session s left join job j on j.id = $5 and j.session = s.id left join chat c on c.id = j.chat
            where s.id = $1 and s.tenant = $2"#,
        held.session().uuid(),
        held.tenant().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.uuid()
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row.filter(|r| r.ours == Some(true)) else { return Ok(Start::Fenced) };
    if row.deleting {
        return Ok(Start::Ended);
    }
    Ok(match row.state.as_deref().and_then(JobState::from_name) {
        Some(JobState::Queued) if row.late == Some(true) => Start::Expired,
        Some(JobState::Queued | JobState::Running) if row.other == Some(true) => Start::OtherAccount,
        Some(JobState::Queued | JobState::Running) => Start::Overtaken,
        Some(JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown) => Start::Ended,
        None => Start::Gone,
    })
}

/// Announces that a job is not here which somebody accepted: this database has lost it. The event's id is made of the job's, so that it is
/// known when it is told again. `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn lost(pool: &PgPool, held: &Held, job: JobId) -> Result<Option<Vec<Event>>> {
    let event = NewEvent::of(None, &Fact::JobLost(JobLostBody { job: JobRef { id: job } }));
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                c as (
                    update tenant_counter set seq = seq + 1 from held
                     where tenant_counter.tenant = held.tenant and not exists (select 1 from job where job.tenant = held.tenant and job.id = $4)
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, data)
                    select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $4, $5, c.at, $1, $6 from c
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        job.uuid(),
        event.kind.as_str(),
        event.data
    )
    .fetch_all(pool)
    .await?;
    Ok(log::owned_events(rows, held.tenant()))
}

/// Sessions of all tenants that have unfinished jobs in their lanes.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn sessions_with_work(pool: &PgPool) -> Result<Vec<(TenantId, SessionId)>> {
    let rows = sqlx::query!("select distinct tenant, session from job where state in ('queued', 'running') and lane <> 'background'")
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), SessionId::from_uuid(r.session))).collect())
}
