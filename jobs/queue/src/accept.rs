//! Taking a command on: first Postgres, then a push that may fail.

use contract::{JobId, Lane, TenantId, fault::Verdict, fault_point};
use store::{
    PgPool, StoreError,
    accept::{Accepted, IdempotencyKey, NewJob, Waiting},
};

use crate::{lanes, redis::Redis};

/// Accepts a command and pushes it. A push that fails is made up for by the reconciler, so it does not fail the acceptance; a repeated
/// request pushes again. To be run in a task that outlives the request.
///
/// # Errors
/// [`StoreError`], as [`store::accept::accept`].
pub async fn accept_and_push(pool: &PgPool, redis: &Redis, job: &NewJob, key: Option<&IdempotencyKey>) -> Result<Accepted, StoreError> {
    let accepted = store::accept::accept(pool, job, key).await?;
    let _ = fault_point!("api.accept.committed", "session" => job.session, "job" => job.id);
    push(pool, redis, job, accepted).await;
    Ok(accepted)
}

/// After an acceptance whose answer was lost: what was committed, ours or the first under this key, is pushed. `None`: nothing is there (yet).
///
/// # Errors
/// [`StoreError`]: this says nothing either.
pub async fn accepted_after_all(
    pool: &PgPool,
    redis: &Redis,
    job: &NewJob,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Accepted>, StoreError> {
    let found = match store::accept::committed(pool, job.tenant, job.id).await? {
        Some(position) => Some(Accepted::New { position }),
        None => match key {
            Some(key) => store::accept::replayed(pool, job.tenant, key).await?,
            None => None,
        },
    };
    if let Some(accepted) = found {
        push(pool, redis, job, accepted).await;
    }
    Ok(found)
}

/// A repeated request pushes its job again, in case the first push was lost.
pub async fn push_again(pool: &PgPool, redis: &Redis, tenant: TenantId, job: JobId) {
    let Some(waiting) = store::accept::waiting(pool, tenant, job).await.unwrap_or_default() else { return };
    if let Err(error) = lanes::push(redis, tenant, &[waiting]).await {
        metrics::counter!("zaguan_pushes_failed").increment(1);
        tracing::warn!(%error, %job, "not pushed again: the reconciler will");
    }
}

async fn push(pool: &PgPool, redis: &Redis, job: &NewJob, accepted: Accepted) {
    let waiting = match accepted {
        Accepted::New { position } => Some(Waiting { job: job.id, session: job.session, lane: job.command.lane(), position }),
        // The first answer stands, whatever becomes of this look.
        Accepted::Replayed { job: first } => store::accept::waiting(pool, job.tenant, first).await.unwrap_or_default(),
        Accepted::KeyReused | Accepted::NewChatCap { .. } | Accepted::LaneFull => None,
    };
    // A worker finds its jobs by itself.
    let Some(waiting) = waiting.filter(|w| w.lane != Lane::Background) else { return };
    let down = fault_point!("api.push.redis_down", "session" => job.session, "job" => waiting.job) == Verdict::Fail;
    let pushed = if down { Err(crate::QueueError::TimedOut) } else { lanes::push(redis, job.tenant, &[waiting]).await };
    if let Err(error) = pushed {
        metrics::counter!("zaguan_pushes_failed").increment(1);
        tracing::warn!(%error, session = %job.session, job = %waiting.job, "accepted and not pushed: the reconciler will");
    }
}
