//! Which free sessions this host claims. No leader: every host ranks the live ones alike, waits by its rank, and the lease decides.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use contract::{HostId, SessionId};
use queue::{
    CLAIMS_AT_ONCE, Claimed,
    hosts::{HostRecord, LiveHost},
};
use store::leases::Claimable;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::roster::Roster;
use crate::session::Services;

/// How long each better placed host is given to claim first.
const HEAD_START: Duration = Duration::from_millis(500);
/// A host whose stores answer this slowly claims nothing.
const SLOW: Duration = Duration::from_secs(1);

/// Pause before a lease that is about to end is asked for again.
const SOONEST: Duration = Duration::from_millis(25);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The hosts that live, this one included; `None` while Redis does not say.
pub type Live = Option<Vec<HostId>>;

/// Says that this host lives, also while it leaves: until it has let go of its sessions nobody else need ask for them.
pub async fn heart(services: Services, roster: Arc<Roster>, id: HostId, stopping: CancellationToken, live: watch::Sender<Live>) {
    let mut every = tokio::time::interval(services.timings.heartbeat_every());
    let browser = i32::try_from(services.browsers.major()).unwrap_or(i32::MAX);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (slots, used) = roster.load();
        let draining = stopping.is_cancelled();
        let record = if draining { HostRecord::LEAVING } else { HostRecord { slots, used, draining, browser } };
        let heard = queue::hosts::heartbeat(&services.redis, id, &record, services.timings.host_stale()).await;
        if let Err(error) = &heard {
            tracing::warn!(%error, "no heartbeat");
        }
        live.send_replace(heard.ok());
    }
}

/// Claims what is free: when somebody says that a session is wanted, and at every heartbeat.
pub async fn run(services: Services, roster: Arc<Roster>, id: HostId, mut live: watch::Receiver<Live>, stopping: CancellationToken) {
    let mut wanted = queue::hosts::wanted_changes(&services.redis).await;
    let mut seen = Seen::default();
    let mut again = None::<Instant>;
    loop {
        tokio::select! {
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            beat = live.changed() => if beat.is_err() { return },
            called = wanted.changed() => seen.called.extend(called),
            () = stopping.cancelled() => return,
        }
        settle_wishes(&services, &roster).await;
        again = None;
        let Some(hosts) = live.borrow_and_update().clone() else { continue };
        again = match claim_free(&services, &roster, id, &hosts, &mut seen, &stopping).await {
            Ok(pause) => pause.map(|pause| Instant::now() + pause),
            Err(error) => {
                tracing::warn!(%error, "nothing claimed");
                None
            }
        };
    }
}

/// What earlier rounds have left.
#[derive(Default)]
struct Seen {
    /// Since when a session is free.
    first: HashMap<SessionId, Instant>,
    /// Sessions that somebody said to look at, and that were not tried since.
    called: HashSet<SessionId>,
    /// Sessions whose claim failed, and when: the others go first.
    failed: HashMap<SessionId, Instant>,
}

/// A wish to stop reaches the owner at once, not only at the next renewal.
async fn settle_wishes(services: &Services, roster: &Roster) {
    let all = roster.all();
    let held: Vec<_> = all.iter().map(|s| *s.lease.held()).collect();
    if held.is_empty() {
        return;
    }
    if let Ok(still) = store::within(store::leases::still_held(&services.pool, &held)).await {
        for unwanted in still.iter().filter(|s| !s.wanted) {
            if let Some(shared) = roster.get(unwanted.session) {
                shared.end(crate::session::Ending::Stop);
            }
        }
    }
}

/// Claims what is free and ours by rank. Answers when it is worth to look again before the next heartbeat: something is free that a better
/// placed host may still take, or has an owner whose lease ends.
async fn claim_free(
    services: &Services,
    roster: &Arc<Roster>,
    id: HostId,
    hosts: &[HostId],
    seen: &mut Seen,
    stopping: &CancellationToken,
) -> Result<Option<Duration>, Error> {
    let asked = Instant::now();
    // What the rows say is ours and does not run here was lost here: nobody else would ask for it as long as we live.
    let others: Vec<HostId> = hosts.iter().copied().filter(|host| *host != id).collect();
    let called: Vec<SessionId> = seen.called.iter().copied().collect();
    let major = i32::try_from(services.browsers.major())?;
    let mut free = store::within(store::leases::claimable(&services.pool, &others, &called, major)).await?;
    free.retain(|c| roster.get(c.session).is_none() && !roster.declines(c.session));
    seen.first.retain(|session, _| free.iter().any(|c| c.session == *session));
    seen.called.retain(|session| free.iter().any(|c| c.session == *session));
    seen.failed.retain(|_, at| at.elapsed() < services.timings.lease_ttl());
    free.retain(|c| !seen.failed.contains_key(&c.session));
    if free.is_empty() {
        return Ok(None);
    }
    // What was lost here, and will not run here again, is for the others to ask for.
    let disown = async || {
        let lost: Vec<SessionId> = free.iter().filter(|c| c.owned).map(|c| c.session).collect();
        store::within(store::leases::disown(&services.pool, id, &lost)).await
    };
    if !roster.has_room() {
        disown().await?;
        return Ok(None);
    }
    let hosts = queue::hosts::live(&services.redis, services.timings.host_stale()).await?;
    if asked.elapsed() > SLOW {
        disown().await?;
        return Ok(Some(HEAD_START / 2));
    }
    let (ours, others): (Vec<_>, Vec<_>) = free.into_iter().partition(|claim| {
        let since = *seen.first.entry(claim.session).or_insert_with(Instant::now);
        let rank = u32::try_from(rank(&hosts, id, claim.session)).unwrap_or(u32::MAX);
        since.elapsed() >= HEAD_START.saturating_mul(rank)
    });
    let again = claim_these(services, roster, &ours, seen, stopping).await?;
    let turn = (!others.is_empty()).then_some(HEAD_START / 2);
    Ok(again.into_iter().chain(turn).min())
}

/// Claims as many as there is room for. When it is worth to look again: the leases of a host that died end at about the same time.
async fn claim_these(
    services: &Services,
    roster: &Arc<Roster>,
    mut free: &[Claimable],
    seen: &mut Seen,
    stopping: &CancellationToken,
) -> Result<Option<Duration>, Error> {
    let mut soonest = None::<Duration>;
    while !free.is_empty() && roster.has_room() && !stopping.is_cancelled() {
        let (slots, used) = roster.load();
        let (some, rest) = free.split_at(free.len().min(CLAIMS_AT_ONCE).min(slots.saturating_sub(used)));
        free = rest;
        for (claim, claimed) in some.iter().zip(services.hub.claim_each(some).await?) {
            seen.called.remove(&claim.session);
            match claimed {
                Ok(Claimed::Ours(lease)) => {
                    tracing::info!(session = %claim.session, epoch = lease.held().epoch(), "claimed");
                    seen.first.remove(&claim.session);
                    roster.take_on(lease);
                }
                Ok(Claimed::Held(left)) => soonest = Some(soonest.map_or(left, |soonest| soonest.min(left))),
                Ok(Claimed::Lost) => {}
                Err(error) => {
                    tracing::warn!(session = %claim.session, %error, "not claimed");
                    seen.failed.insert(claim.session, Instant::now());
                }
            }
        }
    }
    Ok(soonest.map(|left| left.max(SOONEST)))
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
        LiveHost { id: HostId::new(), record: HostRecord { slots, used, draining, browser: 0 } }
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
