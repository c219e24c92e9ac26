//! When a browser is replaced by a new one: soon after linking for the first snapshot, then daily, or when it costs too much. Only while
//! nothing is under way.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Shared,
    account::Takeover,
    actor::{Actor, After},
};
use crate::browser::Browser;

/// How long the page may still read what the phone hands over before a first snapshot is taken all the same.
const HISTORY_WAITS: u32 = 10;
/// How long a browser works before its cost counts, in times of the pause before a first snapshot; doubled for each one replaced in vain.
const HEAVY_AFTER: u32 = 10;

/// What a browser waits for before it is replaced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recycle {
    /// It does not work.
    No,
    /// For this time; how often it was put off; and from when on its cost counts.
    At(Instant, u32, Instant),
    /// For what is under way, until this time: it may use the page, and nothing new is taken.
    Quiet(Instant),
}

impl Recycle {
    /// When there is something to do about it.
    pub(super) async fn due(self, shared: &Shared) {
        match self {
            Self::No => std::future::pending().await,
            Self::At(at, _, counts) => tokio::select! {
                () = sleep_until(at) => {}
                () = async {
                    sleep_until(counts).await;
                    let _ = shared.heavy.subscribe().wait_for(|heavy| *heavy).await;
                } => {}
            },
            Self::Quiet(until) => {
                let _ = timeout_at(until, shared.services.hub.session_idle(shared.session())).await;
            }
        }
    }
}

impl Actor {
    /// A browser works since `now`.
    pub(super) fn recycle_at(&mut self, now: Instant) {
        let timings = &self.shared.services.timings;
        let (soon, every) = (timings.snapshot_after_link(), timings.recycle_every());
        let at = match (self.safe.failed, self.safe.taken_at) {
            // By the age of the snapshot: a browser that is replaced for other reasons does not make it younger.
            (0, Some(taken)) => (taken + spread(every, self.shared.session().uuid().as_u128())).max(now + soon),
            // Where none can be taken, each try is an interruption for nothing: fewer and fewer.
            (failed, _) => now + (soon * 2_u32.pow(failed.min(6))).min(every),
        };
        self.recycle = Recycle::At(at, 0, now + self.patience());
    }

    /// How long a browser works before its cost counts.
    fn patience(&self) -> Duration {
        let timings = &self.shared.services.timings;
        patience(timings.snapshot_after_link(), timings.recycle_every(), self.in_vain)
    }

    /// It is replaced because of its cost: the next one is given longer if this one cost too much from the beginning.
    fn too_heavy(&mut self, counts: Instant) {
        let at_once = counts.elapsed() <= self.shared.services.timings.watch_every() * 2;
        self.in_vain = if at_once { self.in_vain + 1 } else { 0 };
    }

    /// What is to be done.
    pub(super) async fn recycle(&mut self, browser: &Browser) -> Option<After> {
        let timings = self.shared.services.timings.clone();
        let now = Instant::now();
        match self.recycle {
            Recycle::No => None,
            // Another browser has the account: a new one of ours would take it back unasked.
            _ if self.takeover != Takeover::No => {
                self.recycle = Recycle::At(now + timings.snapshot_after_link(), HISTORY_WAITS, now + self.patience());
                None
            }
            // The page was too busy to be marked when it began to work: no snapshot is worth anything without.
            Recycle::At(..) if self.safe.marker.is_none() => {
                self.profile_works(browser).await;
                None
            }
            Recycle::At(_, waited, counts) if !self.history && self.safe.taken_at.is_none() && waited < HISTORY_WAITS => {
                let later = now + timings.snapshot_after_link();
                self.recycle = Recycle::At(later, waited + 1, counts.max(later));
                None
            }
            Recycle::At(at, _, counts) => {
                if now < at {
                    self.too_heavy(counts);
                }
                self.shared.services.hub.close_lanes(self.shared.session());
                self.recycle = Recycle::Quiet(now + timings.drain_jobs_within());
                None
            }
            Recycle::Quiet(until) if now < until => self.still_quiet(),
            // Something takes long: later.
            Recycle::Quiet(_) => {
                self.recycle = Recycle::At(now + timings.drain_jobs_within() * 10, HISTORY_WAITS, now + self.patience());
                if *self.shared.working.borrow() {
                    self.shared.services.hub.open(self.shared.session());
                }
                None
            }
        }
    }

    /// A job that was being taken when the lanes were closed may have come since: from here on such a one waits for the next browser, and one
    /// that came before is seen.
    fn still_quiet(&self) -> Option<After> {
        let worked = *self.shared.working.borrow();
        self.set_working(false);
        if self.shared.services.hub.session_is_idle(self.shared.session()) {
            return Some(After::Recycle);
        }
        self.set_working(worked);
        None
    }

    /// Whether this browser has worked: of another one no snapshot is taken.
    pub(super) fn has_worked(&self) -> bool {
        !matches!(self.recycle, Recycle::No)
    }

    /// Whether jobs wait in their lanes for the browser to be replaced.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.recycle, Recycle::Quiet(_))
    }
}

/// A limit below what every browser costs must not replace them for ever: less and less often, at most as often as without a limit.
fn patience(soon: Duration, every: Duration, in_vain: u32) -> Duration {
    let first = soon * HEAVY_AFTER;
    (first * 2_u32.pow(in_vain.min(10))).min(every.max(first))
}

/// A tenth more or less, the same each time: not all sessions of a host at once.
fn spread(every: Duration, of: u128) -> Duration {
    let tenth = every / 10;
    every - tenth + tenth * u32::try_from(of % 201).unwrap_or(100) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_recycled_around_their_time_and_not_together() {
        let (day, times) = (Duration::from_secs(1000), (0..500).map(|n| spread(Duration::from_secs(1000), n)));
        assert!(times.clone().all(|t| t >= day * 9 / 10 && t <= day * 11 / 10));
        assert!(times.clone().min() < Some(day * 92 / 100) && times.max() > Some(day * 108 / 100));
    }

    #[test]
    fn the_longer_browsers_are_replaced_in_vain_the_longer_the_next_one_may_cost_too_much() {
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
        let waits: Vec<_> = (0..12).map(|n| patience(minute, day, n)).collect();
        assert_eq!(waits[..3], [minute * 10, minute * 20, minute * 40]);
        assert_eq!(waits[11], day);
        assert_eq!(patience(minute, minute, 3), minute * 10, "never sooner than at first");
    }
}
