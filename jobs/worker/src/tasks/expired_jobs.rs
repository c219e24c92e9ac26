//! `jobs.expired`.

use store::ends::{self, QueuedEnd};

use super::{BATCH, Failed, Tools};

/// Ends what waited too long; job, message and event in one statement each. Hosts do the same: whoever comes second finds it ended.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let mut ended = 0;
    loop {
        let late = ends::late(&tools.pool, BATCH).await?;
        let found = late.len();
        for job in late {
            let events = ends::end_queued(&tools.pool, &job, QueuedEnd::Expired).await?;
            ended += u64::from(!events.is_empty());
            if let Err(why) = queue::events::publish(&tools.pool, &tools.redis, job.tenant, &events).await {
                tracing::debug!(cause = %why, job = %job.id, "expired and not published: the reconciler will");
            }
        }
        if i64::try_from(found).is_ok_and(|n| n < BATCH) {
            return Ok(ended);
        }
    }
}
