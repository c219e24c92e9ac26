//! What `.run` says about a running stack: pid files for scripts, and start times, so that nobody kills a stranger under an old number.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode, time::Duration};

use harness::{
    Signal,
    procs::{self, ProcessId},
};
use serde::{Deserialize, Serialize};

/// How long `stop` waits for the stack to end by itself; it gives hosts 10 s to drain.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// The processes of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// `zaguan-stack` itself.
    pub stack: ProcessId,
    /// What it started, by name.
    pub processes: Vec<(String, ProcessId)>,
}

impl Record {
    /// A run that begins: nothing but ourselves.
    pub fn new() -> io::Result<Self> {
        let own = ProcessId::of(std::process::id().cast_signed()).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        Ok(Self { stack: own, processes: Vec::new() })
    }

    /// The record of an earlier run, if it left one.
    pub fn read(run: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(run.join("processes.json")).ok()?).ok()
    }

    /// Writes it, and a pid file per process.
    pub fn write(&self, run: &Path) -> io::Result<()> {
        let pids = run.join("pids");
        fs::create_dir_all(&pids)?;
        replace(&run.join("processes.json"), &serde_json::to_string_pretty(self)?)?;
        for (name, id) in self.processes.iter().chain([&("stack".to_owned(), self.stack)]) {
            replace(&pids.join(format!("{name}.pid")), &format!("{}\n", id.pid))?;
        }
        Ok(())
    }

    /// Ends whatever of it still lives, with its descendants.
    pub fn kill(&self) -> Vec<ProcessId> {
        let alive: Vec<i32> = self.processes.iter().filter(|(_, id)| id.lives()).map(|(_, id)| id.pid).collect();
        procs::kill(&procs::descendants(&alive), Duration::from_secs(5))
    }
}

/// Removes what a run leaves in `.run`, its logs aside.
pub fn clear(run: &Path) {
    let _ = fs::remove_file(run.join("env"));
    let _ = fs::remove_file(run.join("processes.json"));
    let _ = fs::remove_dir_all(run.join("pids"));
}

/// Writes a file that is never seen half written, readable by its owner only.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    let _ = fs::remove_file(&next);
    let mut file = fs::File::options().create_new(true).write(true).mode(0o600).open(&next)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(next, path)
}

/// `zaguan-stack stop`.
pub fn stop(run: &Path) -> ExitCode {
    let Some(record) = Record::read(run) else {
        eprintln!("zaguan-stack: nothing is running from here");
        return ExitCode::SUCCESS;
    };
    record.stack.signal(Signal::TERM);
    let mut left = procs::wait_gone(&[record.stack], STOPS_WITHIN);
    left = procs::kill(&left, Duration::from_secs(5));
    left.extend(record.kill());
    clear(run);
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("zaguan-stack: still there: {left:?}");
    ExitCode::FAILURE
}
