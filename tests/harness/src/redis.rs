//! A Redis of our own: empty, on a free port, never evicting, forgetting everything when it ends.

use std::{path::Path, time::Duration};

use redis::aio::MultiplexedConnection;
use rustix::process::Signal;

use crate::{
    folder::Folder,
    ports::free_port,
    process::{Process, Program},
    user::User,
    wait::until,
};

/// A running server.
#[derive(Debug)]
pub struct Redis {
    program: Program,
    user: User,
    port: u16,
    server: Option<Process>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// When Redis is not installed or does not answer.
    pub async fn start(folder: &Folder, user: User, logs: &Path) -> Self {
        let home = folder.private("redis").expect("the stack's folder takes folders");
        let port = free_port();
        let program = Program::new("redis", "/usr/bin/redis-server", &home, logs).args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--dir",
            &home.display().to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
        ]);
        let mut redis = Self { program, user, port, server: None };
        redis.up().await;
        redis
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn up(&mut self) {
        let server = self.program.clone().spawn(self.user).expect("Redis can be started: run `make setup`");
        server.ready("answered", Duration::from_secs(10), || async { self.try_connect().await }).await;
        self.server = Some(server);
    }

    /// Kills it: connections break, and all it held is gone.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::KILL);
            server.end(Duration::from_secs(5)).await;
        }
    }

    /// [`Redis::kill`] and [`Redis::up`].
    pub async fn restart(&mut self) {
        self.kill().await;
        self.up().await;
    }

    /// Stops it from answering without closing a connection, until [`Redis::resume`].
    pub fn pause(&self) {
        self.server.as_ref().inspect(|server| server.signal(Signal::STOP));
    }

    /// Lets it answer again.
    pub fn resume(&self) {
        self.server.as_ref().inspect(|server| server.signal(Signal::CONT));
    }

    /// Empties it, scripts included, as a fail-over to an empty replica would.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn flushall(&self) {
        let mut connection = self.connection().await;
        let mut pipeline = redis::pipe();
        pipeline.cmd("FLUSHALL").ignore().cmd("SCRIPT").arg("FLUSH").ignore();
        pipeline.query_async::<()>(&mut connection).await.expect("Redis answers");
    }

    /// What services connect to.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection for a test's own questions.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        until("Redis to answer", Duration::from_secs(5), || self.try_connect()).await
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let client = redis::Client::open(self.url()).expect("the address is well formed");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("PING").query_async::<String>(&mut connection).await.ok().map(|_| connection)
    }

    /// The server's process, while it is up.
    pub fn process(&self) -> Option<&Process> {
        self.server.as_ref()
    }
}
