//! Ends of jobs that were never done: cancelled by a caller, expired, or without a session to do them. Without `held`: no owner needs to be
//! there.

use std::time::Duration;

use contract::{Event, Failure, FailureCode, JobId, JobState, SessionId, TenantId};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    Result,
    lane_jobs::{self, LaneJob},
    log::{self, Columns, NewEvent},
    outcomes::{End, job_fact},
};

/// How a job can end without ever having been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuedEnd {
    /// A caller withdrew it.
    Cancelled,
    /// Its time ran out. Written only where the database's clock agrees.
    Expired,
    /// It was accepted for an account that is not the linked one any more. Written only where that is so.
    AccountChanged,
    /// The session has been logged out for too long. Written only while it is.
    LoggedOut,
    /// The account has been banned for too long. Written only while it is.
    Banned,
    /// Its session stopped, and with it what the job was about. Written only while it is down; a started one ends too.
    SessionEnded,
    /// Whom it was to write to was erased.
    ContactErased,
    /// The same, after it was started: its outcome did not come in time, and is of nobody any more.
    ErasedMeanwhile,
    /// It was started, and the session has been down since before its outcome was known: nobody looks it up any more. A receipt that comes
    /// after all still proves it.
    Interrupted,
}

impl QueuedEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::AccountChanged => "account_changed",
            Self::LoggedOut => "logged_out",
            Self::Banned => "banned",
            Self::SessionEnded => "session_ended",
            Self::ContactErased => "contact_erased",
            Self::ErasedMeanwhile => "erased_meanwhile",
            Self::Interrupted => "interrupted",
        }
    }
    fn from_name(name: &str) -> Option<Self> {
        let all =
            [Self::Cancelled, Self::Expired, Self::AccountChanged, Self::LoggedOut, Self::Banned, Self::SessionEnded, Self::Interrupted];
        all.into_iter().find(|end| end.name() == name)
    }
    const fn facts(self) -> (JobState, FailureCode, &'static str) {
        match self {
            Self::Cancelled => (JobState::Cancelled, FailureCode::JobCancelled, "cancelled before it started"),
            Self::Expired => (JobState::Expired, FailureCode::JobExpired, "not started before expiresAt"),
            Self::AccountChanged => (JobState::Failed, FailureCode::AccountChanged, "another account was linked before it started"),
            Self::LoggedOut => (JobState::Failed, FailureCode::LoggedOut, "the session was logged out before it started"),
            Self::Banned => (JobState::Failed, FailureCode::Banned, "WhatsApp restricted the account before it started"),
            Self::SessionEnded => (JobState::Failed, FailureCode::SessionEnded, "the session stopped before it was done"),
            Self::ContactErased => {
                (JobState::Cancelled, FailureCode::ContactErased, "whom it was to write to was erased before it started")
            }
            Self::ErasedMeanwhile => {
                (JobState::Unknown, FailureCode::ContactErased, "whom it wrote to was erased before its outcome was known")
            }
            Self::Interrupted => (JobState::Unknown, FailureCode::HostLost, "the session went down before its outcome was known"),
        }
    }
}

/// Ends a job that has not started; job, message and event in one statement. Empty: it is not queued (any more), or the reason does not hold.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn end_queued(pool: &PgPool, job: &LaneJob, end: QueuedEnd) -> Result<Vec<Event>> {
    let (state, code, detail) = end.facts();
    let failure = Failure::new(code, detail);
    let error = json!(failure);
    let columns =
        Columns::of(&[NewEvent::of(job.chat, &job_fact(job, job.attempt, state, End { error: Some(failure), ..End::default() }))]);
    let rows = sqlx::query_as!(
        log::Row,
        r#"with j as (
                    update job set state = $4, error = $5, finished_at = clock_timestamp(),
                           -- An erasure that never was must not keep whom it was about.
                           command = case when kind = 'eraseContact' then jsonb_set(command, '{args,address}', 'null') else command end
                     where tenant = $1 and session = $2 and id = $3
                       and case when $6 in ('interrupted', 'erased_meanwhile') then state = 'running'
                                else state = 'queued' or state = 'running' and wa_key is null and $6 in ('session_ended', 'account_changed') end
                       and case $6
                             when 'expired' then expires_at <= clock_timestamp()
                             when 'account_changed' then exists (
                                  select 1 from chat c join session s on s.id = c.session
                                   where c.id = job.chat and c.account not in ('', coalesce(s.account, '')))
                             when 'logged_out' then exists (select 1 from session s where s.id = job.session and s.state = 'logged_out')
                             when 'banned' then exists (select 1 from session s where s.id = job.session and s.state = 'banned')
                             when 'session_ended' then exists (
                                  select 1 from session s where s.id = job.session and s.owner is null
                                     and s.state in ('stopped', 'logged_out', 'banned', 'failed', 'conflict'))
                             when 'interrupted' then exists (
                                  select 1 from session s where s.id = job.session and s.owner is null
                                     and s.state in ('stopped', 'logged_out', 'banned', 'failed', 'conflict'))
                             else true end
                    returning tenant, message),
                m as (
                    update message set status = case when $4 = 'unknown' or exists (
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
        end.name(),
        columns.ids[0],
        columns.kinds[0],
        columns.chats[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    Ok(log::events(rows, job.tenant))
}

/// Jobs that nothing will come of, with the end that is theirs: of an account that is not linked any more; of a session that has been logged
/// out or banned for `down_for`, unless they were queued on request; started by a session that has been down for so long, whatever the reason;
/// about a browser that is gone. Of all tenants, or of one session.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn doomed(pool: &PgPool, session: Option<SessionId>, down_for: Duration, limit: i64) -> Result<Vec<(LaneJob, QueuedEnd)>> {
    let rows = sqlx::query!(
        r#"select tenant, session, id, "end!" from (
              select j.tenant, j.session, j.id,
                     case when j.lane in ('write', 'query') and c.account not in ('', coalesce(s.account, '')) and (j.state = 'queued' or j.wa_key is null)
                               then 'account_changed'
                          when j.lane = 'control' and j.kind <> 'logout' and s.owner is null
                               and s.state in ('stopped', 'logged_out', 'banned', 'failed', 'conflict') then 'session_ended'
                          when j.lane in ('write', 'query') and j.state = 'queued' and not j.queue_when_down and s.state in ('logged_out', 'banned')
                               and s.state_at <= clock_timestamp() - make_interval(secs => $2) then s.state
                          when j.lane in ('write', 'query') and j.state = 'running' and s.owner is null
                               and s.state in ('stopped', 'logged_out', 'banned', 'failed', 'conflict')
                               and s.state_at <= clock_timestamp() - make_interval(secs => $2) then 'interrupted' end as "end!"
                from job j join session s on s.id = j.session left join chat c on c.id = j.chat
               where j.state in ('queued', 'running') and ($1::uuid is null or j.session = $1)) doomed
            where "end!" is not null order by id limit $3"#,
        session.map(SessionId::uuid),
        down_for.as_secs_f64(),
        limit
    )
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        let (tenant, session, job) = (TenantId::from_uuid(row.tenant), SessionId::from_uuid(row.session), JobId::from_uuid(row.id));
        let end = QueuedEnd::from_name(&row.end);
        jobs.extend(lane_jobs::load(pool, tenant, session, job).await?.zip(end));
    }
    Ok(jobs)
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
