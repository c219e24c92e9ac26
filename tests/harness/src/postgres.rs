//! A Postgres of our own: fresh, on a free port, in our folder, trusting whoever reaches the loopback address.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    folder::Folder,
    ports::free_port,
    process::{Process, Program},
    user::User,
};

/// A running server with one empty database.
#[derive(Debug)]
pub struct Postgres {
    program: Program,
    user: User,
    port: u16,
    server: Option<Process>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When Postgres is not installed or does not start.
    pub async fn start(folder: &Folder, user: User, logs: &Path) -> Self {
        let bin = binaries();
        let home = folder.private("postgres").expect("the stack's folder takes folders");
        let data = home.join("data");
        let made = user
            .output(
                &bin.join("initdb").display().to_string(),
                &["-D", &data.display().to_string(), "-U", "zaguan", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
                &home,
            )
            .expect("initdb can be run");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut program = Program::new("postgres", bin.join("postgres"), &home, logs);
        // A fast shutdown also frees the shared memory that a killed server leaves behind.
        program.death_signal = "INT";
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", home.display()),
            // The data does not outlive the test; what a killed server had committed is still in the kernel's memory.
            "fsync=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "shared_buffers=32MB".to_owned(),
            "max_connections=200".to_owned(),
            "jit=off".to_owned(),
        ];
        program = program.args(["-D".to_owned(), data.display().to_string()]);
        program = program.args(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let mut postgres = Self { program, user, port, server: None };
        postgres.up().await;
        sqlx::query("CREATE DATABASE zaguan").execute(&postgres.connect("postgres").await).await.expect("a fresh cluster takes a database");
        postgres
    }

    /// Starts the server again, on the same port and data.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn up(&mut self) {
        let server = self.program.clone().spawn(self.user).expect("Postgres can be started");
        server
            .ready("answered", Duration::from_secs(20), || async {
                let url = self.url_of("postgres");
                PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(1)).connect(&url).await.ok()
            })
            .await;
        self.server = Some(server);
    }

    /// Stops it: at once with `SIGQUIT`, as a crash would, or in order with `SIGINT`.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn down(&mut self, signal: Signal) {
        if let Some(server) = self.server.take() {
            server.signal(signal);
            server.end(Duration::from_secs(20)).await;
        }
    }

    /// An immediate stop and a start with recovery: every connection is lost, nothing committed is.
    pub async fn restart(&mut self) {
        self.down(Signal::QUIT).await;
        self.up().await;
    }

    /// What services connect to.
    pub fn url(&self) -> String {
        self.url_of("zaguan")
    }

    /// A pool for a test's own questions.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn pool(&self) -> PgPool {
        self.connect("zaguan").await
    }

    /// Applies this repository's migrations, as `zaguan-api migrate` does.
    ///
    /// # Panics
    /// When one fails.
    pub async fn migrate(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let migrator = sqlx::migrate::Migrator::new(folder).await.expect("migrations can be read");
        migrator.run(&self.pool().await).await.expect("migrations apply to an empty database");
    }

    /// The server's process, while it is up.
    pub fn process(&self) -> Option<&Process> {
        self.server.as_ref()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://zaguan@127.0.0.1:{}/{database}", self.port)
    }

    async fn connect(&self, database: &str) -> PgPool {
        PgPoolOptions::new().max_connections(4).connect(&self.url_of(database)).await.expect("Postgres answers")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // In order, so that it frees its shared memory; the process's own drop kills what does not listen.
        if let Some(server) = &self.server {
            server.signal(Signal::INT);
            crate::procs::wait_gone(&[server.id()], Duration::from_secs(5));
        }
    }
}

/// Where the newest installed Postgres keeps its programs.
fn binaries() -> PathBuf {
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = installed.filter(|path| path.join("bin/initdb").exists()).max_by_key(|path| version(path));
    newest.expect("no Postgres under /usr/lib/postgresql: run `make setup`").join("bin")
}
