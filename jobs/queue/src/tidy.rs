//! What becomes of sessions without an owner, and of jobs that nobody will do: told by whoever has the reconciler's turn.

use contract::{Lane, SessionId, TenantId, Timings};
use store::PgPool;

use crate::{
    events, hosts, keys,
    redis::{QueueError, Redis},
};

/// Jobs or sessions of one round.
const ROUND: i64 = 500;

/// One round. Where another process is at it, nothing is done. A row or tenant that fails keeps nobody else waiting.
///
/// # Errors
/// [`QueueError`]: the next round does what this one did not.
pub async fn round(pool: &PgPool, redis: &Redis, timings: &Timings) -> Result<(), QueueError> {
    let Some(turn) = store::turns::reconciler(pool).await? else { return Ok(()) };
    let done = all(pool, redis, timings).await;
    turn.end().await;
    done
}

async fn all(pool: &PgPool, redis: &Redis, timings: &Timings) -> Result<(), QueueError> {
    let ended = end_doomed(pool, redis, None, timings).await;
    let removed = remove_deleted(pool, redis).await;
    let told = say_that_all_is_full(pool, redis, timings).await;
    ended.and(removed).and(told)
}

async fn remove_deleted(pool: &PgPool, redis: &Redis) -> Result<(), QueueError> {
    for (tenant, session) in store::deletion::removable(pool, ROUND).await? {
        let gone: Result<(), QueueError> = async {
            // Before its row goes, or nobody knows any more that there is something to forget; and after, for what was pushed meanwhile.
            forget(redis, tenant, session).await?;
            while !store::deletion::remove(pool, tenant, session).await? {}
            forget(redis, tenant, session).await
        }
        .await;
        match gone {
            Ok(()) => tracing::info!(%session, "a deleted session is gone"),
            Err(error) => tracing::error!(%session, %error, "a deleted session's data stays for now"),
        }
    }
    Ok(())
}

/// Ends the jobs that nothing will come of: of all sessions, or of one.
///
/// # Errors
/// [`QueueError`]: they could not be looked for.
pub async fn end_doomed(pool: &PgPool, redis: &Redis, session: Option<SessionId>, timings: &Timings) -> Result<(), QueueError> {
    loop {
        let doomed = store::ends::doomed(pool, session, timings.down_jobs_fail_after(), ROUND).await?;
        let mut ended = 0;
        for (job, end) in &doomed {
            let told = match store::ends::end_queued(pool, job, *end).await {
                Ok(told) => told,
                Err(error) => {
                    tracing::error!(job = %job.id, session = %job.session, %error, "a job that nothing will come of is not ended yet");
                    continue;
                }
            };
            ended += told.len();
            if let Err(error) = events::publish(pool, redis, job.tenant, &told).await {
                tracing::debug!(%error, job = %job.id, "ended, and not published yet");
            }
        }
        // One that started or was withdrawn meanwhile is no longer found.
        if ended == 0 || doomed.len() < usize::try_from(ROUND).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

async fn forget(redis: &Redis, tenant: TenantId, session: SessionId) -> Result<(), QueueError> {
    let mut del = redis::cmd("DEL");
    for lane in Lane::ALL {
        del.arg(keys::lane(tenant, session, lane));
    }
    del.arg(keys::qr(tenant, session)).query_async::<i64>(&mut redis.shared()).await?;
    Ok(())
}

/// Sessions that have been without a host for long while none has a free slot for them say so: starts, and those whose host died.
async fn say_that_all_is_full(pool: &PgPool, redis: &Redis, timings: &Timings) -> Result<(), QueueError> {
    // A host that is only being restarted comes back before that.
    let living = hosts::living(redis, timings.capacity_after().max(timings.host_stale())).await?;
    let waiting = store::sessions::waiting_for_capacity(pool, timings.capacity_after(), &living).await?;
    // A Redis that forgot its hosts says nothing of who is gone.
    if waiting.is_empty() || hosts::birth(redis).await? < timings.lease_ttl() {
        return Ok(());
    }
    let hosts = hosts::live(redis, timings.host_stale()).await?;
    let newest = hosts.iter().filter(|h| !h.record.draining && h.record.used < h.record.slots).map(|h| h.record.browser).max();
    // Some host has room for the others, and will come to them.
    let stuck = waiting.into_iter().filter(|(_, _, browser)| newest.is_none_or(|newest| newest < *browser));
    for (tenant, session, browser) in stuck {
        let event = match store::sessions::lacks_capacity(pool, tenant, session, &living).await {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(%session, %error, "a session without a slot is not told so yet");
                continue;
            }
        };
        metrics::counter!("zaguan_sessions_without_capacity_total").increment(1);
        tracing::warn!(%session, browser, ?newest, "no host with a browser that is new enough has a free slot");
        if let Err(error) = events::publish(pool, redis, tenant, &[event]).await {
            tracing::debug!(%error, %session, "not published yet");
        }
    }
    Ok(())
}
