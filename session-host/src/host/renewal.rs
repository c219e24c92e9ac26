//! Keeps the leases, on a thread and runtime of its own: a stalled worker must not let them run out, nor keep them alive by accident.

use std::{io, sync::Arc};

use contract::Timings;
use tokio_util::sync::CancellationToken;

use super::roster::Roster;
use crate::{
    guard::{GuardPipe, Held, Lease},
    session::{Ending, Services, Shared},
};

/// The renewal thread.
pub struct Renewal(CancellationToken);

impl Renewal {
    /// Ends it, once every lease is released.
    pub fn stop(self) {
        self.0.cancel();
    }
}

/// Starts renewing.
///
/// # Errors
/// Where the thread or its runtime cannot be made.
pub fn start(services: Services, roster: Arc<Roster>, pipe: Arc<GuardPipe>) -> io::Result<Renewal> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("renewal".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = renew(&services, &roster, &pipe) => {}
                () = stopped.cancelled() => {}
            }
        });
    })?;
    Ok(Renewal(stop))
}

async fn renew(services: &Services, roster: &Roster, pipe: &GuardPipe) {
    let mut every = tokio::time::interval(services.timings.renew_every());
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {
                let round = services.hub.renew_round().await;
                metrics::histogram!("zaguan_renewal_seconds").record(round.took.as_secs_f64());
                for session in &round.fenced {
                    tracing::error!(%session, "fenced: no longer the owner");
                }
                for still in round.held.iter().filter(|s| !s.wanted) {
                    if let Some(shared) = roster.get(still.session) {
                        shared.end(Ending::Stop);
                    }
                }
            }
            () = roster.changed.notified() => {}
        }
        pipe.report(&roster.all().iter().filter_map(|s| held(services, s)).collect::<Vec<_>>());
    }
}

/// What the guard must know to end a session's browser in time.
fn held(services: &Services, shared: &Shared) -> Option<Held> {
    let browser = shared.browser()?;
    let (deadline_ms, kill_ms) = guarded(&services.timings, shared.lease.deadline());
    Some(Held {
        session: shared.session().to_string(),
        pid: browser.pid(),
        start: browser.started_ticks(),
        deadline_ms,
        kill_ms,
        lease: Some(Lease { key: shared.lease.key().to_owned(), value: shared.lease.value().to_owned() }),
        profile: Some(browser.profile().to_owned()),
    })
}

/// When the guard tells a browser to end and when it kills it. A little after the host would have told it: a second signal kills a browser
/// that is closing already.
fn guarded(timings: &Timings, lease_ends: u64) -> (u64, u64) {
    let told = lease_ends.saturating_sub(timings.fence_margin_ms) + timings.fence_margin_ms / 6;
    let killed = lease_ends.saturating_sub(timings.kill_margin_ms);
    (told.min(killed), killed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_tells_a_browser_to_end_after_its_host_would_have_and_kills_it_before_the_lease_ends() {
        let quick = Timings { lease_ttl_ms: 2000, fence_margin_ms: 600, kill_margin_ms: 550, ..Timings::default() };
        assert_eq!(guarded(&Timings::default(), 100_000), (97_500, 99_500));
        assert_eq!(guarded(&quick, 100_000), (99_450, 99_450));
    }
}
