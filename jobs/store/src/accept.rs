//! Taking a command on: idempotency key, position, job and message commit together or not at all.

use std::time::Duration;

use contract::{ChatId, Command, JobId, Lane, MessageId, SessionId, TenantId, wa_id_of};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, background_jobs};

/// A command to accept. The ids are the caller's, made before the statement: after an unclear COMMIT it can look for them.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// For which session of the tenant.
    pub session: SessionId,
    /// What to do.
    pub command: Command,
    /// The chat it concerns.
    pub chat: Option<ChatId>,
    /// The message it sends.
    pub message: Option<NewMessage>,
    /// The job whose message it sends again.
    pub resend_of: Option<JobId>,
    /// The caller's own reference.
    pub reference: Option<String>,
    /// User or key.
    pub created_by: Uuid,
    /// How long it may wait for its start.
    pub expires_in: Duration,
    /// Whether the caller asked to queue it although the session needs a person.
    pub queue_when_down: bool,
}

/// The message row of a job that sends; of one that sends again, the row that is there already.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its id, from which WhatsApp's is derived.
    pub id: MessageId,
    /// `text`, …
    pub kind: &'static str,
    /// The text.
    pub body: String,
    /// The session's linked account, empty before the first link.
    pub account: String,
}

/// A caller's `Idempotency-Key` and what it is compared within.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// User or key.
    pub principal: Uuid,
    /// HTTP method.
    pub method: String,
    /// Path as called.
    pub path: String,
    /// The header.
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Committed at this position.
    New {
        /// Its place in the session's order; 0 where it has none, because a worker does it.
        position: i64,
    },
    /// The key was used before with the same body: this is its job.
    Replayed {
        /// The first request's job.
        job: JobId,
    },
    /// The key was used before with another body.
    KeyReused,
    /// The session has written to as many new chats today as it may. Nothing was written.
    NewChatCap {
        /// When the day is over.
        again_in: Duration,
    },
    /// As many jobs of the session are unfinished as may be. Nothing was written.
    LaneFull,
}

/// Accepts a command in one statement. The row lock of `lane_position` makes position order commit order, and the count of new chats exact:
/// a private chat in which nothing has been written or sent counts, and where the count goes beyond its cap (rising over the 14 days after
/// linking) a constraint refuses the whole statement.
///
/// How many jobs may be unfinished is kept the same way: the next position may be so far ahead of the first unfinished one. Where none is seen
/// unfinished, that is the position after those that are seen; who came meanwhile has raised `n` all the same. The control lane is never full:
/// what it does may be what empties the others.
///
/// The chat's row is locked before, so that a merge either comes first and is followed, or finds the job and moves it. Such a chat is not new
/// where one of those that lead to it was not: their messages move after the merge, and its snapshot may be newer than ours.
///
/// # Errors
/// [`crate::StoreError`]; after a lost connection the outcome is unclear: ask [`committed`].
pub async fn accept(pool: &PgPool, job: &NewJob, key: Option<&IdempotencyKey>) -> Result<Accepted> {
    if job.command.lane() == Lane::Background {
        return background_jobs::accept(pool, job, key).await;
    }
    let message = job.message.as_ref();
    let position = sqlx::query_scalar!(
        r#"with idem as (
               insert into idempotency (tenant, principal, method, path, key, body_hash, job)
               select $2, $14, $15, $16, $17, $18, $1 where $17::text is not null
               on conflict do nothing returning 1),
           ch as (
               select coalesce(merged_into, id) as id from chat
                where id = $8 and tenant = $2 and ($17::text is null or exists (select 1 from idem)) for share),
           today as (select (clock_timestamp() at time zone 'UTC')::date as d),
           fresh as (
               select d, limit_of($2, 'newChatsPerDayAtFirst') as low, limit_of($2, 'newChatsPerDay') as high,
                      least(coalesce(extract(epoch from clock_timestamp() - s.linked_at) / 86400, 0), 14) / 14 as grown
                 from today, ch join chat c on c.id = ch.id join session s on s.id = c.session
                where $9::uuid is not null and c.kind = 'private' and not exists (
                      select 1 from chat w
                       where (w.id in (c.id, $8) or w.merged_into = c.id)
                         and (w.last_message_at is not null or exists (select 1 from message where chat = w.id)))),
           ahead as (
               select coalesce((
                      select min(first.position)
                        from (values ('write'), ('query'), ('control')) lanes (lane),
                             lateral (select j.position from job j
                                       where j.session = $3 and j.lane = lanes.lane and j.state in ('queued', 'running')
                                         and j.position is not null
                                       order by j.position limit 1) first), q.n + 1) as first,
                      case when $4 <> 'control' then limit_of($2, 'queuedJobsPerSession') end as cap
                 from lane_position q where q.session = $3 and q.tenant = $2),
           pos as (
               update lane_position p
                  set n = n + 1,
                      depth = p.n + 2 - (select first from ahead),
                      depth_cap = (select cap from ahead),
                      new_chats = case when not exists (select 1 from fresh) then p.new_chats
                                       when p.new_chats_on = (select d from fresh) then p.new_chats + 1 else 1 end,
                      new_chats_on = coalesce((select d from fresh), p.new_chats_on),
                      new_chats_cap = coalesce((select floor(least(low, high) + greatest(high - low, 0) * grown)::integer from fresh), p.new_chats_cap)
                where session = $3 and tenant = $2 and ($17::text is null or exists (select 1 from idem))
                  and ($8::uuid is null or exists (select 1 from ch))
               returning n),
           j as (
               insert into job (id, tenant, session, lane, position, kind, command_version, command, chat, message, reference, created_by,
                                queue_when_down, expires_at, resend_of)
               select $1, $2, $3, $4, n, $5, $6, $7, (select id from ch), $9, $10, $11, $12, clock_timestamp() + make_interval(secs => $13), $23
                 from pos
               returning position),
           m as (
               insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, body, status, source, sent_by, reference,
                                    job, sent_at)
               select $9, $2, $3, $19, ch.id, true, '', $20, $21, $22, 'queued', 'api', $11, $10, $1, date_trunc('second', clock_timestamp())
                 from pos, ch where $9::uuid is not null and $23::uuid is null),
           again as (
               update message set status = 'queued', job = $1 from pos
                where message.id = $9 and message.tenant = $2 and $23::uuid is not null and coalesce(message.ack, 0) < 1)
           select position as "position!" from j"#,
        job.id.uuid(),
        job.tenant.uuid(),
        job.session.uuid(),
        job.command.lane().as_str(),
        job.command.kind(),
        Command::VERSION,
        job.command.encode(),
        job.chat.map(ChatId::uuid),
        message.map(|m| m.id.uuid()),
        job.reference,
        job.created_by,
        job.queue_when_down,
        job.expires_in.as_secs_f64(),
        key.map(|k| k.principal),
        key.map(|k| k.method.as_str()),
        key.map(|k| k.path.as_str()),
        key.map(|k| k.key.as_str()),
        key.map(|k| k.body_hash.as_slice()),
        message.map(|m| m.account.as_str()),
        message.map(|m| wa_id_of(m.id)),
        message.map(|m| m.kind),
        message.map(|m| m.body.as_str()),
        job.resend_of.map(JobId::uuid),
    )
    .fetch_optional(pool)
    .await;
    let position = match position {
        Ok(position) => position,
        Err(sqlx::Error::Database(why)) if why.constraint() == Some("lane_position_new_chat_cap") => {
            return Ok(Accepted::NewChatCap { again_in: until_midnight(pool).await? });
        }
        Err(sqlx::Error::Database(why)) if why.constraint() == Some("lane_position_lane_full") => return Ok(Accepted::LaneFull),
        Err(why) => return Err(why.into()),
    };
    match (position, key) {
        (Some(position), _) => Ok(Accepted::New { position }),
        (None, Some(key)) => replayed(pool, job.tenant, key).await?.ok_or_else(|| sqlx::Error::RowNotFound.into()),
        // Without a key only a missing counter row leaves nothing to insert.
        (None, None) => Err(sqlx::Error::RowNotFound.into()),
    }
}

