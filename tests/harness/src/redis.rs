//! A private Redis that keeps nothing on disk.

use std::{path::PathBuf, time::Duration};

use crate::{Error, Folder, User, process::Process, until};

/// A running server.
pub struct Redis {
    user: User,
    dir: PathBuf,
    logs: PathBuf,
    port: u16,
    process: Process,
}

impl Redis {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(user: User, folder: &Folder, logs: &std::path::Path) -> Result<Self, Error> {
        let (dir, port) = (folder.sub("redis")?, crate::free_port());
        let process = Self::run(user, &dir, logs, port)?;
        let redis = Self { user, dir, logs: logs.to_owned(), port, process };
        redis.ready().await;
        Ok(redis)
    }

    fn run(user: User, dir: &std::path::Path, logs: &std::path::Path, port: u16) -> std::io::Result<Process> {
        let mut command = user.tied("/usr/bin/redis-server", "KILL");
        command.current_dir(dir).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
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

    /// `kill -9`: nothing is kept.
    pub async fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.wait(Duration::from_secs(5)).await;
    }

    /// Up again, empty, on the same port.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn up(&mut self) -> Result<(), Error> {
        self.process = Self::run(self.user, &self.dir, &self.logs, self.port)?;
        self.ready().await;
        Ok(())
    }
}
