//! Processes as the kernel shows them under `/proc`: who is alive, who is whose child, what it costs.
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Where `SIGTERM` stands in the signal masks of `/proc/<pid>/status` (bit 14, signal 15).
const SIGTERM_BIT: u64 = 1 << 14;

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The number of the process.
    pub pid: u32,
    /// Its start, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start: u64,
}

struct Stat {
    state: char,
    parent: u32,
    threads: u32,
    start: u64,
}

/// The fields behind the command name, which may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads = fields.nth(15)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, threads, start })
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

impl ProcessId {
    /// The process that has this number now. `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: stat(pid)?.start })
    }

    /// Whether it still runs. A zombie has ended and waits for nobody but its parent, unless it has threads left: then only its first one has.
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start == self.start && (!matches!(s.state, 'Z' | 'X') || s.threads > 1))
    }

    /// Sends `signal` if the process still runs; says whether it was sent.
    pub fn signal(self, signal: Signal) -> bool {
        self.alive() && Pid::from_raw(self.pid.cast_signed()).is_some_and(|p| kill_process(p, signal).is_ok())
    }

    /// Whether a first `SIGTERM` would be handled. Chromium puts the default action back once it has begun to close:
    /// a second one would kill it in the middle of writing.
    pub fn catches_term(self) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/status", self.pid)) else { return false };
        let mask = text.lines().find_map(|l| l.strip_prefix("SigCgt:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
        self.alive() && mask.is_some_and(|m| m & SIGTERM_BIT != 0)
    }

    /// `SIGKILL` for this process and everything below it. Descendants are listed first: they lose their parent with it.
    pub fn kill_tree(self) {
        if !self.alive() {
            return;
        }
        let below = descendants(self.pid);
        self.signal(Signal::KILL);
        for process in below {
            process.signal(Signal::KILL);
        }
    }
}

/// All processes with their parents, at one moment.
fn table() -> Vec<(ProcessId, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| stat(pid).map(|s| (ProcessId { pid, start: s.start }, s.parent))).collect()
}

/// The direct children of `parent`, zombies included.
pub fn children(parent: u32) -> Vec<ProcessId> {
    table().into_iter().filter(|(_, p)| *p == parent).map(|(process, _)| process).collect()
}

/// Everything below `root`, without it.
pub fn descendants(root: u32) -> Vec<ProcessId> {
    let table = table();
    let mut found: Vec<ProcessId> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (process, _) in table.iter().filter(|(_, p)| *p == parent) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    found
}

/// Proportional set size of `root` and everything below it, in bytes: shared pages count by their share.
pub fn tree_pss(root: u32) -> u64 {
    let pss = |pid: u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        text.lines().find_map(|l| l.strip_prefix("Pss:"))?.split_whitespace().next()?.parse::<u64>().ok()
    };
    let pids = descendants(root).into_iter().map(|p| p.pid).chain([root]);
    pids.filter_map(pss).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "812 (evil) name (x) S 7 812 812 0 -1 4194560 0 0 0 0 3 4 0 0 20 0 1 0 99123 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.threads, stat.start), ('S', 7, 1, 99123));
    }

    #[test]
    fn a_process_of_the_same_number_but_another_start_is_not_alive() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.alive());
    }

    #[test]
    fn a_child_that_ended_unreaped_counts_as_gone_and_a_living_one_is_found_below_us() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.alive() && children(std::process::id()).contains(&id) && descendants(std::process::id()).contains(&id));
        assert!(tree_pss(child.id()) > 0);
        assert!(id.signal(Signal::KILL));
        let gone = (0..2000).any(|_| {
            std::thread::yield_now();
            !id.alive()
        });
        assert!(gone);
        child.wait().unwrap();
    }
}
