//! The guard's own end. One thread, one pipe, no connection to anywhere: little that could hang.
use super::{Ended, Held, boottime_ms};
use crate::browser::{
    ended_by_itself, mark_closed,
    process::{ProcessId, children},
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, waitpid};
use std::{
    collections::{HashMap, HashSet},
    io,
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// Browsers close by themselves when their host dies, because their pipe ends; whoever does not is told after this.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// After a host's death its browsers have this long to close.
const KILL_AFTER: Duration = Duration::from_millis(1200);
/// What even `SIGKILL` does not end by then hangs in the kernel.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// A host that closed its pipe and lives is broken.
const HOST_ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How often we look for orphans while the host lives. None are expected.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const RELEASE_WITHIN: Duration = Duration::from_secs(3);

/// As [`run`](super::run), for any command.
pub fn run_with(host: Command, release: impl FnOnce(Vec<Ended>) + Send + 'static) -> ExitCode {
    let guarded = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| runtime.block_on(guard(host)));
    match guarded {
        Ok((status, ended)) => {
            let (done, wait) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                release(ended);
                let _ = done.send(());
            });
            if wait.recv_timeout(RELEASE_WITHIN).is_err() {
                tracing::error!("leases were not released in time; they will expire");
            }
            ExitCode::from(code(status))
        }
        Err(error) => {
            tracing::error!(%error, "the guard cannot work");
            ExitCode::FAILURE
        }
    }
}

/// As a shell would say it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

async fn guard(mut command: Command) -> io::Result<(ExitStatus, Vec<Ended>)> {
    set_child_subreaper(Some(getpid()))?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut child_ended = signal(SignalKind::child())?;
    // A group of its own: Ctrl-C reaches us alone, and the browsers hear of it in the host's good time.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let host = child.id().and_then(ProcessId::of).ok_or_else(|| io::Error::other("the host ended at once"))?;
    let _alive = child.stdin.take(); // closed by the kernel when we end
    let mut reports = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?).lines();
    let mut watch = Watch { host, held: Vec::new(), told: HashSet::new(), orphans: HashSet::new(), ended: HashMap::new() };
    let mut look = tokio::time::interval(LOOK_EVERY);

    let status = loop {
        tokio::select! {
            line = reports.next_line() => match line {
                Ok(Some(line)) => watch.on_report(&line),
                _ => break host_ends(&mut child, host).await?,
            },
            () = sleep(watch.next_deadline()) => watch.fence(),
            _ = term.recv() => drop(host.signal(Signal::TERM)),
            _ = int.recv() => drop(host.signal(Signal::INT)),
            _ = child_ended.recv() => watch.reap(),
            _ = look.tick() => watch.end_orphans(),
        }
    };
    watch.end_all().await;
    Ok((status, watch.ended()))
}

async fn host_ends(child: &mut Child, host: ProcessId) -> io::Result<ExitStatus> {
    if let Ok(status) = tokio::time::timeout(HOST_ENDS_WITHIN, child.wait()).await {
        return status;
    }
    tracing::error!("the host closed its pipe and did not end; it is killed");
    host.signal(Signal::KILL);
    child.wait().await
}

struct Watch {
    host: ProcessId,
    held: Vec<Held>,
    /// Whom we sent `SIGTERM`: never twice, a second one kills a browser that is closing.
    told: HashSet<ProcessId>,
    /// Orphans seen at the last look.
    orphans: HashSet<ProcessId>,
    /// Whether our adopted children ended by themselves.
    ended: HashMap<u32, bool>,
}

impl Held {
    fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start }
    }
}

impl Watch {
    fn on_report(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(held) => self.held = held,
            Err(error) => tracing::error!(%error, "a report of the host is not understood; the deadlines stand as they are"),
        }
    }

    /// Never longer than a second: timers do not count the time that a machine sleeps, deadlines do.
    fn next_deadline(&self) -> Duration {
        let now = boottime_ms();
        let due = |h: &Held| if self.told.contains(&h.process()) { h.kill_ms } else { h.deadline_ms };
        let next = self.held.iter().filter(|h| h.process().alive()).map(due).min().unwrap_or(u64::MAX);
        Duration::from_millis(next.saturating_sub(now).clamp(5, 1000))
    }

    /// Ends the browsers whose time has come, the host being dead, stopped, stalled or cut off.
    fn fence(&mut self) {
        let now = boottime_ms();
        for held in &self.held {
            let process = held.process();
            if now >= held.kill_ms && process.alive() {
                tracing::error!(session = held.session, "killed: the lease ends and the host has not renewed it");
                process.kill_tree();
            } else if now >= held.deadline_ms && self.told.insert(process) && process.catches_term() {
                tracing::error!(session = held.session, "told to close: the lease is about to end and the host has not renewed it");
                process.signal(Signal::TERM);
            }
        }
    }

    /// Collects adopted children that ended. The host proper is collected by who waits for it.
    fn reap(&mut self) {
        for child in children(std::process::id()).into_iter().filter(|c| *c != self.host) {
            let Some(pid) = Pid::from_raw(child.pid.cast_signed()) else { continue };
            if let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
                self.ended.insert(child.pid, ended_by_itself(status.exit_status()));
            }
        }
    }

    /// While the host lives, what becomes our child has lost its parent inside a browser, and ends by itself or by us.
    fn end_orphans(&mut self) {
        self.reap();
        let now: HashSet<ProcessId> = self.adopted().collect();
        for orphan in now.intersection(&self.orphans) {
            orphan.kill_tree();
        }
        self.orphans = now;
    }

    fn adopted(&self) -> impl Iterator<Item = ProcessId> {
        let host = self.host;
        children(std::process::id()).into_iter().filter(move |c| *c != host && c.alive())
    }

    /// After the host's death: everything it left became our child, reported or not.
    async fn end_all(&mut self) {
        let began = Instant::now();
        loop {
            self.reap();
            let mut left: HashSet<ProcessId> = self.adopted().collect();
            left.extend(self.held.iter().map(Held::process).filter(|p| p.alive()));
            if left.is_empty() {
                return self.reap(); // those that ended since
            }
            for process in left {
                if began.elapsed() > KILL_AFTER {
                    process.kill_tree();
                } else if began.elapsed() > TELL_AFTER && process.catches_term() && self.told.insert(process) {
                    process.signal(Signal::TERM);
                }
            }
            if began.elapsed() > GIVE_UP_AFTER {
                return tracing::error!("processes of the host do not end");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn ended(self) -> Vec<Ended> {
        let by_themselves = self.ended;
        let ended = self.held.into_iter().filter(|h| !h.process().alive()).map(|held| {
            let mut clean = by_themselves.get(&held.pid).copied().unwrap_or(false);
            if clean && let Some(profile) = &held.profile {
                clean = mark_closed(profile).is_ok();
            }
            Ended { held, clean }
        });
        ended.collect()
    }
}
