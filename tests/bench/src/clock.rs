//! One clock for all processes of a machine.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clock that Node's `process.hrtime` reads too.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The same of a moment that has passed.
pub fn at(moment: Instant) -> u64 {
    now() - u64::try_from(moment.elapsed().as_nanos()).unwrap_or(0)
}
