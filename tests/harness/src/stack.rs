//! Everything around a test, started together and gone together.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    client::ApiClient,
    faults::Faults,
    folder::Folder,
    ports::free_port,
    postgres::Postgres,
    redis::Redis,
    services::{Api, Host, HostOptions, Settings, api_command, random_password},
    simulator::{Ports, Simulator},
    user::User,
};

/// Postgres and Redis without our services, for tests of the libraries below them.
#[derive(Debug)]
pub struct Stores {
    /// Postgres, migrated.
    pub postgres: Postgres,
    /// Redis, empty.
    pub redis: Redis,
    // Last, because the servers run on it.
    ground: Ground,
}

impl Stores {
    /// Starts both and applies the migrations.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start() -> Self {
        let ground = Ground::lay(None);
        let (postgres, redis) = ground.stores().await;
        postgres.migrate().await;
        Self { postgres, redis, ground }
    }

    /// A folder for whatever else the test needs.
    pub fn folder(&self) -> &Path {
        self.ground.folder.path()
    }
}

/// What every part stands on: whose processes, in which folder, logging where.
#[derive(Debug)]
struct Ground {
    folder: Folder,
    user: User,
    logs: PathBuf,
}

impl Ground {
    fn lay(logs: Option<PathBuf>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Orphans of a killed service come to us instead of leaving the tree, so that none is overlooked at the end.
        let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
        Folder::sweep();
        let user = User::here().unwrap_or_else(|error| panic!("{error}"));
        let folder = Folder::create(user).expect("the system's place for temporary files takes a folder");
        user.check(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let logs = logs.unwrap_or_else(|| folder.path().join("logs"));
        std::fs::create_dir_all(&logs).expect("the folder for logs can be made");
        Self { folder, user, logs }
    }

    async fn stores(&self) -> (Postgres, Redis) {
        tokio::join!(Postgres::start(&self.folder, self.user, &self.logs), Redis::start(&self.folder, self.user, &self.logs))
    }
}

impl Drop for Ground {
    /// A failed test shows what the services said; the folder with their logs is about to go.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(&self.logs).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}\n{}", entry.file_name().display(), lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// How a stack differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Overrides of the protocol's durations, for every service.
    pub timings: Value,
    /// More variables for the API; they win.
    pub api_env: Vec<(String, String)>,
    /// Where logs go; into the stack's folder, and away with it, where nothing is said.
    pub logs: Option<PathBuf>,
    /// Ports of the API and its metrics.
    pub api_ports: [u16; 2],
    /// Ports of the simulator.
    pub simulator_ports: Ports,
    /// Whether a test answers at the fault points.
    pub faults: bool,
    /// The first tenant's name and its ADMIN's address.
    pub tenant: (String, String),
}

impl Default for Options {
    /// Free ports; a lease of 2 s and what belongs to it in proportion, as the tests use.
    fn default() -> Self {
        let timings = json!({
            "leaseTtlMs": 2_000, "renewEveryMs": 600, "fenceMarginMs": 600, "killMarginMs": 200, "heartbeatEveryMs": 400, "hostStaleMs": 1_200,
            "reconcileEveryMs": 2_000, "ackWithinMs": 6_000, "ackWithinTotalMs": 24_000, "evidenceWithinMs": 6_000,
            "drainWithinMs": 24_000, "drainJobsWithinMs": 6_000, "restartAfterMs": 200,
        });
        Self {
            timings,
            api_env: Vec::new(),
            logs: None,
            api_ports: [free_port(), free_port()],
            simulator_ports: Ports::default(),
            faults: true,
            tenant: ("acme".to_owned(), "admin@acme.example".to_owned()),
        }
    }
}

/// A company on the API, with its founding ADMIN logged in.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// `ten_…`.
    pub id: String,
    /// The ADMIN, `usr_…`.
    pub user: String,
    /// The ADMIN's address.
    pub email: String,
    /// The ADMIN's password.
    pub password: String,
    /// The API as the ADMIN.
    pub client: ApiClient,
}

/// Postgres, Redis, the simulator, the API and a tenant; hosts as the test wants them.
#[derive(Debug)]
pub struct Stack {
    /// The API.
    pub api: Api,
    /// WhatsApp's side.
    pub sim: Simulator,
    /// The test's end of the fault points.
    pub faults: Option<Faults>,
    /// The first tenant.
    pub tenant: Tenant,
    postgres: Postgres,
    redis: Redis,
    settings: Settings,
    hosts: std::sync::atomic::AtomicUsize,
    // Last, because all the others run on it.
    ground: Ground,
}

