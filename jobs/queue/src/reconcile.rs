//! What a wake-up missed: entries that were not pushed, jobs whose time ran out, events that were not published.

use std::collections::HashMap;

use contract::TenantId;
use store::{PgPool, ends::QueuedEnd};

use crate::{
    events, lanes, publish,
    redis::{QueueError, Redis},
    restored,
};

/// Late jobs that one round ends.
const LATE: i64 = 500;
/// Numbers at a log's end that are compared with its stream when a process looks for the first time.
const FIRST_LOOK: i64 = 500;

/// What earlier rounds saw: the tenants' counters when their streams were last known to be whole.
#[derive(Debug, Default)]
pub struct Seen(HashMap<TenantId, i64>);

/// One round. Where another process is at it, nothing is done.
///
/// # Errors
/// [`QueueError`]: the next round does what this one did not.
pub async fn round(pool: &PgPool, redis: &Redis, seen: &mut Seen) -> Result<(), QueueError> {
    let Some(turn) = store::turns::reconciler(pool).await? else { return Ok(()) };
    let done = all(pool, redis, seen).await;
    turn.end().await;
    done
}

async fn all(pool: &PgPool, redis: &Redis, seen: &mut Seen) -> Result<(), QueueError> {
    // One job, lane or stream that fails must not keep the other tenants' from being mended.
    // Postgres first: jobs end and streams are compared even while Redis is away.
    for job in store::ends::late(pool, LATE).await? {
        let told = match store::ends::end_queued(pool, &job, QueuedEnd::Expired).await {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%error, job = %job.id, "late, and not ended yet");
                continue;
            }
        };
        if let Err(error) = events::publish(pool, redis, job.tenant, &told).await {
            tracing::debug!(%error, job = %job.id, "expired, and not published yet");
        }
    }
    for (tenant, session) in store::lane_jobs::sessions_with_work(pool).await? {
        if let Err(error) = lanes::rebuild(pool, redis, tenant, session).await {
            tracing::warn!(%error, %session, "lanes not rebuilt");
        }
    }
    for (tenant, head) in store::counters::heads(pool).await? {
        if seen.0.get(&tenant) != Some(&head) {
            match compare(pool, redis, tenant, seen.0.get(&tenant).copied(), head).await {
                Ok(()) => {
                    seen.0.insert(tenant, head);
                }
                Err(error) => tracing::warn!(%error, %tenant, "stream not caught up"),
            }
        }
    }
    Ok(())
}

/// From the last event on that was known to be the same in both: a log that went back has another one there by now, or none.
async fn compare(pool: &PgPool, redis: &Redis, tenant: TenantId, seen: Option<i64>, head: i64) -> Result<(), QueueError> {
    let since = seen.unwrap_or(head - FIRST_LOOK).min(head).max(0);
    restored::mend(pool, redis, tenant, since).await?;
    publish::catch_up(pool, redis, tenant, head).await
}
