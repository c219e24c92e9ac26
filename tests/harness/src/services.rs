//! Our own binaries as processes: the API, session hosts, and the API's commands.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    folder::Folder,
    http::Http,
    process::{Process, Program},
    procs::{self, ProcessId},
    user::User,
    wait::until_true,
};

/// A binary of this workspace, beside the one that runs now.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    // Tests run from target/debug/deps, binaries from target/debug.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is not built: run `make test`, or `cargo build --workspace --bins --features contract/fault-points`")
    })
}

/// The environment that all our services share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Postgres.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// Overrides of the protocol's durations.
    pub timings: Value,
    /// The socket of the fault points.
    pub faults: Option<PathBuf>,
}

impl Settings {
    fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("REDIS_URL", self.redis_url.clone()),
            ("ZAGUAN_ENV", "development".to_owned()),
            ("TIMINGS", self.timings.to_string()),
        ];
        env.extend(self.faults.as_ref().map(|socket| ("ZAGUAN_FAULTS", socket.display().to_string())));
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The HTTP service.
#[derive(Debug)]
pub struct Api {
    program: Program,
    user: User,
    http: Http,
    metrics: String,
    process: Option<Process>,
}

impl Api {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(folder: &Folder, user: User, logs: &Path, settings: &Settings, ports: [u16; 2], env: &[(String, String)]) -> Self {
        let home = folder.private("api").expect("the stack's folder takes folders");
        let path = folder.adopt(&binary("zaguan-api")).expect("the binary can be copied");
        let [port, metrics] = ports;
        let url = format!("http://127.0.0.1:{port}");
        let program = Program::new("api", path, &home, logs)
            .env(settings.env())
            .env([
                ("API_ADDR", format!("127.0.0.1:{port}")),
                ("METRICS_ADDR", format!("127.0.0.1:{metrics}")),
                ("PUBLIC_URL", url.clone()),
                ("JWT_KEYS", random_key()),
            ])
            .env(env.iter().cloned());
        let metrics = format!("http://127.0.0.1:{metrics}/metrics");
        let mut api = Self { program, user, http: Http::new(url), metrics, process: None };
        api.up().await;
        api
    }

    /// Starts it again, on the same address with the same keys.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn up(&mut self) {
        let process = self.program.clone().spawn(self.user).expect("the API can be started");
        let ready = async || self.http.try_send(reqwest::Method::GET, "/readyz", None, &[]).await.ok().filter(|a| a.status.is_success());
        process.ready("ready", Duration::from_secs(30), ready).await;
        self.process = Some(process);
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn sigterm(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::TERM);
            process.end(Duration::from_secs(40)).await;
        }
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL);
            process.end(Duration::from_secs(5)).await;
        }
    }

    /// Requests without identity.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> &str {
        &self.metrics
    }

    /// Its process, while it is up.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }
}

/// Runs a command of `zaguan-api` to its end and answers what it printed.
///
/// # Panics
/// When it fails.
pub fn api_command(folder: &Folder, user: User, logs: &Path, settings: &Settings, args: &[&str]) -> String {
    let path = folder.adopt(&binary("zaguan-api")).expect("the binary can be copied");
    let program = Program::new("api-commands", path, folder.path(), logs).env(settings.env()).args(args);
    let (process, mut out) = program.spawn_piped(user).expect("the API's binary can be run");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut out, &mut text).expect("its standard output can be read");
    let gone = procs::wait_gone(&[process.id()], Duration::from_secs(10));
    let ok = gone.is_empty() && process.ended().is_some_and(|status| status.success());
    assert!(ok, "zaguan-api {} failed; {}", args.join(" "), process.tail(40));
    text
}

/// How a session host is to be started.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Names it in logs and pid files.
    pub name: String,
    /// How many sessions it takes.
    pub slots: usize,
    /// Its data directory; one of its own where none is given.
    pub data_dir: Option<PathBuf>,
    /// Switches for the browser.
    pub chromium_args: Vec<String>,
    /// More variables; they win.
    pub env: Vec<(String, String)>,
    /// Where its metrics are served.
    pub metrics_port: u16,
}

/// A session host: the guard, the host proper below it, and their browsers.
#[derive(Debug)]
pub struct Host {
    program: Program,
    user: User,
    data_dir: PathBuf,
    metrics: String,
    process: Option<Process>,
}

