//! Which free sessions this host claims. No leader: every host ranks the live ones alike, waits by its rank, and the lease decides.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{HostId, SessionId};
use queue::hosts::{HostRecord, LiveHost};
use store::leases::Claimable;
use tokio_util::sync::CancellationToken;

use super::roster::Roster;
use crate::session::Services;

/// How long each better placed host is given to claim first.
const HEAD_START: Duration = Duration::from_millis(500);
/// A host whose stores answer this slowly claims nothing.
const SLOW: Duration = Duration::from_secs(1);

/// Heartbeats, and claims what is free: when somebody says that a session is wanted, and at every heartbeat.
pub async fn run(services: Services, roster: Arc<Roster>, id: HostId, stopping: CancellationToken) {
    let mut wanted = queue::hosts::wanted_changes(&services.redis).await;
    let mut first_seen: HashMap<SessionId, Instant> = HashMap::new();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wanted.changed() => {}
            () = stopping.cancelled() => return,
        }
        let (slots, used) = roster.load();
        let record = HostRecord { slots, used, draining: false };
        if let Err(error) = queue::hosts::heartbeat(&services.redis, id, &record).await {
            tracing::warn!(%error, "no heartbeat");
        }
        settle_wishes(&services, &roster).await;
        let waiting = match claim_free(&services, &roster, id, &mut first_seen, &stopping).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(%error, "nothing claimed");
                false
            }
        };
        pause = if waiting { HEAD_START / 2 } else { services.timings.heartbeat_every() };
    }
}

/// A wish to stop reaches the owner at once, not only at the next renewal.
async fn settle_wishes(services: &Services, roster: &Roster) {
    let all = roster.all();
    let held: Vec<_> = all.iter().map(|s| *s.lease.held()).collect();
    if held.is_empty() {
        return;
    }
    if let Ok(still) = store::leases::still_held(&services.pool, &held).await {
        for unwanted in still.iter().filter(|s| !s.wanted) {
            if let Some(shared) = roster.get(unwanted.session) {
                shared.end(crate::session::Ending::Stop);
            }
        }
    }
}

/// Claims what is free and ours by rank. `true`: something is free that a better placed host may still take.
async fn claim_free(
    services: &Services,
    roster: &Arc<Roster>,
    id: HostId,
    first_seen: &mut HashMap<SessionId, Instant>,
    stopping: &CancellationToken,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let asked = Instant::now();
    let free: Vec<Claimable> =
        store::leases::claimable(&services.pool).await?.into_iter().filter(|c| roster.get(c.session).is_none()).collect();
    first_seen.retain(|session, _| free.iter().any(|c| c.session == *session));
    if free.is_empty() || !roster.has_room() {
        return Ok(false);
    }
    let hosts = queue::hosts::live(&services.redis, services.timings.host_stale()).await?;
    if asked.elapsed() > SLOW {
        return Ok(true);
    }
    let mut waiting = false;
    for claim in free {
        let since = *first_seen.entry(claim.session).or_insert_with(Instant::now);
        let rank = u32::try_from(rank(&hosts, id, claim.session)).unwrap_or(u32::MAX);
        if since.elapsed() < HEAD_START.saturating_mul(rank) {
            waiting = true;
            continue;
        }
        if !roster.has_room() || stopping.is_cancelled() {
            return Ok(false);
        }
        // `None`: its lease lives, or somebody was faster.
        if let Some(lease) = services.hub.claim(&claim).await? {
            tracing::info!(session = %claim.session, epoch = lease.held().epoch(), "claimed");
            first_seen.remove(&claim.session);
            roster.take_on(lease);
        }
    }
    Ok(waiting)
}

/// How many live hosts with room are better placed for the session: weighted rendezvous over free slots.
fn rank(hosts: &[LiveHost], me: HostId, session: SessionId) -> usize {
    let score = |host: &LiveHost| {
        let mut hasher = DefaultHasher::new();
        (host.id, session).hash(&mut hasher);
        let uniform = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
        let free = host.record.slots.saturating_sub(host.record.used) as f64;
        -free / uniform.max(f64::MIN_POSITIVE).ln()
    };
    let Some(own) = hosts.iter().find(|h| h.id == me).map(score) else { return 0 };
    hosts.iter().filter(|h| h.id != me && !h.record.draining && h.record.used < h.record.slots && score(h) > own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(slots: usize, used: usize, draining: bool) -> LiveHost {
        LiveHost { id: HostId::new(), record: HostRecord { slots, used, draining } }
    }

    #[test]
    fn exactly_one_host_with_room_is_best_placed_for_a_session() {
        let hosts = [host(10, 2, false), host(10, 9, false), host(10, 10, false), host(10, 0, true)];
        for _ in 0..50 {
            let session = SessionId::new();
            let first = hosts[..2].iter().filter(|h| rank(&hosts, h.id, session) == 0).count();
            assert_eq!(first, 1);
        }
    }

    #[test]
    fn free_slots_attract_sessions() {
        let hosts = [host(100, 10, false), host(100, 90, false)];
        let first = (0..400).filter(|_| rank(&hosts, hosts[0].id, SessionId::new()) == 0).count();
        assert!((300..400).contains(&first), "{first} of 400 to the emptier host");
    }
}
