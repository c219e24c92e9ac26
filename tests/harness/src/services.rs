//! Our own services as processes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    Error, User,
    process::{self, Process},
    until,
};

/// The only other origin whose pages may call.
pub const PAGE_ORIGIN: &str = "https://app.example.test";

/// What every service is told.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Who they run as.
    pub user: User,
    /// Their programs.
    pub bin: PathBuf,
    /// Their logs.
    pub logs: PathBuf,
    /// Postgres.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// `MASTER_KEY` of all services.
    pub master_key: String,
    /// `MASTER_KEY_PREVIOUS`, if there is one.
    pub master_key_previous: Option<String>,
    /// Where the object store is.
    pub objects: PathBuf,
    /// `TIMINGS`.
    pub timings: String,
    /// Where fault points ask.
    pub faults: Option<PathBuf>,
    /// What else.
    pub variables: BTreeMap<String, String>,
}

impl Shared {
    fn command(&self, program: &str, signal: &str) -> std::process::Command {
        let mut command = self.user.tied(self.bin.join(program), signal);
        command.current_dir(&self.bin).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.bin).env("LANG", "C.UTF-8");
        command.env("DATABASE_URL", &self.database_url).env("REDIS_URL", &self.redis_url).env("TIMINGS", &self.timings);
        command.env("MASTER_KEY", &self.master_key).env("OBJECTS_URL", format!("file://{}", self.objects.display()));
        if let Some(previous) = &self.master_key_previous {
            command.env("MASTER_KEY_PREVIOUS", previous);
        }
        command.env("ZAGUAN_ENV", "development").env("RUST_LOG", "info");
        if let Some(faults) = &self.faults {
            command.env("ZAGUAN_FAULTS", faults);
        }
        command.envs(&self.variables);
        command
    }
}

/// The programs in the folder that `ZAGUAN_BIN_DIR` names, else beside the one that runs: cargo puts them there.
///
/// # Errors
/// Where the running program has no place.
pub fn built_programs() -> io::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("ZAGUAN_BIN_DIR") {
        return Ok(folder.into());
    }
    let me = std::env::current_exe()?;
    let folder = me.parent().ok_or_else(|| io::Error::other("this program lies nowhere"))?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The HTTP service.
pub struct Api {
    name: &'static str,
    shared: Shared,
    keys: String,
    /// The port in the installation's public address, which tokens carry.
    public: u16,
    port: u16,
    metrics: u16,
    /// Its process.
    pub process: Process,
}

impl Api {
    /// Applies the migrations.
    ///
    /// # Errors
    /// What the command said.
    pub fn migrate(shared: &Shared) -> Result<(), Error> {
        run(shared.command("zaguan-api", "KILL").arg("migrate"), None).map(drop)
    }

    /// Applies the migrations and gives a role what the API and the hosts need.
    ///
    /// # Errors
    /// What the command said.
    pub fn migrate_for(shared: &Shared, role: &str) -> Result<(), Error> {
        run(shared.command("zaguan-api", "KILL").arg("migrate").env("APP_ROLE", role), None).map(drop)
    }

    /// Makes a tenant with its first ADMIN; answers `{tenant, user, session}`.
    ///
    /// # Errors
    /// What the command said.
    pub fn make_tenant(shared: &Shared, name: &str, email: &str, password: &str) -> Result<Value, Error> {
        let mut command = shared.command("zaguan-api", "KILL");
        command.args(["tenant", "create", "--name", name, "--email", email, "--password-file", "-"]);
        Ok(serde_json::from_str(&run(&mut command, Some(password))?)?)
    }

    /// Deletes a tenant; answers `{tenant, state, sessionsLeft}`.
    ///
    /// # Errors
    /// What the command said.
    pub fn delete_tenant(&self, tenant: &str, name: &str) -> Result<Value, Error> {
        let mut command = self.shared.command("zaguan-api", "KILL");
        command.args(["tenant", "delete", "--tenant", tenant, "--name", name]);
        Ok(serde_json::from_str(&run(&mut command, None)?)?)
    }

