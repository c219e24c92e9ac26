//! Jobs that a worker does. Each is handed out under a claim, a fresh id with an end; whoever does it renews the claim and names it in
//! whatever it writes about the job. A claim that lapsed is followed by another, and what still names it writes nothing.

use std::time::Duration;

use contract::{ChatId, Command, Event, Fact, JobId, Outcome, Progress, SessionId, TenantId};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Result,
    accept::{self, Accepted, IdempotencyKey, NewJob},
    lane_jobs::{self, LaneJob},
    log::{self, Columns, NewEvent},
    outcomes::{End, job_fact},
};

/// Accepts one: [`accept::accept`] without a place in the session's order.
pub(crate) async fn accept(pool: &PgPool, job: &NewJob, key: Option<&IdempotencyKey>) -> Result<Accepted> {
    let made = sqlx::query_scalar!(
        r#"with idem as (
               insert into idempotency (tenant, principal, method, path, key, body_hash, job)
               select $2, $10, $11, $12, $13, $14, $1 where $13::text is not null
               on conflict do nothing returning 1),
           ch as (
               select coalesce(merged_into, id) as id from chat
                where id = $7 and tenant = $2 and ($13::text is null or exists (select 1 from idem)) for share)
           insert into job (id, tenant, session, lane, kind, command_version, command, chat, reference, created_by, expires_at)
           select $1, $2, s.id, 'background', $4, $5, $6, (select id from ch), $8, $9, clock_timestamp() + make_interval(secs => $15)
             from session s
            where s.id = $3 and s.tenant = $2 and s.deleting_at is null and ($13::text is null or exists (select 1 from idem))
              and ($7::uuid is null or exists (select 1 from ch))
           returning id"#,
        job.id.uuid(),
        job.tenant.uuid(),
        job.session.uuid(),
        job.command.kind(),
        Command::VERSION,
        job.command.encode(),
        job.chat.map(ChatId::uuid),
        job.reference,
        job.created_by,
        key.map(|k| k.principal),
        key.map(|k| k.method.as_str()),
        key.map(|k| k.path.as_str()),
        key.map(|k| k.key.as_str()),
        key.map(|k| k.body_hash.as_slice()),
        job.expires_in.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await?;
    match (made, key) {
        (Some(_), _) => Ok(Accepted::New { position: 0 }),
        (None, Some(key)) => accept::replayed(pool, job.tenant, key).await?.ok_or_else(|| sqlx::Error::RowNotFound.into()),
        (None, None) => Err(sqlx::Error::RowNotFound.into()),
    }
}

/// The right to do a job, until it lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    tenant: TenantId,
    job: JobId,
    id: Uuid,
}

impl Claim {
    /// As it was carried to whoever is to do the job.
    pub const fn carried(tenant: TenantId, job: JobId, id: Uuid) -> Self {
        Self { tenant, job, id }
    }
    /// Whose job.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// Which job.
    pub const fn job(&self) -> JobId {
        self.job
    }
    /// What tells it from other claims on the same job.
    pub const fn id(&self) -> Uuid {
        self.id
    }
}

/// Hands out jobs that nobody does, the oldest of each tenant: one at a time, so that no tenant keeps all workers. A claim that nobody
/// takes up or renews within `lasts` is followed by another.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn hand_out(pool: &PgPool, lasts: Duration, limit: i64) -> Result<Vec<Claim>> {
    let rows = sqlx::query!(
        r#"with due as (
               select distinct on (j.tenant) j.id from job j
                where j.lane = 'background' and (j.state = 'running' or j.state = 'queued' and j.expires_at > clock_timestamp())
                  and not exists (
                      select 1 from job o
                       where o.tenant = j.tenant and o.lane = 'background' and o.state in ('queued', 'running')
                         and o.claimed_until > clock_timestamp())
                order by j.tenant, j.id limit $2)
           update job set claim = gen_random_uuid(), claimed_until = clock_timestamp() + make_interval(secs => $1) from due
            where job.id = due.id and job.state in ('queued', 'running') and coalesce(job.claimed_until <= clock_timestamp(), true)
           returning job.tenant, job.id, job.claim as "claim!""#,
        lasts.as_secs_f64(),
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| Claim::carried(TenantId::from_uuid(r.tenant), JobId::from_uuid(r.id), r.claim)).collect())
}

/// A job under way.
#[derive(Debug)]
pub struct Begun {
    /// The right to do it.
    pub claim: Claim,
    /// What is to be done.
    pub job: LaneJob,
    /// What whoever did it before left behind with [`note`].
    pub memory: Option<Value>,
}

