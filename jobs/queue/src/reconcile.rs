//! What a wake-up missed: lanes of sessions with unfinished jobs, jobs whose time ran out, streams behind their tenant's counter.

use std::collections::HashMap;

use contract::TenantId;
use store::{
    PgPool,
    ends::{self, QueuedEnd},
};

use crate::{QueueError, Redis, events, lanes};

/// Late jobs that one round ends.
const LATE_A_ROUND: i64 = 500;

/// What earlier rounds saw.
#[derive(Debug, Default)]
pub struct Seen {
    heads: HashMap<TenantId, i64>,
}

/// One round. Over all hosts only one runs at a time; a host that finds another at it does nothing.
///
/// # Errors
/// [`QueueError`]; the next round goes on.
pub async fn round(pool: &PgPool, redis: &Redis, seen: &mut Seen) -> Result<(), QueueError> {
    let Some(turn) = store::turns::reconciler(pool).await? else { return Ok(()) };
    for job in ends::late(pool, LATE_A_ROUND).await? {
        let written = ends::end_queued(pool, &job, QueuedEnd::Expired).await?;
        if let Err(error) = events::publish(pool, redis, job.tenant, &written).await {
            tracing::debug!(%error, "not published yet");
        }
    }
    for (tenant, session) in store::lane_jobs::sessions_with_work(pool).await? {
        lanes::rebuild(pool, redis, tenant, session).await?;
    }
    for (tenant, head) in store::counters::heads(pool).await? {
        if seen.heads.get(&tenant) != Some(&head) {
            events::backfill(pool, redis, tenant, head).await?;
            seen.heads.insert(tenant, head);
        }
    }
    drop(turn);
    Ok(())
}