/// Until the day is over in UTC.
async fn until_midnight(pool: &PgPool) -> Result<Duration> {
    let now = crate::snapshot::now(pool).await?;
    Ok(Duration::from_secs(u64::try_from(86_400 - now.timestamp().rem_euclid(86_400)).unwrap_or(0)))
}

/// What a key was used for before: [`Accepted::Replayed`], [`Accepted::KeyReused`], or `None`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn replayed(pool: &PgPool, tenant: TenantId, key: &IdempotencyKey) -> Result<Option<Accepted>> {
    let row = sqlx::query!(
        "select job, body_hash from idempotency where tenant = $1 and principal = $2 and method = $3 and path = $4 and key = $5",
        tenant.uuid(),
        key.principal,
        key.method,
        key.path,
        key.key
    )
    .fetch_optional(pool)
    .await?;
    let same = |hash: Vec<u8>| hash == key.body_hash;
    Ok(row.and_then(|r| {
        let same = same(r.body_hash);
        // A path that makes jobs makes nothing else.
        r.job.map(|job| if same { Accepted::Replayed { job: JobId::from_uuid(job) } } else { Accepted::KeyReused })
    }))
}

/// Where a job waits: what a push needs. `None` where it was not accepted, has ended, or has not entered its lane.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn waiting(pool: &PgPool, tenant: TenantId, job: JobId) -> Result<Option<Waiting>> {
    let row = sqlx::query!(
        r#"select session, lane, position as "position!" from job
            where tenant = $1 and id = $2 and position is not null and state in ('queued', 'running')"#,
        tenant.uuid(),
        job.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(|r| {
        Some(Waiting { job, session: SessionId::from_uuid(r.session), lane: contract::Lane::from_name(&r.lane)?, position: r.position })
    }))
}

/// The position under which a job was committed. `None`: there is no such job.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn committed(pool: &PgPool, tenant: TenantId, job: JobId) -> Result<Option<i64>> {
    let position = sqlx::query_scalar!("select position from job where tenant = $1 and id = $2", tenant.uuid(), job.uuid())
        .fetch_optional(pool)
        .await?;
    Ok(position.map(Option::unwrap_or_default))
}

/// An unfinished job's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub job: JobId,
    /// In which session.
    pub session: SessionId,
    /// In which lane.
    pub lane: contract::Lane,
    /// At which position.
    pub position: i64,
}
