//! Accept in Postgres, then push to Redis. The answer does not wait for Redis to be well.

use contract::{Lane, fault::Verdict, fault_point};
use store::{
    PgPool, StoreError,
    accept::{Accepted, IdempotencyKey, NewJob, Waiting},
};

use crate::{Redis, lanes};

/// Accepts a command, pushes it and wakes its owner. A failed push is logged and forgotten: the reconciler pushes what Postgres has. A
/// replayed request pushes again.
///
/// # Errors
/// [`StoreError`]: then nothing was accepted, or the COMMIT is unclear (`store::accept::exists` tells).
pub async fn accept_and_push(pool: &PgPool, redis: &Redis, job: &NewJob, key: Option<&IdempotencyKey>) -> Result<Accepted, StoreError> {
    let accepted = store::accept::accept(pool, job, key).await?;
    let _ = fault_point!("api.accept.committed", "job" => job.id, "session" => job.session);
    let waiting = match accepted {
        Accepted::New { position } => Some(Waiting { job: job.id, session: job.session, lane: job.command.lane(), position }),
        Accepted::Replayed { job: first } => store::accept::waiting(pool, job.tenant, first).await?,
        Accepted::KeyReused => None,
    };
    if let Some(waiting) = waiting {
        let down = fault_point!("api.push.redis_down", "job" => waiting.job, "session" => waiting.session) == Verdict::Fail;
        let pushed = if down { Ok(()) } else { lanes::push(redis, job.tenant, waiting.session, &[waiting]).await };
        if let Err(error) = pushed {
            metrics::counter!("zaguan_pushes_failed_total").increment(1);
            tracing::warn!(job = %waiting.job, %error, "not pushed: the reconciler will");
        }
    }
    Ok(accepted)
}

/// Whether a push to this lane wakes its owner even when the lane was not empty.
pub(crate) const fn wakes_always(lane: Lane) -> bool {
    matches!(lane, Lane::Query)
}