impl Stack {
    /// The usual one.
    ///
    /// # Panics
    /// When a part does not start; the message says which and why.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// One that differs.
    ///
    /// # Panics
    /// As [`Stack::start`].
    pub async fn start_with(options: Options) -> Self {
        let ground = Ground::lay(options.logs.clone());
        let (folder, user, logs) = (&ground.folder, ground.user, &ground.logs);
        let ((postgres, redis), sim) = tokio::join!(ground.stores(), Simulator::start(folder, user, logs, options.simulator_ports));
        let faults = options.faults.then(|| Faults::listen(folder.path()).expect("the folder takes a socket"));
        let settings = Settings {
            database_url: postgres.url(),
            redis_url: redis.url(),
            timings: options.timings,
            faults: faults.as_ref().map(|faults| faults.socket().to_owned()),
        };
        api_command(folder, user, logs, &settings, &["migrate"]);
        let api = Api::start(folder, user, logs, &settings, options.api_ports, &options.api_env).await;
        let (name, email) = options.tenant;
        let tenant = create_tenant(&ground, &settings, &api, &name, &email).await;
        Self { api, sim, faults, tenant, postgres, redis, settings, hosts: 0.into(), ground }
    }

    /// The API as the first tenant's ADMIN.
    pub fn client(&self) -> &ApiClient {
        &self.tenant.client
    }

    /// The fault points.
    ///
    /// # Panics
    /// When the stack was started without.
    pub fn faults(&self) -> &Faults {
        self.faults.as_ref().expect("the stack was started with fault points")
    }

    /// Postgres.
    pub fn postgres(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// Redis.
    pub fn redis(&mut self) -> &mut Redis {
        &mut self.redis
    }

    /// A pool for a test's own questions.
    pub async fn db(&self) -> PgPool {
        self.postgres.pool().await
    }

    /// What services are given.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Another tenant.
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn tenant(&self, name: &str) -> Tenant {
        create_tenant(&self.ground, &self.settings, &self.api, name, &format!("admin@{name}.example")).await
    }

    /// Stops the API in order and starts it again.
    pub async fn api_restart(&mut self) {
        self.api.sigterm().await;
        self.api.up().await;
    }

    /// Starts another session host.
    pub async fn host(&self) -> Host {
        self.host_with(|_| ()).await
    }

    /// Starts another session host that differs from the usual one.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn host_with(&self, change: impl FnOnce(&mut HostOptions)) -> Host {
        let number = self.hosts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let mut options = HostOptions {
            name: format!("host-{number}"),
            slots: 5,
            data_dir: None,
            chromium_args: self.sim.chromium_args(false),
            env: Vec::new(),
            metrics_port: free_port(),
        };
        change(&mut options);
        Host::start(&self.ground.folder, self.ground.user, &self.ground.logs, &self.settings, options).await
    }

    /// The stack's folder.
    pub fn folder(&self) -> &Path {
        self.ground.folder.path()
    }

    /// All servers of the stack that are up, hosts aside.
    pub fn processes(&self) -> Vec<&crate::process::Process> {
        let up = [self.postgres.process(), self.redis.process(), Some(self.sim.process()), self.api.process()];
        up.into_iter().flatten().collect()
    }
}

async fn create_tenant(ground: &Ground, settings: &Settings, api: &Api, name: &str, email: &str) -> Tenant {
    let password = random_password();
    let file = ground.folder.path().join(format!("password-{name}"));
    std::fs::write(&file, &password).expect("the stack's folder takes files");
    ground.user.own(&file).expect("a file can be given away");
    let path = file.display().to_string();
    let args = ["tenant", "create", "--name", name, "--email", email, "--password-file", &path];
    let made = api_command(&ground.folder, ground.user, &ground.logs, settings, &args);
    let _ = std::fs::remove_file(&file);
    let made: Value = serde_json::from_str(&made).unwrap_or_else(|error| panic!("tenant create printed {made:?} ({error})"));
    let id = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("tenant create printed {made}")).to_owned();
    let client = ApiClient::login(api.http(), email, &password).await;
    Tenant { id: id("tenant"), user: id("user"), email: email.to_owned(), password, client }
}
