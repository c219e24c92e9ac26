//! What waits in a lane: job ids by position. A hint; Postgres decides what starts.

use std::collections::BTreeMap;

use contract::{Lane, SessionId, TenantId};
use store::{PgPool, accept::Waiting};

use crate::{
    Lease, keys,
    lease::Owned,
    redis::{QueueError, Redis},
    scripts,
};

/// Entries of one command: some services limit its arguments to 3,999.
const CHUNK: usize = 500;

/// Adds jobs to their lanes and wakes the owners. Late, repeated and double pushes change nothing.
///
/// # Errors
/// [`QueueError`]; the reconciler pushes what was not.
pub async fn push(redis: &Redis, tenant: TenantId, jobs: &[Waiting]) -> Result<(), QueueError> {
    add(redis, tenant, jobs, false).await
}

async fn add(redis: &Redis, tenant: TenantId, jobs: &[Waiting], wake: bool) -> Result<(), QueueError> {
    let mut lanes: BTreeMap<(SessionId, &str), (Lane, Vec<&Waiting>)> = BTreeMap::new();
    for job in jobs {
        lanes.entry((job.session, job.lane.as_str())).or_insert((job.lane, Vec::new())).1.push(job);
    }
    let mut connection = redis.shared();
    for ((session, _), (lane, jobs)) in lanes {
        for jobs in jobs.chunks(CHUNK) {
            let mut push = scripts::PUSH.key(keys::lane(tenant, session, lane));
            // Entries of a query lane stay while they run, so "was empty" says nothing about whether its owner looks.
            push.arg(keys::wake(tenant, session)).arg(lane.as_str()).arg(i32::from(wake || lane == Lane::Query));
            for job in jobs {
                push.arg(job.position).arg(job.job.to_string());
            }
            push.invoke_async::<()>(&mut connection).await?;
        }
    }
    Ok(())
}

/// Adds all that a session's lanes should hold and wakes the owner, who may have missed an earlier call. Removes nothing: a push beside it
/// survives. Answers how many jobs that is.
///
/// # Errors
/// [`QueueError`].
pub async fn rebuild(pool: &PgPool, redis: &Redis, tenant: TenantId, session: SessionId) -> Result<usize, QueueError> {
    let waiting = store::lane_jobs::unfinished(pool, tenant, session).await?;
    let _ = contract::fault_point!("lane.rebuild_vs_push", "session" => session);
    add(redis, tenant, &waiting, true).await?;
    Ok(waiting.len())
}

/// Removes from a lane what has ended, and reads its entries up to index `last`, if its lease still stands in Redis: what the script answers.
pub(crate) async fn take(
    redis: &Redis,
    owned: &Owned,
    lane: Lane,
    last: usize,
    ended: &[String],
) -> Result<(i64, Vec<String>), QueueError> {
    let mut ask = scripts::TAKE.key(&owned.key);
    ask.key(owned.lane_key(lane)).arg(&owned.value).arg(last).arg(ended);
    Ok(ask.invoke_async(&mut redis.shared()).await?)
}

impl Lease {
    /// What a hub does to a lane, without its hub: removes what has ended, and answers the first entry. Nothing where the lease is gone.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn take(&self, redis: &Redis, lane: Lane, ended: &[String]) -> Result<Option<String>, QueueError> {
        let (_, entries) = take(redis, &self.0, lane, 0, ended).await?;
        Ok(entries.into_iter().next())
    }
}
