//! One lane of a session as its owner keeps it: who looks into it, what runs, what has ended and must be removed.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use contract::JobId;

/// Whether somebody is looking into a lane.
///
/// At most one looks at a time. Whoever has news (an entry, an end, an opened lane) says so by [`Looking::wake`], and must look itself only
/// if nobody is. A looker that found nothing may leave only if there was no news since it began to look; else it looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Looking {
    /// Nobody.
    Idle = 0,
    /// Somebody, and nothing is new since it began.
    Busy = 1,
    /// Somebody, or somebody is about to, and there is news.
    Dirty = 2,
}

impl Looking {
    /// There is news. Answers the next state and whether the caller has to start a looker.
    pub(crate) const fn wake(self) -> (Self, bool) {
        (Self::Dirty, matches!(self, Self::Idle))
    }
    /// The looker found nothing. Answers the next state and whether it may leave.
    pub(crate) const fn leave(self) -> (Self, bool) {
        match self {
            Self::Busy => (Self::Idle, true),
            Self::Idle | Self::Dirty => (Self::Dirty, false),
        }
    }
    const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Idle,
            1 => Self::Busy,
            _ => Self::Dirty,
        }
    }
}

/// A lane.
pub(crate) struct Slot {
    looking: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Handed to a handler; an ended one stays until its entry is removed, so that it is not taken again.
    running: Vec<JobId>,
    /// Entries to remove.
    ended: Vec<String>,
}

/// What the looker must know before it asks Redis.
pub(crate) struct View {
    /// Entries to remove.
    pub ended: Vec<String>,
    /// How many jobs will run when those are gone.
    pub running: usize,
}

impl Slot {
    pub(crate) const fn new() -> Self {
        Self { looking: AtomicU8::new(Looking::Idle as u8), inner: Mutex::new(Inner { running: Vec::new(), ended: Vec::new() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is news: `true` obliges the caller to start a looker.
    pub(crate) fn wake(&self) -> bool {
        Looking::from_u8(self.looking.swap(Looking::Dirty as u8, Ordering::AcqRel)).wake().1
    }
    /// The looker begins (again): everything that was news until now will be seen.
    pub(crate) fn look(&self) {
        self.looking.store(Looking::Busy as u8, Ordering::Release);
    }
    /// The looker found nothing: `true` lets it leave.
    pub(crate) fn leave(&self) -> bool {
        self.looking
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(Looking::from_u8(n).leave().0 as u8))
            .is_ok_and(|n| Looking::from_u8(n).leave().1)
    }

    pub(crate) fn view(&self) -> View {
        let inner = self.inner();
        let ended = inner.ended.clone();
        let running = inner.running.iter().filter(|job| !ended.contains(&job.to_string())).count();
        View { ended, running }
    }
    /// Redis has removed these.
    pub(crate) fn removed(&self, entries: &[String]) {
        let mut inner = self.inner();
        inner.ended.retain(|e| !entries.contains(e));
        inner.running.retain(|job| !entries.contains(&job.to_string()));
    }
    pub(crate) fn runs(&self, entry: &str) -> bool {
        self.inner().running.iter().any(|job| job.to_string() == entry)
    }
    pub(crate) fn started(&self, job: JobId) {
        self.inner().running.push(job);
    }
    /// The entry is to be removed by the next look.
    pub(crate) fn ended(&self, entry: String) {
        self.inner().ended.push(entry);
    }
    /// The attempt is over and the entry stays.
    pub(crate) fn put_back(&self, job: JobId) {
        self.inner().running.retain(|j| *j != job);
    }
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner();
        inner.running.is_empty() && inner.ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a looker is between two steps that others may come between.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Looker {
        Looks,
        Asks,
        Leaves,
    }
    /// A lane with `entries`, pushers that have yet to push (`false`) or to wake (`true`), and lookers.
    #[derive(Clone)]
    struct World {
        state: Looking,
        entries: usize,
        pushers: Vec<bool>,
        lookers: Vec<Looker>,
    }

    fn explore(world: &World, ends: &mut usize) {
        assert!(world.lookers.len() <= 1, "two look at once");
        if world.lookers.is_empty() && world.pushers.is_empty() {
            assert_eq!((world.entries, world.state), (0, Looking::Idle), "an entry is left and nobody looks");
            *ends += 1;
        }
        for n in 0..world.pushers.len() {
            let mut next = world.clone();
            if next.pushers[n] {
                next.pushers.remove(n);
                let (state, start) = next.state.wake();
                next.state = state;
                next.lookers.extend(start.then_some(Looker::Looks));
            } else {
                next.pushers[n] = true;
                next.entries += 1;
            }
            explore(&next, ends);
        }
        for n in 0..world.lookers.len() {
            let mut next = world.clone();
            match next.lookers[n] {
                Looker::Looks => {
                    next.state = Looking::Busy;
                    next.lookers[n] = Looker::Asks;
                }
                Looker::Asks if next.entries > 0 => {
                    next.entries -= 1;
                    next.lookers[n] = Looker::Looks;
                }
                Looker::Asks => next.lookers[n] = Looker::Leaves,
                Looker::Leaves => {
                    let (state, may) = next.state.leave();
                    next.state = state;
                    if may {
                        next.lookers.remove(n);
                    } else {
                        next.lookers[n] = Looker::Looks;
                    }
                }
            }
            explore(&next, ends);
        }
    }

    #[test]
    fn in_no_interleaving_is_an_entry_left_or_do_two_look_at_once() {
        for pushers in 1..=3 {
            let mut ends = 0;
            explore(&World { state: Looking::Idle, entries: 0, pushers: vec![false; pushers], lookers: vec![] }, &mut ends);
            assert!(ends > 0);
        }
    }

    #[test]
    fn an_ended_job_counts_as_running_until_its_entry_is_removed() {
        let (slot, job) = (Slot::new(), JobId::new());
        slot.started(job);
        slot.ended(job.to_string());
        assert!(slot.runs(&job.to_string()) && slot.view().running == 0 && !slot.is_idle());
        slot.removed(&slot.view().ended);
        assert!(!slot.runs(&job.to_string()) && slot.is_idle());
    }
}
