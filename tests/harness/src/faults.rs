//! The test's end of the named fault points: a service that reaches one connects here, says where it is, and does what the test answers.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
};

/// How long [`Armed::arrived`] waits.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// What the service does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Goes on.
    Go,
    /// Goes on after so many milliseconds.
    Delay(u64),
    /// Fails the step at the point, as if its peer were gone.
    Fail,
    /// Kills itself, as `kill -9` does.
    Die,
    /// Stops itself, as `kill -STOP` does; continue it by signal.
    Stop,
}

/// What a service says at a point.
#[derive(Debug, Clone, Deserialize)]
struct Hello {
    name: String,
    ids: BTreeMap<String, String>,
    pid: i32,
}

/// A service that stands at a point and waits. Dropping it lets the service go on.
#[derive(Debug)]
pub struct Arrival {
    /// The point.
    pub name: String,
    /// What it is about: job, session, …
    pub ids: BTreeMap<String, String>,
    /// Which process.
    pub pid: i32,
    stream: UnixStream,
}

impl Arrival {
    /// Answers it.
    ///
    /// # Panics
    /// When the service is no longer there to be answered.
    pub async fn reply(mut self, reply: Reply) {
        answer(&mut self.stream, reply).await.expect("the service waits for the answer");
    }
}

/// A point that a test waits at. Dropping it disarms the point.
#[derive(Debug)]
pub struct Armed {
    name: String,
    key: u64,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    table: Arc<Mutex<Table>>,
}

impl Armed {
    /// Waits for a service to reach the point.
    ///
    /// # Panics
    /// After a minute.
    pub async fn arrived(&mut self) -> Arrival {
        let arrival = tokio::time::timeout(ARRIVES_WITHIN, self.arrivals.recv()).await;
        let arrival = arrival.unwrap_or_else(|_| panic!("nobody came to {} within {ARRIVES_WITHIN:?}", self.name));
        arrival.expect("the table keeps the other end as long as the point is armed")
    }

    /// Whether somebody stands at the point now.
    pub fn arrived_already(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.table.lock().expect("no holder panics").entries.remove(&self.key);
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    left: usize,
    arrivals: mpsc::UnboundedSender<Arrival>,
}

/// The socket and what is armed on it.
#[derive(Debug)]
pub struct Faults {
    socket: PathBuf,
    table: Arc<Mutex<Table>>,
    accepting: JoinHandle<()>,
}

impl Faults {
    /// Listens in `folder`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(folder: &Path) -> io::Result<Self> {
        let socket = folder.join("faults.sock");
        let listener = UnixListener::bind(&socket)?;
        // Services run as another user when we are root.
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let table = Arc::<Mutex<Table>>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&table)));
        Ok(Self { socket, table, accepting })
    }

    /// What a service is given as `ZAGUAN_FAULTS`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Holds the next service that reaches `name`; later ones pass.
    pub fn arm(&self, name: &str) -> Armed {
        self.arm_times(name, 1)
    }

    /// Holds every service that reaches `name`, until the answer is dropped.
    pub fn arm_always(&self, name: &str) -> Armed {
        self.arm_times(name, usize::MAX)
    }

    fn arm_times(&self, name: &str, left: usize) -> Armed {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let mut table = self.table.lock().expect("no holder panics");
        let key = table.next;
        table.next += 1;
        table.entries.insert(key, Entry { name: name.to_owned(), left, arrivals: sender });
        Armed { name: name.to_owned(), key, arrivals, table: Arc::clone(&self.table) }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn accept(listener: UnixListener, table: Arc<Mutex<Table>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(meet(stream, Arc::clone(&table)));
    }
}

/// Hands the service to the test that waits for it, or waves it through.
async fn meet(stream: UnixStream, table: Arc<Mutex<Table>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let hello: Hello = serde_json::from_str(&line)?;
    let mut stream = reader.into_inner();
    let armed = claim(&mut table.lock().expect("no holder panics"), &hello.name);
    let Some(test) = armed else { return answer(&mut stream, Reply::Go).await };
    let arrival = Arrival { name: hello.name, ids: hello.ids, pid: hello.pid, stream };
    // A test that has gone drops the arrival, and the closed socket lets the service go on.
    let _ = test.send(arrival);
    Ok(())
}

fn claim(table: &mut Table, name: &str) -> Option<mpsc::UnboundedSender<Arrival>> {
    let entry = table.entries.values_mut().find(|entry| entry.name == name && entry.left > 0)?;
    entry.left -= 1;
    Some(entry.arrivals.clone())
}

async fn answer(stream: &mut UnixStream, reply: Reply) -> io::Result<()> {
    let line = match reply {
        Reply::Go => "go\n".to_owned(),
        Reply::Delay(ms) => format!("delay {ms}\n"),
        Reply::Fail => "fail\n".to_owned(),
        Reply::Die => "die\n".to_owned(),
        Reply::Stop => "stop\n".to_owned(),
    };
    stream.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reach(socket: &Path, name: &str) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let line = serde_json::json!({"name": name, "ids": {"job": "job_1"}, "pid": 1}).to_string() + "\n";
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        answer.trim().to_owned()
    }

    #[tokio::test]
    async fn an_armed_point_holds_one_arrival_and_lets_all_others_pass() {
        let folder = crate::folder::Folder::create(crate::user::User::Myself).unwrap();
        let faults = Faults::listen(folder.path()).unwrap();
        let mut armed = faults.arm("host.after_start");
        assert_eq!(reach(faults.socket(), "host.before_start").await, "go");
        let held = tokio::spawn({
            let socket = faults.socket().to_owned();
            async move { reach(&socket, "host.after_start").await }
        });
        let arrival = armed.arrived().await;
        assert_eq!(arrival.ids["job"], "job_1");
        assert_eq!(reach(faults.socket(), "host.after_start").await, "go", "it was armed for one");
        arrival.reply(Reply::Delay(5)).await;
        assert_eq!(held.await.unwrap(), "delay 5");
    }
}
