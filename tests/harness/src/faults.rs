//! The other end of `contract::fault`: a test awaits the arrival of a process at a named point and says what happens there.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use crate::{
    Error, User,
    process::{self, Signal},
    until,
};

/// A stopped process stands still at once; this is for a machine that has no time for it.
const STANDS_WITHIN: Duration = Duration::from_secs(10);

/// What a test says.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    /// Go on.
    Go,
    /// Go on after so many milliseconds.
    Delay(u64),
    /// The step fails as if its peer were gone.
    Fail,
    /// The process ends as by `kill -9`.
    Die,
    /// The process stops as by SIGSTOP.
    Stop,
}

/// A process at a point.
pub struct Arrival {
    /// Which point.
    pub name: String,
    /// What the point says of itself.
    pub ids: Value,
    /// Which process.
    pub pid: u32,
    stream: UnixStream,
}

impl Arrival {
    /// Says what happens.
    pub async fn reply(mut self, word: Word) {
        let text = match word {
            Word::Go => "go".to_owned(),
            Word::Delay(ms) => format!("delay {ms}"),
            Word::Fail => "fail".to_owned(),
            Word::Die => "die".to_owned(),
            // From here, while it waits for its answer: a process that stops itself may take another step before it stands still.
            Word::Stop => {
                process::send(self.pid, Signal::STOP);
                until("the process to stand still", STANDS_WITHIN, || async { process::stopped(self.pid).then_some(()) }).await;
                "go".to_owned()
            }
        };
        // A process that died meanwhile needs no answer.
        let _ = self.stream.write_all(format!("{text}\n").as_bytes()).await;
    }
}

/// An armed point.
pub struct Armed(mpsc::UnboundedReceiver<Arrival>);

impl Armed {
    /// The next process that comes there, whenever that is. `None`: none will, as the point was armed anew or its server is gone.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.0.recv().await
    }

    /// The next process that comes there.
    pub async fn arrived(&mut self) -> Arrival {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(30), self.0.recv());
        wait.await.expect("a process comes to the fault point within 30 s").expect("the fault server lives")
    }
}

/// Who is told of arrivals at a point, and of how many more.
struct Point {
    test: mpsc::UnboundedSender<Arrival>,
    left: usize,
}

type Points = Arc<Mutex<HashMap<String, Point>>>;

/// The server that the points ask. What is not armed goes on at once.
pub struct Faults {
    path: PathBuf,
    armed: Points,
    _server: tokio::task::JoinHandle<()>,
}

impl Faults {
    /// Listens on a socket in `folder`.
    ///
    /// # Errors
    /// The file system's.
    pub fn start(user: User, folder: &Path) -> Result<Self, Error> {
        let path = folder.join("faults.sock");
        let listener = UnixListener::bind(&path)?;
        user.own(&path)?;
        let armed = Points::default();
        let points = armed.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, points.clone()));
            }
        });
        Ok(Self { path, armed, _server: server })
    }

    /// Where the points ask.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops every process that comes to this point until the test has spoken; ends when the answer is dropped.
    pub fn arm(&self, name: &str) -> Armed {
        self.arm_times(name, usize::MAX)
    }

    /// Stops the first process that comes to this point; later ones go on at once.
    pub fn arm_once(&self, name: &str) -> Armed {
        self.arm_times(name, 1)
    }

    fn arm_times(&self, name: &str, left: usize) -> Armed {
        let (test, arrivals) = mpsc::unbounded_channel();
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Point { test, left });
        Armed(arrivals)
    }
}

async fn serve(stream: UnixStream, points: Points) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        return;
    }
    let asked: Value = serde_json::from_str(&line).unwrap_or_default();
    let name = asked["name"].as_str().unwrap_or_default().to_owned();
    let pid = asked["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    let armed = points.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&name).and_then(|point| {
        point.left = point.left.checked_sub(1)?;
        Some(point.test.clone())
    });
    let arrival = Arrival { name, ids: asked["ids"].clone(), pid, stream: stream.into_inner() };
    let unheard = match armed {
        Some(armed) => armed.send(arrival).err().map(|e| e.0),
        None => Some(arrival),
    };
    if let Some(arrival) = unheard {
        arrival.reply(Word::Go).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reach(socket: PathBuf, name: &str) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let line = serde_json::json!({"name": name, "ids": {"job": "job_1"}, "pid": 7}).to_string() + "\n";
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        answer.trim().to_owned()
    }

    #[tokio::test]
    async fn an_armed_point_holds_its_arrivals_and_all_others_pass() {
        let user = User::find().unwrap();
        let folder = crate::Folder::new(user).unwrap();
        let faults = Faults::start(user, folder.path()).unwrap();
        let socket = faults.path().to_owned();

        let mut once = faults.arm_once("host.after_start");
        assert_eq!(reach(socket.clone(), "host.before_start").await, "go", "not armed");
        let held = tokio::spawn(reach(socket.clone(), "host.after_start"));
        let arrival = once.arrived().await;
        assert_eq!((arrival.name.as_str(), arrival.ids["job"].as_str(), arrival.pid), ("host.after_start", Some("job_1"), 7));
        assert_eq!(reach(socket.clone(), "host.after_start").await, "go", "it was armed for one");
        arrival.reply(Word::Delay(5)).await;
        assert_eq!(held.await.unwrap(), "delay 5");

        let mut always = faults.arm("host.after_start");
        for word in [(Word::Fail, "fail"), (Word::Die, "die")] {
            let held = tokio::spawn(reach(socket.clone(), "host.after_start"));
            always.arrived().await.reply(word.0).await;
            assert_eq!(held.await.unwrap(), word.1);
        }
        drop(always);
        assert_eq!(reach(socket, "host.after_start").await, "go", "nobody waits any more");
    }
}
