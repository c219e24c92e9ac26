//! A private Postgres: its own data, a free port, no waiting for disks.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use sqlx::Connection;

use crate::{
    Error, Folder, User, cluster,
    process::{self, Process},
    until,
};

/// A running server with the database `zaguan`, in which this repository's migrations are, as `zaguan-api migrate` applies them. Without `store`,
/// which does not compile while its queries are stale.
pub struct Postgres {
    user: User,
    bin: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    port: u16,
    process: Process,
}

/// What a server held.
pub struct Kept(PathBuf);

/// Debian keeps servers of several versions side by side: the newest.
fn newest() -> io::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")?
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).ok_or_else(|| io::Error::other("no Postgres server is installed: run `make setup`"))
}

/// Starts a server on a cluster.
pub(crate) fn run(user: User, bin: &Path, data: &Path, logs: &Path, port: u16) -> io::Result<Process> {
    let mut command = user.tied(bin.join("postgres"), "INT");
    command.current_dir(data).arg("-D").arg(data).args(["-p", &port.to_string(), "-k", "", "-h", "127.0.0.1"]);
    for setting in ["fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB"] {
        command.args(["-c", setting]);
    }
    Process::start("postgres", logs, command)
}

/// When it takes connections.
pub(crate) async fn ready(port: u16) {
    until("Postgres", Duration::from_secs(20), || async { connect(port, "postgres").await.ok() }).await;
}

pub(crate) async fn connect(port: u16, database: &str) -> sqlx::Result<sqlx::PgConnection> {
    sqlx::PgConnection::connect(&format!("postgres://zaguan@127.0.0.1:{port}/{database}")).await
}

impl Postgres {
    /// Makes and starts one.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(user: User, folder: &Folder, logs: &Path) -> Result<Self, Error> {
        let (bin, data, port) = (newest()?, folder.path().join("postgres"), crate::free_port());
        cluster::copy(&cluster::template(user, &bin).await?, &data)?;
        let process = run(user, &bin, &data, logs, port)?;
        ready(port).await;
        Ok(Self { user, bin, data, logs: logs.to_owned(), port, process })
    }

    /// Runs SQL and answers what it prints: for what no caller can do or see.
    ///
    /// # Panics
    /// Where Postgres refuses it.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same of a server that may be away.
    ///
    /// # Errors
    /// What Postgres says.
    pub fn try_sql(&self, sql: &str) -> Result<String, Error> {
        let mut psql = std::process::Command::new("psql");
        let output = psql.args(["-v", "ON_ERROR_STOP=1", "-qtAX", "-c", sql]).arg(self.url()).output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://zaguan@127.0.0.1:{}/zaguan", self.port)
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9` of all its processes, and up again on the same port, by way of its recovery.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn crash(&mut self) -> Result<(), Error> {
        process::kill_tree(self.process.pid());
        self.process.wait(Duration::from_secs(5)).await;
        self.process = run(self.user, &self.bin, &self.data, &self.logs, self.port)?;
        ready(self.port).await;
        Ok(())
    }

    /// Down at once and up again, on the same port.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.down().await;
        self.up().await
    }

    /// Over a restart, keeps what it holds now.
    ///
    /// # Errors
    /// The file system's, and what kept it from starting.
    pub async fn keep(&mut self) -> Result<Kept, Error> {
        self.down().await;
        let kept = self.data.with_extension("kept");
        cluster::copy(&self.data, &kept)?;
        self.up().await?;
        Ok(Kept(kept))
    }

    /// Back to what it held, over a restart: all that was committed since is lost.
    ///
    /// # Errors
    /// The file system's, and what kept it from starting.
    pub async fn go_back(&mut self, kept: &Kept) -> Result<(), Error> {
        self.down().await;
        std::fs::remove_dir_all(&self.data)?;
        cluster::copy(&kept.0, &self.data)?;
        self.up().await
    }

    async fn down(&mut self) {
        self.process.signal(Signal::INT);
        self.process.wait(Duration::from_secs(10)).await;
    }

    async fn up(&mut self) -> Result<(), Error> {
        self.process = run(self.user, &self.bin, &self.data, &self.logs, self.port)?;
        ready(self.port).await;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // In order, so that it frees its shared memory; the process's own drop kills what does not listen.
        self.process.signal(Signal::INT);
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while self.process.ended().is_none() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
