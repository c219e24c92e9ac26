//! A program that runs while we look: as the right user, in a group of its own, with its output in a file, and gone when we are gone.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    procs::{self, ProcessId},
    user::{User, base_env},
    wait::until,
};

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// Names it in messages and names its log.
    pub name: String,
    /// The file to run.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment beyond the base.
    pub env: Vec<(String, String)>,
    /// Its working directory and `HOME`.
    pub home: PathBuf,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// What it gets when this process dies without a word.
    pub death_signal: &'static str,
}

impl Program {
    /// A program without arguments, killed when we die.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, home: &Path, logs: &Path) -> Self {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        Self { name, path: path.into(), args: Vec::new(), env: Vec::new(), home: home.to_owned(), log, death_signal: "KILL" }
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds variables; a later one wins.
    pub fn env<N: Into<String>, V: Into<String>>(mut self, env: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    fn command(&self, user: User) -> Command {
        let words = user.prefix(self.death_signal);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(&self.path).args(&self.args);
        command.current_dir(&self.home).env_clear().envs(base_env(&self.home)).envs(self.env.iter().cloned());
        command.stdin(Stdio::null());
        // Ctrl-C on the terminal is for us; we end the others in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }

    /// Starts it, output into its log.
    ///
    /// # Errors
    /// The log cannot be opened, or `setpriv` cannot be run.
    pub fn spawn(self, user: User) -> io::Result<Process> {
        let mut command = self.command(user);
        let out = File::options().create(true).append(true).open(&self.log)?;
        command.stdout(out.try_clone()?).stderr(out);
        Process::start(self, command)
    }

    /// Starts it with its standard output in our hands; standard error goes to its log.
    ///
    /// # Errors
    /// As [`Program::spawn`].
    pub fn spawn_piped(self, user: User) -> io::Result<(Process, std::process::ChildStdout)> {
        let mut command = self.command(user);
        command.stdout(Stdio::piped()).stderr(File::options().create(true).append(true).open(&self.log)?);
        let process = Process::start(self, command)?;
        let out = process.child.lock().expect("no holder panics").stdout.take().expect("was asked for");
        Ok((process, out))
    }
}

/// A started program. Dropping it kills it and everything that descends from it.
#[derive(Debug)]
pub struct Process {
    program: Program,
    id: ProcessId,
    child: Mutex<Child>,
}

impl Process {
    fn start(program: Program, command: Command) -> io::Result<Self> {
        let child = spawn_from_lasting_thread(command)?;
        let pid = child.id().cast_signed();
        // Not yet waited for, so it is in the table even if it has already ended.
        let id = ProcessId::of(pid).ok_or_else(|| io::Error::other(format!("{} vanished", program.name)))?;
        Ok(Self { program, id, child: Mutex::new(child) })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Its pid and start time.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().expect("no holder panics").try_wait().ok().flatten()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        // Under the lock and only while not waited for: the number cannot have been given to another.
        let mut child = self.child.lock().expect("no holder panics");
        if let (Ok(None), Some(pid)) = (child.try_wait(), Pid::from_raw(self.id.pid)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// After `within`.
    pub async fn end(&self, within: Duration) -> ExitStatus {
        until(&format!("the end of {}", self.name()), within, || async { self.ended() }).await
    }

    /// Waits until `look` answers, as long as the program lives.
    ///
    /// # Panics
    /// When it ends first, or after `within`; the message carries the end of its log.
    pub async fn ready<T, F: Future<Output = Option<T>>>(&self, what: &str, within: Duration, mut look: impl FnMut() -> F) -> T {
        let end = tokio::time::Instant::now() + within;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before {what}; {}", self.name(), self.tail(40));
            }
            assert!(tokio::time::Instant::now() < end, "waited {within:?} for {} {what}; {}", self.name(), self.tail(40));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of its log, under a heading.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        format!("the end of {}:\n{}", self.log().display(), all[all.len().saturating_sub(lines)..].join("\n"))
    }

    /// Kills it and all that descends from it now, and waits until they are gone.
    pub fn kill_tree(&self) {
        let tree = procs::descendants(&[self.pid()]);
        procs::kill(&tree, Duration::from_secs(5));
        let _ = self.child.lock().expect("no holder panics").wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill_tree();
        }
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a program from a thread that lives as long as this process: the kernel sends a death signal when the *thread* that forked ends.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        orders
    });
    let (answer, result) = mpsc::sync_channel(1);
    spawner.send((command, answer)).map_err(io::Error::other)?;
    result.recv().map_err(io::Error::other)?
}
