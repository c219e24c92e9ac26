//! Keeps the leases, on a thread and runtime of its own: a stalled worker must not let them run out, nor keep them alive by accident.

use std::{io, sync::Arc};

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
    let browser = shared.browser();
    let deadline = shared.lease.deadline();
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let timings = &services.timings;
    Some(Held {
        session: shared.session().to_string(),
        pid: browser.as_ref()?.pid(),
        start: browser.as_ref()?.started_ticks(),
        deadline_ms: deadline.saturating_sub(millis(timings.fence_margin())),
        kill_ms: deadline.saturating_sub(millis(timings.kill_margin())),
        lease: Some(Lease { key: shared.lease.key().to_owned(), value: shared.lease.value().to_owned() }),
        profile: None,
    })
}