impl Host {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(folder: &Folder, user: User, logs: &Path, settings: &Settings, options: HostOptions) -> Self {
        let home = folder.private(&options.name).expect("the stack's folder takes folders");
        let data_dir = options.data_dir.unwrap_or_else(|| home.join("data"));
        let path = folder.adopt(&binary("zaguan-host")).expect("the binary can be copied");
        let args = serde_json::to_string(&options.chromium_args).expect("strings are JSON");
        let mut program = Program::new(&options.name, path, &home, logs).env(settings.env());
        program = program.env([
            ("HOST_SLOTS", options.slots.to_string()),
            ("HOST_DATA_DIR", data_dir.display().to_string()),
            ("CHROMIUM_BIN", "/usr/lib/chromium/chromium-headless-shell".to_owned()),
            ("CHROMEDRIVER_BIN", "/usr/bin/chromedriver".to_owned()),
            ("CHROMIUM_ARGS", args),
            ("METRICS_ADDR", format!("127.0.0.1:{}", options.metrics_port)),
        ]);
        program = program.env(options.env);
        let metrics = format!("http://127.0.0.1:{}", options.metrics_port);
        let mut host = Self { program, user, data_dir, metrics, process: None };
        host.up().await;
        host
    }

    /// Starts it again on the same data directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn up(&mut self) {
        let process = self.program.clone().spawn(self.user).expect("the host can be started");
        let metrics = Http::new(&self.metrics);
        let ready = async || metrics.try_send(reqwest::Method::GET, "/metrics", None, &[]).await.ok().filter(|a| a.status.is_success());
        process.ready("served metrics", Duration::from_secs(30), ready).await;
        self.process = Some(process);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Where its profiles are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> String {
        format!("{}/metrics", self.metrics)
    }

    /// The guard, which is the process that was started.
    ///
    /// # Panics
    /// When it is down.
    pub fn guard(&self) -> ProcessId {
        self.running().id()
    }

    /// The host proper, while it lives.
    pub fn proper(&self) -> Option<ProcessId> {
        let guard = self.process.as_ref()?.pid();
        let host = |entry: &procs::Entry| entry.parent == guard && !entry.zombie && entry.command_line().contains("--host-proper");
        procs::all().into_iter().find(host).map(|entry| entry.id)
    }

    /// The pid of the host proper.
    ///
    /// # Panics
    /// When it is down.
    pub fn pid(&self) -> i32 {
        self.proper().expect("the host proper runs").pid
    }

    /// `kill -9` of the host proper; its guard lives on and cleans up.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill9(&self) {
        self.proper().expect("the host proper runs").signal(Signal::KILL);
    }

    /// `kill -9` of the guard alone.
    pub fn kill9_guard(&self) {
        self.running().signal(Signal::KILL);
    }

    /// Sends the host proper a signal (`STOP`, `CONT`).
    ///
    /// # Panics
    /// When there is none.
    pub fn signal(&self, signal: Signal) {
        self.proper().expect("the host proper runs").signal(signal);
    }

    /// Asks it to drain, and waits for its end.
    ///
    /// # Panics
    /// When it takes longer than a drain may.
    pub async fn sigterm(&mut self) -> ExitStatus {
        let process = self.process.take().expect("the host is up");
        process.signal(Signal::TERM);
        process.end(Duration::from_secs(130)).await
    }

    /// Waits for its end after it was killed.
    ///
    /// # Panics
    /// After `within`.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        self.process.take().expect("the host is up").end(within).await
    }

    /// The browsers themselves, without their helpers.
    pub fn browsers(&self) -> Vec<ProcessId> {
        let data = format!("--user-data-dir={}", self.data_dir.display());
        let browser = |entry: &procs::Entry| {
            let line = entry.command_line();
            !entry.zombie && line.contains(&data) && !line.contains("--type=") && !line.starts_with("setpriv")
        };
        procs::all().iter().filter(|entry| browser(entry)).map(|entry| entry.id).collect()
    }

    /// Browsers with all their helpers, wherever they hang now.
    pub fn browser_processes(&self) -> Vec<ProcessId> {
        let mut all = procs::that_name(&self.data_dir);
        all.extend(procs::descendants(&self.browsers().iter().map(|id| id.pid).collect::<Vec<_>>()));
        all.sort_by_key(|id| id.pid);
        all.dedup();
        all
    }

    /// Waits until none of `who` lives (take them from [`Host::browser_processes`] before the blow).
    ///
    /// # Panics
    /// After `within`.
    pub async fn gone(who: &[ProcessId], within: Duration) {
        until_true("browsers to be gone", within, || async { who.iter().all(|id| !id.lives()) }).await;
    }

    /// Its process, while it is up.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the host is up")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let browsers = self.browser_processes();
        drop(self.process.take());
        procs::kill(&browsers, Duration::from_secs(5));
    }
}

/// 32 random bytes as base64.
pub fn random_key() -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(random::<32>())
}

/// Random letters and digits, about 120 bits.
pub fn random_password() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random::<24>().iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

fn random<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