    /// Makes a link with which somebody sets a new password; answers `{url, expiresAt}`.
    ///
    /// # Errors
    /// What the command said.
    pub fn reset_password(&self, email: &str) -> Result<Value, Error> {
        let mut command = self.shared.command("zaguan-api", "KILL");
        command.args(["user", "password-reset", "--email", email, "--public-url", &self.url()]);
        Ok(serde_json::from_str(&run(&mut command, None)?)?)
    }

    /// Starts it on a free port.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(shared: &Shared) -> Result<Self, Error> {
        let keys = crate::random_key();
        let (port, metrics) = (crate::free_port(), crate::free_port());
        let process = Self::run("api", shared, &keys, (port, port), metrics)?;
        let api = Self { name: "api", shared: shared.clone(), keys, public: port, port, metrics, process };
        api.ready().await;
        Ok(api)
    }

    /// Another one beside it, of the same installation.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn another(&self, shared: &Shared) -> Result<Self, Error> {
        let (name, port, metrics) = ("api-2", crate::free_port(), crate::free_port());
        let process = Self::run(name, shared, &self.keys, (self.public, port), metrics)?;
        let api = Self { name, shared: shared.clone(), keys: self.keys.clone(), public: self.public, port, metrics, process };
        api.ready().await;
        Ok(api)
    }

    fn run(name: &str, shared: &Shared, keys: &str, (public, port): (u16, u16), metrics: u16) -> io::Result<Process> {
        let mut command = shared.command("zaguan-api", "KILL");
        command.env("API_ADDR", format!("127.0.0.1:{port}")).env("METRICS_ADDR", format!("127.0.0.1:{metrics}"));
        // Whoever calls from this address is a proxy of ours.
        command.env("TRUSTED_PROXIES", "127.0.0.99").env("CORS_ORIGINS", PAGE_ORIGIN).env("WEBHOOK_ALLOW", "127.0.0.1");
        command.env("JWT_KEYS", keys).env("PUBLIC_URL", format!("http://127.0.0.1:{public}"));
        Process::start(name, &shared.logs, command)
    }

    /// What starts another one that is the same to callers. It would listen on the same port.
    pub fn command(&self, shared: &Shared) -> std::process::Command {
        let mut command = shared.command("zaguan-api", "KILL");
        command
            .env("JWT_KEYS", &self.keys)
            .env("PUBLIC_URL", self.url())
            .env("CORS_ORIGINS", PAGE_ORIGIN)
            .env("WEBHOOK_ALLOW", "127.0.0.1");
        command
    }

    async fn ready(&self) {
        let (http, url) = (reqwest::Client::new(), format!("{}/readyz", self.url()));
        until("the API", Duration::from_secs(20), || async { http.get(&url).send().await.ok().filter(|a| a.status().is_success()) }).await;
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its `JWT_KEYS`.
    pub fn keys(&self) -> &str {
        &self.keys
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics)
    }

    /// `kill -9`, then up again on the same port with the same keys.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.process.signal(Signal::KILL);
        self.process.wait(Duration::from_secs(5)).await;
        self.revive()?;
        self.ready().await;
        Ok(())
    }

    /// Starts one that has ended, as whoever looks after services does: without waiting until it can do something.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn revive(&mut self) -> io::Result<()> {
        self.process = Self::run(self.name, &self.shared, &self.keys, (self.public, self.port), self.metrics)?;
        Ok(())
    }
}

fn run(command: &mut std::process::Command, input: Option<&str>) -> Result<String, Error> {
    use std::{io::Write, process::Stdio};
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}

/// A session host: its guard, and the host proper below it.
pub struct Host {
    /// The guard's process.
    pub process: Process,
    /// Where its profiles are: what its browsers' command lines have in them.
    pub data: PathBuf,
}

