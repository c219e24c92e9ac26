//! What an erasure removes in batches. Each batch is a statement; `true` where there may be more is a full one.

use chrono::{DateTime, Utc};
use contract::{EventType, JobId, SessionId, TenantId, event::Erased};
use serde_json::json;
use sqlx::PgPool;

use super::{Person, Scope};
use crate::{
    Result,
    lane_jobs::{self, LaneJob},
};

/// An erasure under way: where, who, and of what time.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Where.
    pub scope: Scope,
    /// Who.
    pub person: Person,
    /// What is older goes.
    pub until: DateTime<Utc>,
}

/// The jobs that were accepted before and had not ended for good then, and takes the callers' references from all of them and their messages.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn open_jobs(pool: &PgPool, erasure: &Erasure) -> Result<Vec<LaneJob>> {
    let tenant = erasure.scope.tenant;
    sqlx::query!(
        "update job set reference = null where tenant = $1 and chat = any($2) and created_at <= $3 and reference is not null",
        tenant.uuid(),
        &erasure.person.chats,
        erasure.until
    )
    .execute(pool)
    .await?;
    // Receipts that come until the message goes would tell it again.
    sqlx::query!(
        "update message set reference = null where tenant = $1 and chat = any($2) and created_at <= $3 and reference is not null",
        tenant.uuid(),
        &erasure.person.chats,
        erasure.until
    )
    .execute(pool)
    .await?;
    let rows = sqlx::query!(
        "select session, id from job
          where tenant = $1 and chat = any($2) and created_at <= $3 and lane in ('write', 'query')
            and (state in ('queued', 'running', 'unknown') or finished_at > $3)
          order by id",
        tenant.uuid(),
        &erasure.person.chats,
        erasure.until
    )
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        jobs.extend(lane_jobs::load(pool, tenant, SessionId::from_uuid(row.session), JobId::from_uuid(row.id)).await?);
    }
    Ok(jobs)
}

/// Removes messages of the person's chats, and those that it wrote in groups.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn messages(pool: &PgPool, erasure: &Erasure, limit: i64) -> Result<u64> {
    let Erasure { scope, person, until } = erasure;
    let gone = sqlx::query!(
        "delete from message where tenant = $1 and id in (
             (select m.id from message m where m.tenant = $1 and m.chat = any($4) and m.created_at <= $5 limit $6)
             union
             (select m.id from chat g join message m on m.session = g.session and not m.from_me and m.chat = g.id and m.sender = any($3)
               where g.tenant = $1 and ($2::uuid is null or g.session = $2) and g.kind <> 'private' and m.tenant = $1 and m.created_at <= $5
               limit $6))",
        scope.tenant.uuid(),
        scope.session.map(SessionId::uuid),
        &person.names,
        &person.chats,
        until,
        limit
    )
    .execute(pool)
    .await?;
    if gone.rows_affected() == 0 {
        // Nothing of before is left: what the list of chats shows is of what is new.
        sqlx::query!(
            "update chat set last_message_at = (select max(m.sent_at) from message m where m.tenant = $1 and m.chat = chat.id),
                    unread = least(unread, (select count(*) from message m where m.tenant = $1 and m.chat = chat.id and not m.from_me)::integer)
              where tenant = $1 and id = any($2)",
            scope.tenant.uuid(),
            &person.chats
        )
        .execute(pool)
        .await?;
    }
    Ok(gone.rows_affected())
}

/// Empties jobs of the chats that have ended.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn jobs(pool: &PgPool, erasure: &Erasure, limit: i64) -> Result<u64> {
    let emptied = sqlx::query!(
        "update job set command = jsonb_build_object('kind', kind, 'args', $4::jsonb), result = null, evidence = null, wa_key = null,
                reference = null
          where tenant = $1 and id in (
             select id from job
              where tenant = $1 and chat = any($2) and created_at <= $3 and state not in ('queued', 'running') and lane <> 'background'
                and command -> 'args' <> $4::jsonb limit $5)",
        erasure.scope.tenant.uuid(),
        &erasure.person.chats,
        erasure.until,
        json!(Erased::BODY),
        limit
    )
    .execute(pool)
    .await?;
    Ok(emptied.rows_affected())
}