/// Takes up what was handed out. The claim gets another id: one that is delivered twice is taken up once. `None`: it has lapsed, was taken
/// up, or the job has ended.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn begin(pool: &PgPool, claim: &Claim, lasts: Duration) -> Result<Option<Begun>> {
    let taken = sqlx::query!(
        r#"update job set state = 'running', claim = gen_random_uuid(), claimed_until = clock_timestamp() + make_interval(secs => $4),
                  attempt = attempt + 1, started_at = coalesce(started_at, clock_timestamp())
            where tenant = $1 and id = $2 and claim = $3 and lane = 'background'
              and (state = 'running' or state = 'queued' and expires_at > clock_timestamp())
           returning session, claim as "claim!", memory"#,
        claim.tenant.uuid(),
        claim.job.uuid(),
        claim.id,
        lasts.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    let Some(taken) = taken else { return Ok(None) };
    let job = lane_jobs::load(pool, claim.tenant, SessionId::from_uuid(taken.session), claim.job).await?;
    Ok(job.map(|job| Begun { claim: Claim::carried(claim.tenant, claim.job, taken.claim), job, memory: taken.memory }))
}

/// Renews a claim. `false`: it is another's now, or the job is gone.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn keep(pool: &PgPool, claim: &Claim, lasts: Duration) -> Result<bool> {
    let kept = sqlx::query!(
        "update job set claimed_until = clock_timestamp() + make_interval(secs => $4) where tenant = $1 and id = $2 and claim = $3",
        claim.tenant.uuid(),
        claim.job.uuid(),
        claim.id,
        lasts.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Lets go of a job that has not ended, so that it is handed out again `after` a while. `uncounted`: nothing failed, it only waits.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn put_off(pool: &PgPool, claim: &Claim, after: Duration, uncounted: bool) -> Result<()> {
    sqlx::query!(
        "update job set claim = null, claimed_until = clock_timestamp() + make_interval(secs => $4),
                attempt = case when $5 and attempt > 1 then attempt - 1 else attempt end
          where tenant = $1 and id = $2 and claim = $3",
        claim.tenant.uuid(),
        claim.job.uuid(),
        claim.id,
        after.as_secs_f64(),
        uncounted
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes down how far a job has come, and what whoever goes on with it has to know. `false`: the claim has lapsed.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn note(pool: &PgPool, claim: &Claim, progress: Progress, memory: Option<&Value>) -> Result<bool> {
    let noted = sqlx::query!(
        "update job set progress = $4, memory = coalesce($5, memory) where tenant = $1 and id = $2 and claim = $3 and state = 'running'",
        claim.tenant.uuid(),
        claim.job.uuid(),
        claim.id,
        json!(progress),
        memory
    )
    .execute(pool)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// How a job ends.
#[derive(Debug)]
pub struct Ending {
    /// What became of it.
    pub outcome: Outcome,
    /// What is told besides the job's own end, before it, and of which sessions.
    pub told: Vec<(SessionId, Fact)>,
    /// What takes the place of the command, where it must not stay.
    pub command: Option<Command>,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, told: Vec::new(), command: None }
    }
}

/// Ends a job: row and events in one statement. Empty: the claim has lapsed.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn finish(pool: &PgPool, begun: &Begun, ending: &Ending) -> Result<Vec<Event>> {
    let (claim, job) = (&begun.claim, &begun.job);
    let end = match &ending.outcome {
        Outcome::Succeeded { evidence, result } => End { evidence: evidence.clone(), result: result.clone(), error: None },
        Outcome::Failed(failure) | Outcome::Unknown(failure) => End { error: Some(failure.clone()), ..End::default() },
    };
    let (result, error) = (end.result.as_ref().map(|r| json!(r)), end.error.as_ref().map(|e| json!(e)));
    let mut events: Vec<NewEvent> = ending.told.iter().map(|(_, fact)| NewEvent::of(None, fact)).collect();
    let sessions: Vec<Uuid> = ending.told.iter().map(|(session, _)| session.uuid()).chain([job.session.uuid()]).collect();
    events.push(NewEvent::of(job.chat, &job_fact(job, job.attempt, ending.outcome.state(), end)));
    let columns = Columns::of(&events);
    let rows = sqlx::query_as!(
        log::Row,
        r#"with j as (
                    update job set state = $4, result = $5, error = $6, command = coalesce($7, command), finished_at = clock_timestamp(),
                           claim = null, claimed_until = null, memory = null
                     where tenant = $1 and id = $2 and claim = $3 and state = 'running'
                    returning tenant),
                c as (
                    update tenant_counter set seq = seq + cardinality($8::uuid[]) from j where tenant_counter.tenant = j.tenant
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at)
           insert into event (tenant, seq, day, id, type, at, session, chat, data)
           select c.tenant, c.seq - cardinality($8::uuid[]) + t.o, (c.at at time zone 'UTC')::date, t.id, t.kind, c.at, t.session, t.chat, t.data
             from c, unnest($8::uuid[], $9::text[], $10::uuid[], $11::jsonb[], $12::uuid[]) with ordinality as t (id, kind, chat, data, session, o)
           returning id, seq, type as kind, at, session, chat, data"#,
        claim.tenant.uuid(),
        claim.job.uuid(),
        claim.id,
        ending.outcome.state().as_str(),
        result,
        error,
        ending.command.as_ref().map(Command::encode),
        &columns.ids,
        &columns.kinds,
        &columns.chats as &[Option<Uuid>],
        &columns.data,
        &sessions,
    )
    .fetch_all(pool)
    .await?;
    let mut events = log::events(rows, claim.tenant);
    events.sort_by_key(|e| e.seq);
    Ok(events)
}