impl Host {
    /// Starts one. Hosts of one stack share a data directory, as hosts of one machine may.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(shared: &Shared, name: &str, data: &Path, browser_args: &str, slots: usize) -> Result<Self, Error> {
        let mut host = Self::launch(shared, name, data, browser_args, slots)?;
        let process = &mut host.process;
        until("a session host", Duration::from_secs(20), || {
            let started = process.log().contains("host started") || process.ended().is_some();
            async move { started.then_some(()) }
        })
        .await;
        if process.ended().is_some() {
            return Err(format!("{name} ended: {}", process.log()).into());
        }
        Ok(host)
    }

    /// The same without waiting until it can do something.
    ///
    /// # Errors
    /// The system's.
    pub fn launch(shared: &Shared, name: &str, data: &Path, browser_args: &str, slots: usize) -> io::Result<Self> {
        // Killed and not told to drain: when we die without a word its stores are gone too. The host ends with its guard, the browsers with it.
        let mut command = shared.command("zaguan-host", "KILL");
        // Its name in Postgres, where a test may look who wrote.
        command.env("DATABASE_URL", format!("{}?application_name={name}", shared.database_url));
        command.env("HOST_SLOTS", slots.to_string()).env("HOST_DATA_DIR", data).env("CHROMIUM_ARGS", browser_args);
        command.env("METRICS_ADDR", format!("127.0.0.1:{}", crate::free_port()));
        Ok(Self { process: Process::start(name, &shared.logs, command)?, data: data.to_owned() })
    }

    /// The host proper.
    pub fn proper(&self) -> u32 {
        self.find_proper().expect("the guard has a host proper")
    }

    /// The guard's child that is the same program, if it has one.
    pub fn find_proper(&self) -> Option<u32> {
        let same = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("zaguan-host"));
        process::children(self.process.pid()).into_iter().find(same)
    }

    /// `kill -9` of the host proper alone.
    pub fn kill_proper(&self) {
        process::send(self.proper(), Signal::KILL);
    }

    /// Processes of browsers that use its profiles.
    pub fn browsers(&self) -> Vec<u32> {
        process::with_argument(&format!("--user-data-dir={}", self.data.display()))
    }

    /// SIGTERM, and its orderly end.
    pub async fn leave(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        self.process.signal(Signal::TERM);
        self.process.wait(within).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // At once and with its browsers: an orderly end is `leave`.
        if self.process.ended().is_none() {
            process::kill_tree(self.process.pid());
        }
    }
}

/// A worker.
pub struct Worker {
    shared: Shared,
    told: [String; 2],
    metrics: u16,
    /// Its process.
    pub process: Process,
}

impl Worker {
    /// Starts one. `schedule`: its `SCHEDULE`; `webhooks`: its `WEBHOOK_TIMINGS`.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(shared: &Shared, name: &str, schedule: &str, webhooks: &str) -> Result<Self, Error> {
        let (metrics, told) = (crate::free_port(), [schedule.to_owned(), webhooks.to_owned()]);
        let process = Self::run(name, shared, &told, metrics)?;
        let mut worker = Self { shared: shared.clone(), told, metrics, process };
        let (http, url) = (reqwest::Client::new(), worker.url("/readyz"));
        until("a worker", Duration::from_secs(20), || {
            let (ended, ask) = (worker.process.ended().is_some(), http.get(&url).send());
            async move { (ended || ask.await.is_ok_and(|a| a.status().is_success())).then_some(()) }
        })
        .await;
        match worker.process.ended() {
            Some(_) => Err(format!("{name} ended: {}", worker.process.log()).into()),
            None => Ok(worker),
        }
    }

    fn run(name: &str, shared: &Shared, [schedule, webhooks]: &[String; 2], metrics: u16) -> io::Result<Process> {
        let mut command = shared.command("zaguan-worker", "KILL");
        command.env("METRICS_ADDR", format!("127.0.0.1:{metrics}")).env("SCHEDULE", schedule);
        command.env("WEBHOOK_ALLOW", "127.0.0.1").env("WEBHOOK_TIMINGS", webhooks);
        Process::start(name, &shared.logs, command)
    }

    /// Starts one that has ended, without waiting until it can do something.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn revive(&mut self) -> io::Result<()> {
        self.process = Self::run(self.process.name(), &self.shared, &self.told, self.metrics)?;
        Ok(())
    }

    /// Where it answers probes.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.metrics)
    }
}
