//! Starting programs that must end with us.
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

const SETPRIV: &str = "/usr/bin/setpriv";
/// A socket's path has 107 bytes, and Chromium appends up to 46.
const LONGEST_TEMP_DIR: usize = 60;

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

/// A folder for what browsers leave when they are killed, `<data>/tmp/<our process>`; those of processes that are gone are removed.
/// Chromium makes a socket in it and aborts when its path is longer than such a path may be (run): then the system's folder serves.
pub(crate) fn temp_dir(data: &Path) -> io::Result<PathBuf> {
    let all = data.join("tmp");
    let ours = all.join(std::process::id().to_string());
    if ours.as_os_str().len() > LONGEST_TEMP_DIR {
        return Ok("/tmp".into());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&ours)?;
    for other in fs::read_dir(&all)?.flatten() {
        if !Path::new("/proc").join(other.file_name()).exists() {
            let _ = fs::remove_dir_all(other.path()); // another host may be doing the same
        }
    }
    Ok(ours)
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
    command.env_clear().env("HOME", home).env("TMPDIR", "/tmp").env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_gone_processes_go_and_a_path_too_long_for_a_socket_is_not_used() {
        let data = std::env::temp_dir().join(format!("zg-{}", std::process::id()));
        let gone = data.join("tmp").join("4194304999"); // larger than any process number
        fs::create_dir_all(&gone).unwrap();
        let ours = temp_dir(&data).unwrap();
        assert!(ours.starts_with(&data) && ours.exists() && !gone.exists());
        assert_eq!(temp_dir(&data.join("x".repeat(60))).unwrap(), Path::new("/tmp"));
        fs::remove_dir_all(&data).unwrap();
    }
}
