//! One lane of a session that we own: who pumps it, and what is running.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
};

use contract::JobId;

use crate::backend::Done;

/// Nobody looks at the lane.
pub const IDLE: u8 = 0;
/// Somebody does.
pub const BUSY: u8 = 1;
/// Somebody does, and must look once more.
pub const DIRTY: u8 = 2;

/// The wake's decision on the state it found: whether to start a pump. The state becomes `DIRTY` in any case.
pub const fn starts_pump(found: u8) -> bool {
    found == IDLE
}

/// The state after a pump found nothing to do, and whether it must look again.
pub const fn after_pump(found: u8) -> (u8, bool) {
    match found {
        DIRTY => (BUSY, true),
        _ => (IDLE, false),
    }
}

/// A lane.
#[derive(Default)]
pub struct LaneState {
    state: AtomicU8,
    open: AtomicBool,
    inner: Mutex<Inner>,
}

/// What the pump works on.
#[derive(Default)]
pub struct Inner {
    /// Handed to the worker, not finished.
    pub running: HashSet<JobId>,
    /// Finished since the pump last looked.
    pub finished: Vec<(JobId, Done)>,
}

impl LaneState {
    /// Somebody may have to look. `true`: the caller must start a pump.
    pub fn wake(&self) -> bool {
        starts_pump(self.state.swap(DIRTY, SeqCst))
    }
    /// The pump begins to look: what comes after this is seen by another round.
    pub fn begin(&self) {
        self.state.store(BUSY, SeqCst);
    }
    /// The pump found nothing more. `true`: it must look again.
    pub fn end(&self) -> bool {
        loop {
            let found = self.state.load(SeqCst);
            let (next, again) = after_pump(found);
            if self.state.compare_exchange(found, next, SeqCst, SeqCst).is_ok() {
                return again;
            }
        }
    }
    /// Whether jobs may be taken.
    pub fn is_open(&self) -> bool {
        self.open.load(SeqCst)
    }
    /// Lets jobs be taken, or no more.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, SeqCst);
    }
    /// The lane's jobs.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every interleaving of one pump (begin, look, end) with up to three wakes: a wake is never lost.
    #[test]
    fn a_wake_at_any_moment_leads_to_a_look_after_it() {
        // A pump's steps: begin, look, end (which may go back to begin). `at` says after how many of its steps each wake comes.
        for wakes in 0..4u32 {
            for when in 0..7u32.pow(wakes) {
                let mut at: Vec<u32> = (0..wakes).map(|i| when / 7u32.pow(i) % 7).collect();
                at.sort_unstable();
                let lane = LaneState::default();
                let (mut pumping, mut looked_after, mut step, mut phase) = (false, 0, 0, 0);
                let mut woken = 0;
                let mut pending = at.into_iter().peekable();
                loop {
                    while pending.peek().is_some_and(|w| *w <= step) {
                        pending.next();
                        woken += 1;
                        if lane.wake() {
                            assert!(!pumping, "two pumps");
                            (pumping, phase) = (true, 0);
                        }
                    }
                    if !pumping {
                        if pending.peek().is_none() {
                            break;
                        }
                        step += 1;
                        continue;
                    }
                    match phase {
                        0 => lane.begin(),
                        1 => looked_after = woken,
                        _ => pumping = lane.end(),
                    }
                    phase = (phase + 1) % 3;
                    step += 1;
                }
                assert_eq!(looked_after, woken, "a wake was lost");
            }
        }
    }
}
