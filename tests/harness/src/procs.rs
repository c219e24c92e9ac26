//! What `/proc` knows: who lives, who descends from whom. A pid alone may name a stranger by the time it is used, so a process is always
//! named by pid and start time.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// As the kernel counts; reused after its end.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start: u64,
}

/// One line of the process table.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who.
    pub id: ProcessId,
    /// Parent's pid.
    pub parent: i32,
    /// Ended, but not yet waited for: counts as gone.
    pub zombie: bool,
}

impl Entry {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may itself hold blanks and parentheses.
        let rest: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(Self {
            id: ProcessId { pid, start: rest.get(19)?.parse().ok()? },
            parent: rest.get(1)?.parse().ok()?,
            zombie: matches!(*rest.first()?, "Z" | "X"),
        })
    }

    /// Its arguments, separated by blanks; empty where it hides them.
    pub fn command_line(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.id.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }
}

impl ProcessId {
    /// The living process with this pid.
    pub fn of(pid: i32) -> Option<Self> {
        Entry::read(pid).map(|entry| entry.id)
    }

    /// Neither gone nor a zombie, and not another process under its number.
    pub fn lives(self) -> bool {
        Entry::read(self.pid).is_some_and(|entry| entry.id == self && !entry.zombie)
    }

    /// Sends a signal if it still lives.
    pub fn signal(self, signal: Signal) {
        if self.lives()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The whole process table.
pub fn all() -> Vec<Entry> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| Entry::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Everything that descends from one of `roots`, the roots included, zombies left out.
pub fn descendants(roots: &[i32]) -> Vec<ProcessId> {
    let table = all();
    let mut found: HashSet<i32> = roots.iter().copied().collect();
    loop {
        let before = found.len();
        found.extend(table.iter().filter(|entry| found.contains(&entry.parent)).map(|entry| entry.id.pid).collect::<Vec<_>>());
        if found.len() == before {
            break;
        }
    }
    table.iter().filter(|entry| found.contains(&entry.id.pid) && !entry.zombie).map(|entry| entry.id).collect()
}

/// Living processes whose command line names `folder`, and their descendants: what runs out of it or on it, whoever its parent is now.
pub fn that_name(folder: &Path) -> Vec<ProcessId> {
    // With the slash, so that `zaguan-1-1-1` does not answer for `zaguan-1-1-10`.
    let needle = format!("{}/", folder.display());
    let own = std::process::id().cast_signed();
    let roots: Vec<i32> = all()
        .iter()
        .filter(|entry| entry.id.pid != own && !entry.zombie && entry.command_line().contains(&needle))
        .map(|entry| entry.id.pid)
        .collect();
    descendants(&roots)
}

/// Ends all of `victims` for good and waits until they are gone, at most `within`. Gives back who is left.
pub fn kill(victims: &[ProcessId], within: Duration) -> Vec<ProcessId> {
    for victim in victims {
        victim.signal(Signal::KILL);
    }
    wait_gone(victims, within)
}

/// Blocks until none of `who` lives, at most `within`. Gives back who is left.
pub fn wait_gone(who: &[ProcessId], within: Duration) -> Vec<ProcessId> {
    let end = std::time::Instant::now() + within;
    loop {
        let left: Vec<_> = who.iter().copied().filter(|id| id.lives()).collect();
        if left.is_empty() || std::time::Instant::now() >= end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_tree_is_found_and_ended_by_pid_and_start_time() {
        let mut shell = Command::new("sh").args(["-c", "sleep 1000 & sleep 1000"]).spawn().unwrap();
        let root = shell.id().cast_signed();
        let end = std::time::Instant::now() + Duration::from_secs(5);
        let mut tree = descendants(&[root]);
        while tree.len() < 3 && std::time::Instant::now() < end {
            tree = descendants(&[root]);
        }
        assert_eq!(tree.len(), 3);
        let stranger = ProcessId { start: tree[0].start + 1, ..tree[0] };
        stranger.signal(Signal::KILL);
        assert!(tree.iter().all(|id| id.lives()), "a reused pid is not touched");
        assert_eq!(kill(&tree, Duration::from_secs(5)), []);
        shell.wait().unwrap();
    }
}
