//! Starting programs that must end with us.
use std::{io, path::Path, process::Stdio, sync::mpsc};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

const SETPRIV: &str = "/usr/bin/setpriv";

type Order = (Command, oneshot::Sender<io::Result<Child>>);

/// A parent-death signal fires when the *thread* that spawned ends (`prctl(2)`), so programs are spawned from one thread that lives as long
/// as this value.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    /// Starts the thread. Must be called inside the runtime that will wait for the children.
    pub(crate) fn new() -> io::Result<Self> {
        let (tx, orders) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let _inside = runtime.enter();
            while let Ok((mut command, reply)) = orders.recv() {
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self(tx))
    }

    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (tx, rx) = oneshot::channel();
        self.0.send((command, tx)).map_err(|_| io::Error::other("the spawner has ended"))?;
        rx.await.map_err(|_| io::Error::other("the spawner has ended"))?
    }
}

/// `program` without our environment and without new privileges. `home` is its working directory too.
pub(crate) fn confined(program: &Path, home: &Path) -> Command {
    command(&["--no-new-privs", "--"], program, home)
}

/// The same, with `SIGTERM` when we die. Not for a browser: threads of a killed process end one by one, each hands its children to the next
/// and the signal is sent each time (run); a second `SIGTERM` kills a browser that is closing.
pub(crate) fn mortal(program: &Path, home: &Path) -> Command {
    command(&["--no-new-privs", "--pdeathsig", "TERM", "--"], program, home)
}

fn command(options: &[&str], program: &Path, home: &Path) -> Command {
    let mut command = Command::new(SETPRIV);
    command.args(options).arg(program);
    // Chromium makes a socket below TMPDIR and aborts when its path is longer than such a path may be: not below `home`.
    command.env_clear().env("HOME", home).env("TMPDIR", "/tmp").env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home);
    command
}
