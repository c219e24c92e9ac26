//! Lanes from outside: pushing, and rebuilding from Postgres. Both only add.

use contract::{Lane, SessionId, TenantId};
use store::{PgPool, accept::Waiting};

use crate::{QueueError, Redis, accept::wakes_always, keys, scripts};

/// Entries that one command carries.
const CHUNK: usize = 500;

/// Adds entries to a session's lanes and wakes its owner.
///
/// # Errors
/// [`QueueError`]; what was not pushed is found by the reconciler.
pub async fn push(redis: &Redis, tenant: TenantId, session: SessionId, entries: &[Waiting]) -> Result<(), QueueError> {
    add(redis, tenant, session, entries, false).await
}

async fn add(redis: &Redis, tenant: TenantId, session: SessionId, entries: &[Waiting], wake: bool) -> Result<(), QueueError> {
    for lane in Lane::ALL {
        let entries: Vec<_> = entries.iter().filter(|e| e.lane == lane).collect();
        for chunk in entries.chunks(CHUNK) {
            let mut call = scripts::PUSH.key(keys::lane(tenant, session, lane));
            call.arg(keys::wake(tenant, session)).arg(lane.as_str()).arg(u8::from(wake || wakes_always(lane)));
            for entry in chunk {
                call.arg(entry.position).arg(entry.job.to_string());
            }
            call.invoke_async::<()>(&mut redis.commands()).await?;
        }
    }
    Ok(())
}

/// Adds all unfinished jobs of a session to its lanes and wakes the owner. Answers how many there are. Never takes anything away: a push
/// between reading and adding survives.
///
/// # Errors
/// [`QueueError`].
pub async fn rebuild(pool: &PgPool, redis: &Redis, tenant: TenantId, session: SessionId) -> Result<usize, QueueError> {
    let unfinished = store::lane_jobs::unfinished(pool, tenant, session).await?;
    let _ = contract::fault_point!("lane.rebuild_vs_push", "session" => session);
    add(redis, tenant, session, &unfinished, true).await?;
    Ok(unfinished.len())
}
