//! Processes that a stack started: ended by id, with the stack, and when whoever started them dies.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A child process with its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it says goes to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// The system's, naming the process.
    pub fn start(name: &str, logs: &Path, mut command: Command) -> io::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Ctrl-C on the terminal is for us; we end the others in order.
        command.process_group(0);
        let child = spawn_from_lasting_thread(command).map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for its end. `None`: not within the time.
    pub async fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and SIGKILL where that does not help within the time.
    pub async fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let status = self.wait(within).await;
        if status.is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(5)).await;
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a program from a thread that lives as long as this process: the kernel sends a death signal when the *thread* that forked ends.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, result) = mpsc::sync_channel(1);
    spawner.send((command, answer)).map_err(io::Error::other)?;
    result.recv().map_err(io::Error::other)?
}

/// Sends a signal to a process by its id.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs (a zombie does not).
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Whether a process is stopped, as by SIGSTOP.
pub fn stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// Processor time that a process has used.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// When a process started, in ticks since boot: with the id it names a process for ever.
pub fn started(pid: u32) -> Option<String> {
    stat(pid)?.get(19).cloned()
}

/// Fields of `/proc/PID/stat` from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Kills a process and everything below it, and waits until they are gone.
pub fn kill_tree(pid: u32) {
    let mut tree = vec![pid];
    let mut next = 0;
    while let Some(parent) = tree.get(next) {
        tree.extend(children(*parent));
        next += 1;
    }
    tree.iter().for_each(|pid| send(*pid, Signal::KILL));
    let end = Instant::now() + Duration::from_secs(5);
    while tree.iter().any(|pid| alive(*pid)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every process.
fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    all().filter(|child| stat(*child).is_some_and(|f| f.get(1).is_some_and(|parent| *parent == pid.to_string()))).collect()
}

/// Processes whose command line has `part`.
pub fn with_argument(part: &str) -> Vec<u32> {
    all()
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(part)) && alive(*pid))
        .collect()
}
