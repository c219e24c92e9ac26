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

/// The jobs that were accepted before and have not ended for good, and takes the callers' references from all of them.
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
    let rows = sqlx::query!(
        "select session, id from job
          where tenant = $1 and chat = any($2) and created_at <= $3 and state in ('queued', 'running', 'unknown') and lane in ('write', 'query')
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

/// What jobs and idempotency keys still say of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emptied {
    /// Jobs.
    pub jobs: i64,
    /// Keys.
    pub keys: i64,
}

/// Empties the jobs of the chats that have ended, and forgets their idempotency keys and those whose path names the person; and takes the
/// name from earlier requests to erase it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn jobs(pool: &PgPool, erasure: &Erasure) -> Result<Emptied> {
    let Erasure { scope, person, until } = erasure;
    let user = |name: &String| name.split('@').next().unwrap_or_default().to_owned();
    let in_paths: Vec<String> = person.names.iter().map(user).map(|digits| format!("(^|[^0-9]){digits}([^0-9]|$)")).collect();
    let row = sqlx::query_as!(
        Emptied,
        r#"with j as (
               update job set command = jsonb_build_object('kind', kind, 'args', $4::jsonb), result = null, evidence = null, wa_key = null,
                      reference = null
                where tenant = $1 and chat = any($2) and created_at <= $3 and state not in ('queued', 'running') and lane <> 'background'
                  and command -> 'args' <> $4::jsonb
               returning id),
               asked as (
               update job set command = jsonb_set(command, '{args,address}', 'null')
                where tenant = $1 and kind = 'eraseContact' and state not in ('queued', 'running')
                  and command #>> '{args,address}' = any($5)),
               k as (
               delete from idempotency i
                where i.tenant = $1 and i.created_at <= $3
                  and (i.path ~ any($6) or i.job in (select o.id from job o where o.tenant = $1 and o.chat = any($2) and o.created_at <= $3))
               returning 1)
           select (select count(*) from j) as "jobs!", (select count(*) from k) as "keys!""#,
        scope.tenant.uuid(),
        &person.chats,
        until,
        json!(Erased::BODY),
        &person.names,
        &in_paths
    )
    .fetch_one(pool)
    .await?;
    Ok(row)
}

/// Where the log begins and ends now.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn log_bounds(pool: &PgPool, tenant: TenantId) -> Result<(i64, i64)> {
    let row = sqlx::query!("select floor_seq, seq from tenant_counter where tenant = $1", tenant.uuid()).fetch_one(pool).await?;
    Ok((row.floor_seq - 1, row.seq))
}

/// Empties the events of the person's chats, and of messages that it wrote in groups, above one `seq` and up to another. `late`: jobs of
/// before whose end was told after. Grants and erasures say nothing of a person, and stay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn events(pool: &PgPool, erasure: &Erasure, late: &[JobId], (after, up_to): (i64, i64)) -> Result<u64> {
    let Erasure { scope, person, until } = erasure;
    let kept = [EventType::GrantCreated, EventType::GrantDeleted, EventType::ContactErased];
    let gone = sqlx::query!(
        "update event e set data = $9
          where e.tenant = $1 and e.seq > $7 and e.seq <= $8 and ($2::uuid is null or e.session = $2) and e.type <> all($10) and e.data <> $9
            and (e.chat = any($4) and (e.at <= $5 or coalesce(e.data #>> '{message,job}', e.data #>> '{job,id}') = any($6))
                 or e.type = 'message' and e.at <= $5
                    and (e.data #>> '{message,sender,waId}' = any($3) or e.data #>> '{message,sender,lid}' = any($3)
                         or (e.data #>> '{message,sender,phone}') || '@c.us' = any($3)))",
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
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Takes away what receivers answered to events that are empty now.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn deliveries(pool: &PgPool, tenant: TenantId, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "update webhook_delivery set answer = null where tenant = $1 and id in (
             select d.id from webhook_delivery d join event e on e.tenant = $1 and e.seq = d.seq
              where d.tenant = $1 and d.answer is not null and e.data = $2 limit $3)",
        tenant.uuid(),
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
