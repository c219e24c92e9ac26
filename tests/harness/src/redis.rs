//! A private Redis. It keeps nothing on disk unless it is told to.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, Folder, User, process::Process, until};

/// A running server.
pub struct Redis {
    user: User,
    dir: PathBuf,
    logs: PathBuf,
    port: u16,
    durable: bool,
    process: Process,
}

/// What a server held at a moment.
pub struct Kept {
    at: tokio::time::Instant,
    /// Key, what it holds as `DUMP` writes it, milliseconds that it has left (none: for ever).
    keys: Vec<(String, Vec<u8>, Option<u64>)>,
}

/// A stream's entry: its id, and its fields with their values.
pub type Entry = (String, Vec<(String, String)>);

impl Redis {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(user: User, folder: &Folder, logs: &Path) -> Result<Self, Error> {
        Self::keeping(user, folder, logs, false).await
    }

    /// The same; a `durable` one writes every change to its append-only file before it answers, and has it again after a crash.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn keeping(user: User, folder: &Folder, logs: &Path, durable: bool) -> Result<Self, Error> {
        let (dir, port) = (folder.sub("redis")?, crate::free_port());
        let process = Self::run(user, &dir, logs, port, durable)?;
        let redis = Self { user, dir, logs: logs.to_owned(), port, durable, process };
        redis.ready().await;
        Ok(redis)
    }

    fn run(user: User, dir: &Path, logs: &Path, port: u16, durable: bool) -> std::io::Result<Process> {
        let mut command = user.tied("/usr/bin/redis-server", "KILL");
        command.current_dir(dir).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", if durable { "yes" } else { "no" }, "--appendfsync", "always"]);
        command.args(["--maxmemory-policy", "noeviction"]);
        Process::start("redis", logs, command)
    }

    async fn ready(&self) {
        until("Redis", Duration::from_secs(10), || async { self.try_command(&["PING"]).await.ok() }).await;
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks the server something.
    ///
    /// # Errors
    /// Redis' own.
    pub async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    /// Asks the server something that it must answer.
    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).await.expect("Redis answers")
    }

    /// Its keys of a pattern.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let keys = self.command(&["KEYS", pattern]).await;
        redis::from_redis_value(keys).expect("keys are text")
    }

    /// A stream, all of it.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn stream(&self, key: &str) -> Vec<Entry> {
        let entries = self.command(&["XRANGE", key, "-", "+"]).await;
        redis::from_redis_value(entries).expect("entries are pairs of text")
    }

    /// Trims the streams of a pattern to their last entry each. Answers what is gone, by key.
    ///
    /// # Errors
    /// Redis' own.
    pub async fn trim(&self, pattern: &str) -> redis::RedisResult<Vec<(String, Vec<Entry>)>> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
        let mut gone = Vec::new();
        for key in keys {
            let mut entries: Vec<Entry> = redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query_async(&mut connection).await?;
            let Some((last, _)) = entries.pop() else { continue };
            // By its id: what is added meanwhile stays.
            redis::cmd("XTRIM").arg(&key).arg("MINID").arg(last).exec_async(&mut connection).await?;
            gone.push((key, entries));
        }
        Ok(gone)
    }

    /// What it holds now.
    ///
    /// # Errors
    /// Redis' own.
    pub async fn keep(&self) -> redis::RedisResult<Kept> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let (at, mut keys) = (tokio::time::Instant::now(), Vec::new());
        let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
        for key in names {
            let held: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await?;
            let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await?;
            keys.extend(held.map(|held| (key, held, u64::try_from(left).ok())));
        }
        Ok(Kept { at, keys })
    }

    /// Goes back to what it held at a moment, as a replica does that was behind when it took over: connections break, what came since is
    /// gone, and what has run out since is gone too.
    ///
    /// # Errors
    /// What kept it from it.
    pub async fn go_back(&mut self, kept: &Kept) -> Result<(), Error> {
        self.kill().await;
        self.up().await?;
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let gone = u64::try_from(kept.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut back = redis::pipe();
        // At once, or somebody would see half of it.
        back.atomic().cmd("FLUSHALL");
        for (key, held, left) in &kept.keys {
            let left = left.map(|left| left.saturating_sub(gone));
            if left != Some(0) {
                back.cmd("RESTORE").arg(key).arg(left.unwrap_or(0)).arg(held);
            }
        }
        Ok(back.exec_async(&mut connection).await?)
    }

    /// `kill -9`: what is not on disk is gone.
    pub async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.wait(Duration::from_secs(5)).await;
    }

    /// Up again on the same port, with what was on disk.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn up(&mut self) -> Result<(), Error> {
        self.process = Self::run(self.user, &self.dir, &self.logs, self.port, self.durable)?;
        self.ready().await;
        Ok(())
    }
}
