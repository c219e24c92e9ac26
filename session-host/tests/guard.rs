//! The guard against real processes: this test binary starts itself again as guard and as host, and shells stand in for browsers.
//! What the guard released, and what the host started, they write into files of a directory of the test's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use rustix::process::Signal;
use session_host::{
    browser::process::ProcessId,
    guard::{self, Ended, GuardPipe, Held, Lease, boottime_ms},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::yield_now,
    time::{Duration, Instant},
};

/// Closes cleanly when told, after a moment.
const POLITE: &str = "trap 'sleep 0.05; exit 0' TERM; while :; do sleep 0.01; done";
/// Does not.
const DEAF: &str = "trap '' TERM; while :; do sleep 0.01; done";

#[expect(clippy::disallowed_methods, reason = "how a test tells the process it starts what to be")]
fn var(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn dir_of_role() -> PathBuf {
    var("GUARD_TEST_DIR").unwrap().into()
}

/// Waits for a condition, with a bound that only a failure reaches.
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "not in time: {what}");
        yield_now();
    }
}

// ---- the roles

#[test]
#[ignore = "a role: started by the other tests"]
fn acts_as_guard() {
    let mut host = tokio::process::Command::new(env::current_exe().unwrap());
    host.args(["--exact", "acts_as_host", "--ignored", "--nocapture"]);
    let dir = dir_of_role();
    let code = guard::run_with(host, move |ended| {
        let lines = ended
            .iter()
            .map(|e: &Ended| format!("{} {} {}\n", e.held.session, e.clean, e.held.lease.as_ref().map_or("-", |l| l.value.as_str())));
        fs::write(dir.join("released.part"), lines.collect::<String>()).unwrap();
        fs::rename(dir.join("released.part"), dir.join("released")).unwrap();
    });
    // The code has no getter: equality says enough.
    let known = [0_u8, 7, 137].into_iter().find(|c| format!("{code:?}") == format!("{:?}", std::process::ExitCode::from(*c)));
    std::process::exit(i32::from(known.unwrap_or(99)));
}

/// Starts the shells that `GUARD_TEST_SHELLS` lists (`session script deadline_ms kill_ms`, `-` for a browser that is not reported).
#[test]
#[ignore = "a role: started by the guard"]
#[expect(clippy::zombie_processes, reason = "they outlive this process, and the guard collects them")]
fn acts_as_host() {
    let pipe = GuardPipe::open().unwrap();
    let dir = dir_of_role();
    let now = boottime_ms();
    let mut held = Vec::new();
    let mut pids = String::new();
    for line in var("GUARD_TEST_SHELLS").unwrap().lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let shell = Command::new("/bin/sh").args(["-c", fields[1]]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(shell.id()).unwrap();
        until("the shell's trap", || process_ready(shell.id()));
        pids += &format!("{} {}\n", process.pid, process.start);
        if fields[0] != "-" {
            let profile = dir.join(fields[0]);
            fs::create_dir_all(&profile).unwrap();
            let at = |n: usize| now + fields[n].parse::<u64>().unwrap();
            let lease = Some(Lease { key: format!("lease:{}", fields[0]), value: format!("value-of-{}", fields[0]) });
            held.push(Held {
                session: fields[0].into(),
                pid: process.pid,
                start: process.start,
                deadline_ms: at(2),
                kill_ms: at(3),
                lease,
                profile: Some(profile),
            });
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    pipe.report(&held);
    runtime.block_on(pipe.flushed());
    fs::write(dir.join("pids.part"), format!("{} {}\n{pids}", std::process::id(), ProcessId::of(std::process::id()).unwrap().start))
        .unwrap();
    fs::rename(dir.join("pids.part"), dir.join("pids")).unwrap();
    runtime.block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        tokio::select! {
            _ = term.recv() => {
                pipe.report(&[]); // as after a drain: nothing is ours any more
                pipe.flushed().await;
                std::process::exit(7);
            }
            () = pipe.guard_gone() => std::process::exit(0),
        }
    });
}

