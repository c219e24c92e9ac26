//! `zaguan-host` is first of all a guard: a small process that starts the host proper, hears from it which browsers it may keep until
//! when, and ends those whose time has come, so that a host that died, stopped or stalled keeps no live browser past its lease.
mod pipe;
mod watch;

pub use pipe::GuardPipe;
pub use watch::run_with;

use serde::{Deserialize, Serialize};
use std::{ffi::OsStr, path::PathBuf, process::ExitCode};

/// The first argument of the host proper. Not for people.
pub const HOST_PROPER: &str = "--host-proper";

/// A browser that the host may keep for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The session's id.
    pub session: String,
    /// The browser's process.
    pub pid: u32,
    /// Its start, in clock ticks since boot ([`Browser::started_ticks`](crate::browser::Browser::started_ticks)).
    pub start: u64,
    /// When it is told to close (`SIGTERM`), in ms of [`boottime_ms`].
    pub deadline_ms: u64,
    /// When it is killed, likewise.
    pub kill_ms: u64,
    /// What to give back when the host has died and the browser is gone.
    pub lease: Option<Lease>,
    /// Its directory, to be marked when it closed cleanly after the host's death.
    pub profile: Option<PathBuf>,
}

/// A key in Redis that is ours as long as it has this value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The key.
    pub key: String,
    /// Our value.
    pub value: String,
}

/// A browser that outlived its host and is gone now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// As the host reported it last.
    pub held: Held,
    /// Whether it closed by itself, its data whole.
    pub clean: bool,
}

/// Milliseconds since boot, time asleep included (`CLOCK_BOOTTIME`): the same in all processes of a machine, and set by nobody.
pub fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Whether this process is the host proper.
pub fn is_host_proper() -> bool {
    std::env::args_os().nth(1).as_deref() == Some(OsStr::new(HOST_PROPER))
}

/// Runs as the guard of this same program, with the same arguments, until the host proper and all its browsers are gone; answers its status.
/// `release` then gets every browser that was reported and not taken back. It may block, and has 3 s.
pub fn run(release: impl FnOnce(Vec<Ended>) + Send + 'static) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            tracing::error!(%error, "the guard does not find its own program");
            return ExitCode::FAILURE;
        }
    };
    let mut command = tokio::process::Command::new(program);
    command.arg(HOST_PROPER).args(std::env::args_os().skip(1));
    run_with(command, release)
}
