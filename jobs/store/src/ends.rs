//! Ends of jobs that never started: cancelled by a caller, or expired. Without `held`: no owner needs to be there.

use contract::{Event, EventType, Failure, FailureCode, JobId, JobState, SessionId, TenantId};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    Result,
    lane_jobs::{self, LaneJob},
    log::{self, Columns, NewEvent},
    outcomes::job_data,
};

/// How a queued job can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuedEnd {
    /// A caller withdrew it.
    Cancelled,
    /// Its time ran out. Written only where the database's clock agrees.
    Expired,
}

/// Ends a job if it is still `queued`; job, message and event in one statement. Empty: it is not queued (any more), or not late.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn end_queued(pool: &PgPool, job: &LaneJob, end: QueuedEnd) -> Result<Vec<Event>> {
    let (state, failure) = match end {
        QueuedEnd::Cancelled => (JobState::Cancelled, Failure::new(FailureCode::JobCancelled, "cancelled before it started")),
        QueuedEnd::Expired => (JobState::Expired, Failure::new(FailureCode::JobExpired, "not started before expiresAt")),
    };
    end_as(pool, job, state, &failure, end == QueuedEnd::Expired).await
}

async fn end_as(pool: &PgPool, job: &LaneJob, state: JobState, failure: &Failure, only_late: bool) -> Result<Vec<Event>> {
    let error = json!(failure);
    let data = job_data(job, job.attempt, state, &Value::Null, &Value::Null, &error);
    let columns = Columns::of(&[NewEvent { kind: EventType::JobUpdated, chat: job.chat, data }]);
    let rows = sqlx::query_as!(
        log::Row,
        r#"with j as (
                    update job set state = $4, error = $5, finished_at = clock_timestamp()
                     where tenant = $1 and session = $2 and id = $3 and state = 'queued' and (not $6 or expires_at <= clock_timestamp())
                    returning tenant, message),
                m as (
                    update message set status = case when exists (
                           select 1 from job o where o.message = message.id and o.id <> $3 and o.state = 'unknown') then 'unknown' else 'failed' end
                      from j where message.id = j.message and coalesce(message.ack, 0) < 1 returning message.id),
                c as (
                    update tenant_counter set seq = seq + 1 from j
                     where tenant_counter.tenant = j.tenant and (select count(*) from m) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at)
           insert into event (tenant, seq, day, id, type, at, session, chat, data)
           select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $7, $8, c.at, $2, $9, $10 from c
           returning id, seq, type as kind, at, session, chat, data"#,
        job.tenant.uuid(),
        job.session.uuid(),
        job.id.uuid(),
        state.as_str(),
        error,
        only_late,
        columns.ids[0],
        columns.kinds[0],
        columns.chats[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    Ok(log::events(rows, job.tenant))
}

/// Jobs of all tenants whose time ran out while they waited, oldest first.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn late(pool: &PgPool, limit: i64) -> Result<Vec<LaneJob>> {
    let rows = sqlx::query!(
        "select tenant, session, id from job where state = 'queued' and expires_at <= clock_timestamp() order by expires_at limit $1",
        limit
    )
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        jobs.extend(
            lane_jobs::load(pool, TenantId::from_uuid(row.tenant), SessionId::from_uuid(row.session), JobId::from_uuid(row.id)).await?,
        );
    }
    Ok(jobs)
}