/// Both kinds of shell have set their trap: they catch or ignore `SIGTERM`.
fn process_ready(pid: u32) -> Option<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask =
        |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0);
    ((mask("SigCgt:") | mask("SigIgn:")) & (1 << 14) != 0).then_some(())
}

// ---- the stage

struct Stage {
    guard: Child,
    dir: PathBuf,
    host: ProcessId,
    shells: Vec<ProcessId>,
}

impl Stage {
    fn open(name: &str, shells: &[&str]) -> Self {
        let dir = env::temp_dir().join(format!("zaguan-guard-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let guard = Command::new(env::current_exe().unwrap())
            .args(["--exact", "acts_as_guard", "--ignored", "--nocapture"])
            .env("GUARD_TEST_DIR", &dir)
            .env("GUARD_TEST_SHELLS", shells.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pids = until("the host and its shells", || fs::read_to_string(dir.join("pids")).ok());
        let mut processes = pids.lines().map(|l| {
            let (pid, start) = l.split_once(' ').unwrap();
            ProcessId { pid: pid.parse().unwrap(), start: start.parse().unwrap() }
        });
        let host = processes.next().unwrap();
        Self { guard, dir, host, shells: processes.collect() }
    }

    fn released(&self) -> String {
        until("the release", || fs::read_to_string(self.dir.join("released")).ok())
    }

    fn guard_ends(&mut self) -> ExitStatus {
        until("the guard's end", || self.guard.try_wait().unwrap())
    }

    fn gone_within(&self, what: &str, limit: Duration) {
        let began = Instant::now();
        until(what, || self.shells.iter().all(|s| !s.alive()).then_some(()));
        assert!(began.elapsed() < limit, "{what} took {:?}", began.elapsed());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for process in [&self.host].into_iter().chain(&self.shells) {
            process.kill_tree();
        }
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn closed_mark(dir: &Path, session: &str) -> bool {
    fs::read_dir(dir.join(session)).unwrap().count() == 1
}

// ---- the promises

#[test]
fn browsers_of_a_killed_host_are_gone_in_two_seconds_and_their_leases_are_released() {
    let mut stage =
        Stage::open("killed", &[&format!("polite|{POLITE}|60000|60000"), &format!("deaf|{DEAF}|60000|60000"), &format!("-|{DEAF}|0|0")]);
    stage.host.signal(Signal::KILL);
    stage.gone_within("the end of all browsers, the unreported one too", Duration::from_secs(2));
    assert_eq!(stage.released(), "polite true value-of-polite\ndeaf false value-of-deaf\n");
    assert!(closed_mark(&stage.dir, "polite") && !closed_mark(&stage.dir, "deaf"));
    assert_eq!(stage.guard_ends().code(), Some(137));
}

#[test]
fn a_stopped_host_keeps_no_browser_past_its_deadline() {
    let stage = Stage::open(
        "stopped",
        &[&format!("first|{DEAF}|400|900"), &format!("second|{POLITE}|400|60000"), &format!("later|{POLITE}|60000|60000")],
    );
    stage.host.signal(Signal::STOP);
    let began = Instant::now();
    until("the polite one's end at its deadline", || (!stage.shells[1].alive()).then_some(()));
    until("the deaf one's end when it is killed", || (!stage.shells[0].alive()).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(stage.shells[2].alive() && stage.host.alive(), "others are left alone");
}

#[test]
fn a_drained_host_gives_its_status_on_and_nothing_is_released_again() {
    let mut stage = Stage::open("drained", &[&format!("one|{POLITE}|60000|60000")]);
    let guard = ProcessId::of(stage.guard.id()).unwrap();
    assert!(guard.signal(Signal::TERM), "the guard hands the signal on");
    assert_eq!(stage.guard_ends().code(), Some(7));
    assert_eq!(stage.released(), "");
    stage.gone_within("the end of what the host left", Duration::from_millis(100));
}

#[test]
fn a_host_ends_with_its_guard_even_when_it_is_stopped() {
    let mut stage = Stage::open("unguarded", &[]);
    stage.host.signal(Signal::STOP);
    stage.guard.kill().unwrap();
    stage.guard_ends();
    until("the host's end", || (!stage.host.alive()).then_some(()));
}