/// Takes the name from earlier requests to erase the person.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn requests(pool: &PgPool, erasure: &Erasure) -> Result<()> {
    sqlx::query!(
        "update job set command = jsonb_set(command, '{args,address}', 'null')
          where tenant = $1 and lane = 'background' and kind = 'eraseContact' and state not in ('queued', 'running')
            and command #>> '{args,address}' = any($2)",
        erasure.scope.tenant.uuid(),
        &erasure.person.names
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets idempotency keys of jobs in the chats, and those whose path names the person.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn keys(pool: &PgPool, erasure: &Erasure) -> Result<u64> {
    let digits: Vec<String> = erasure.person.names.iter().map(|name| name.split('@').next().unwrap_or_default().to_owned()).collect();
    let gone = sqlx::query!(
        "delete from idempotency i
          where i.tenant = $1 and i.created_at <= $3
            and (i.job in (select o.id from job o where o.tenant = $1 and o.chat = any($2) and o.created_at <= $3)
                 -- The plain look comes first: a pattern for each of many paths would take long.
                 or exists (select 1 from unnest($4::text[]) d (digits)
                             where strpos(i.path, d.digits) > 0 and i.path ~ ('(^|[^0-9])' || d.digits || '([^0-9]|$)')))",
        erasure.scope.tenant.uuid(),
        &erasure.person.chats,
        erasure.until,
        &digits
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Where the log begins and ends now.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn log_bounds(pool: &PgPool, tenant: TenantId) -> Result<(i64, i64)> {
    let row = sqlx::query!("select floor_seq, seq from tenant_counter where tenant = $1", tenant.uuid()).fetch_one(pool).await?;
    Ok((row.floor_seq - 1, row.seq))
}

/// What went from a part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Bodies of events.
    pub events: i64,
    /// What receivers answered to them.
    pub answers: i64,
}

/// Empties the events of the person's chats, and of messages that it wrote in groups, above one `seq` and up to another, and what receivers
/// answered to them. `late`: jobs of before whose end was told after. Grants and erasures say nothing of a person, and stay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn events(pool: &PgPool, erasure: &Erasure, late: &[JobId], (after, up_to): (i64, i64)) -> Result<Told> {
    let Erasure { scope, person, until } = erasure;
    let kept = [EventType::GrantCreated, EventType::GrantDeleted, EventType::ContactErased];
    let told = sqlx::query_as!(
        Told,
        r#"with gone as (
               update event e set data = $9
                where e.tenant = $1 and e.seq > $7 and e.seq <= $8 and ($2::uuid is null or e.session = $2) and e.type <> all($10) and e.data <> $9
                  and (e.chat = any($4) and (e.at <= $5 or coalesce(e.data #>> '{message,job}', e.data #>> '{job,id}') = any($6))
                       or e.type = 'message' and e.at <= $5
                          and (e.data #>> '{message,sender,waId}' = any($3) or e.data #>> '{message,sender,lid}' = any($3)
                               or (e.data #>> '{message,sender,phone}') || '@c.us' = any($3)))
               returning e.seq),
               answers as (
               update webhook_delivery d set answer = null from gone
                where d.tenant = $1 and d.seq = gone.seq and d.answer is not null returning 1)
           select (select count(*) from gone) as "events!", (select count(*) from answers) as "answers!""#,
        scope.tenant.uuid(),
        scope.session.map(SessionId::uuid),
        &person.names,
        &person.chats,
        until,
        &late.iter().map(ToString::to_string).collect::<Vec<_>>(),
        after,
        up_to,
        json!(Erased::BODY),
        &kept.iter().map(|kind| kind.as_str().to_owned()).collect::<Vec<_>>()
    )
    .fetch_one(pool)
    .await?;
    Ok(told)
}

/// Takes away what receivers answered to events that the log keeps no longer: those of the person's chats, and those of groups, in which
/// nobody can tell any more who wrote.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn answers_below(pool: &PgPool, erasure: &Erasure, floor: i64, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "update webhook_delivery set answer = null where tenant = $1 and id in (
             select d.id from webhook_delivery d join chat c on c.id = d.chat and c.tenant = $1
              where d.tenant = $1 and d.seq <= $3 and d.answer is not null and (d.chat = any($2) or c.kind <> 'private') limit $4)",
        erasure.scope.tenant.uuid(),
        &erasure.person.chats,
        floor,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Takes away what receivers answered while events were emptied. What is settled from then on looks at the log first; who looked before has
/// written what it had to, because its lock of the webhook is waited for.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn answers_meanwhile(pool: &PgPool, erasure: &Erasure, limit: i64) -> Result<u64> {
    let tenant = erasure.scope.tenant;
    sqlx::query_scalar!("select id from webhook where tenant = $1 for share", tenant.uuid()).fetch_all(pool).await?;
    let gone = sqlx::query!(
        "update webhook_delivery set answer = null where tenant = $1 and id in (
             select d.id from (
                    select f.id, f.seq from webhook_delivery f
                     where f.tenant = $1 and f.state <> 'waiting' and f.finished_at > $2 and f.answer is not null
                    union all
                    select f.id, f.seq from webhook w join webhook_delivery f on f.webhook = w.id and f.state = 'waiting'
                     where w.tenant = $1 and f.answer is not null) d
              -- By key, and never from the whole log.
              cross join lateral (select 1 from event e where e.tenant = $1 and e.seq = d.seq and e.data = $3 limit 1) e limit $4)",
        tenant.uuid(),
        erasure.until,
        json!(Erased::BODY),
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Which of these events are empty.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn emptied(pool: &PgPool, tenant: TenantId, seqs: &[i64]) -> Result<Vec<i64>> {
    let empty = sqlx::query_scalar!(
        "select seq from event where tenant = $1 and seq = any($2) and data = $3",
        tenant.uuid(),
        seqs,
        json!(Erased::BODY)
    )
    .fetch_all(pool)
    .await?;
    Ok(empty)
}
