//! A whole installation of its own: servers, simulator, API, and hosts as a test wants them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::Value;
use sqlx::PgPool;

use crate::{
    Error, Folder, Proxy, User,
    client::ApiClient,
    faults::Faults,
    lambda::{Emulated, Function},
    postgres::Postgres,
    redis::Redis,
    services::{Api, Host, Shared, Worker, built_programs},
    simulator::Simulator,
    until,
};

/// The protocol's durations in proportion to a lease of 2 s.
const QUICK: &str = r#"{"leaseTtlMs":2000,"renewEveryMs":600,"fenceMarginMs":600,"killMarginMs":200,"heartbeatEveryMs":400,"hostStaleMs":1200,
"reconcileEveryMs":1500,"ackWithinMs":4000,"ackWithinTotalMs":20000,"evidenceWithinMs":2000,"pageBeatMs":5000,"pageReadyWithinMs":20000,
"drainWithinMs":20000,"drainJobsWithinMs":5000,"snapshotWithinMs":10000,"snapshotAfterLinkMs":3600000,"restartAfterMs":200,"streamKeepAliveMs":1000,"downJobsFailAfterMs":4000,
"capacityAfterMs":2000,"logoutWithinMs":5000}"#;

/// How a stack differs from the usual one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `TIMINGS` of the services.
    pub timings: String,
    /// Whether fault points are served.
    pub faults: bool,
    /// Whether the services reach Postgres and Redis through a [`Proxy`] each.
    pub proxies: bool,
    /// Whether Redis has again after a crash what it held.
    pub durable_redis: bool,
    /// Where logs go; in the stack's own folder where it is not given.
    pub logs: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timings: QUICK.to_owned(), faults: true, proxies: false, durable_redis: false, logs: None }
    }
}

impl Settings {
    /// The usual ones, with some durations of their own: an object as `TIMINGS` takes it.
    pub fn timed(overrides: &Value) -> Self {
        let mut timings: Value = serde_json::from_str(QUICK).expect("it is JSON");
        for (name, value) in overrides.as_object().into_iter().flatten() {
            timings[name] = value.clone();
        }
        Self { timings: timings.to_string(), ..Self::default() }
    }
}

/// A company, and its first ADMIN, logged in.
pub struct Tenant {
    /// The caller.
    pub client: ApiClient,
    /// Its id.
    pub id: String,
    /// Its default session.
    pub session: String,
    /// The password of its ADMIN.
    pub password: String,
}

impl Tenant {
    /// Starts the default session and links it to a phone by its QR code.
    pub async fn link(&self, simulator: &Simulator, phone: &str) {
        simulator.account(phone).await;
        self.client.post("/api/whatsapp/init", serde_json::json!({})).await.ok();
        until("a scanned code", Duration::from_secs(60), || async {
            let qr = self.client.get("/api/whatsapp/qr?wait=20").await;
            match qr.body["qr"].as_str() {
                Some(code) => simulator.scan(phone, code).await.then_some(()),
                None => None,
            }
        })
        .await;
        self.client.until_state("working", Duration::from_secs(30)).await;
    }
}

/// What stands between the services and their servers.
pub struct Proxies {
    /// Before Postgres.
    pub postgres: Proxy,
    /// Before Redis.
    pub redis: Proxy,
}

/// Everything. Fields end in this order: services before the servers they use.
pub struct Stack {
    hosts: usize,
    workers: usize,
    /// The HTTP service.
    pub api: Api,
    /// The simulator.
    pub sim: Simulator,
    /// Fault points.
    pub faults: Option<Faults>,
    /// Where [`Settings::proxies`] asked for them.
    pub proxies: Option<Proxies>,
    /// Redis.
    pub redis: Redis,
    /// Postgres.
    pub postgres: Postgres,
    shared: Shared,
    data: PathBuf,
    folder: Folder,
}

impl Drop for Stack {
    /// A failed test shows what the services said; their logs are about to go.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(&self.shared.logs).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}\n{}", entry.file_name().display(), lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

impl Stack {
    /// The usual one.
    pub async fn start() -> Self {
        Self::with(Settings::default()).await.expect("the stack starts")
    }

    /// One with settings.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn with(settings: Settings) -> Result<Self, Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let user = User::find()?;
        let folder = Folder::new(user)?;
        let logs = match settings.logs {
            Some(logs) => logs,
            None => folder.sub("logs")?,
        };
        let bin = folder.path().to_owned();
        for program in ["zaguan-api", "zaguan-host", "zaguan-worker", "zaguan-simulator"] {
            folder.copy(&built_programs()?.join(program))?;
        }
        let simulator = bin.join("zaguan-simulator");
        let (postgres, redis, sim) = tokio::join!(
            Postgres::start(user, &folder, &logs),
            Redis::keeping(user, &folder, &logs, settings.durable_redis),
            Simulator::start(user, &simulator, &logs)
        );
        let (postgres, redis, sim) = (postgres?, redis?, sim?);
        let faults = settings.faults.then(|| Faults::start(user, folder.path())).transpose()?;
        let (mut database_url, mut redis_url, mut proxies) = (postgres.url(), redis.url(), None);
        if settings.proxies {
            let through = Proxies { postgres: Proxy::before(&database_url)?, redis: Proxy::before(&redis_url)? };
            (database_url, redis_url) = (through.postgres.url(&database_url), through.redis.url(&redis_url));
            proxies = Some(through);
        }
        let shared = Shared {
            user,
            bin,
            logs,
            database_url,
            redis_url,
            master_key: crate::random_key(),
            master_key_previous: None,
            objects: folder.sub("objects")?,
            timings: settings.timings,
            faults: faults.as_ref().map(|f| f.path().to_owned()),
            variables: BTreeMap::new(),
        };
        Api::migrate(&shared)?;
        let api = Api::start(&shared).await?;
        let data = folder.sub("data")?;
        Ok(Self { hosts: 0, workers: 0, api, sim, faults, proxies, redis, postgres, shared, data, folder })
    }

    /// Another API beside the first.
    pub async fn another_api(&self) -> Api {
        self.api.another(&self.shared).await.expect("an API starts")
    }

    /// Another session host.
    pub async fn host(&mut self) -> Host {
        self.try_host(4).await.expect("a session host starts")
    }

    /// Another session host with so many slots.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn try_host(&mut self, slots: usize) -> Result<Host, Error> {
        self.hosts += 1;
        Host::start(&self.shared, &format!("host-{}", self.hosts), &self.data, &self.sim.browser_args(), slots).await
    }

    /// Another session host on a machine of its own: its disk has this name, and no other host uses it.
    pub async fn host_elsewhere(&mut self, disk: &str) -> Host {
        self.hosts += 1;
        let data = self.folder.sub(disk).expect("a folder can be made");
        let host = Host::start(&self.shared, &format!("host-{}", self.hosts), &data, &self.sim.browser_args(), 4).await;
        host.expect("a session host starts")
    }

    /// From now on services are started with these variables besides the usual ones, and with none that was given here before.
    pub fn tell(&mut self, variables: impl IntoIterator<Item = (&'static str, String)>) {
        self.shared.variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    }

    /// From now on services are started with another `MASTER_KEY`; the one of before is their `MASTER_KEY_PREVIOUS` if it still `opens`.
    pub fn change_master_key(&mut self, opens: bool) {
        let before = std::mem::replace(&mut self.shared.master_key, crate::random_key());
        self.shared.master_key_previous = opens.then_some(before);
    }

    /// Another session host, which is not waited for.
    ///
    /// # Errors
    /// The system's.
    pub fn launch_host(&mut self, slots: usize) -> std::io::Result<Host> {
        self.hosts += 1;
        Host::launch(&self.shared, &format!("host-{}", self.hosts), &self.data, &self.sim.browser_args(), slots)
    }

    /// The API as a Lambda function, beside the one that listens.
    pub async fn function(&self) -> Function {
        self.function_with("buffered", self.postgres.url(), self.redis.url()).await
    }

    /// The same with its way to answer (`buffered` or `streaming`) and its own ways to the stores.
    pub async fn function_with(&self, response: &str, database_url: String, redis_url: String) -> Function {
        let shared = self.told(database_url, redis_url);
        Function::start(&shared, &self.api, "function", response).await.expect("a function starts")
    }

    /// The API as a function of cargo-lambda's emulator.
    pub async fn emulated(&self) -> Emulated {
        Emulated::start(&self.shared, &self.api).await.expect("the emulator starts")
    }

    /// Another worker with the usual schedule.
    pub async fn worker(&mut self) -> Worker {
        self.try_worker("{}").await.expect("a worker starts")
    }

    /// Another worker with a `SCHEDULE`.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn try_worker(&mut self, schedule: &str) -> Result<Worker, Error> {
        self.workers += 1;
        Worker::start(&self.shared, &format!("worker-{}", self.workers), schedule, "{}").await
    }

    /// Another worker with `WEBHOOK_TIMINGS`.
    pub async fn teller(&mut self, timings: &str) -> Worker {
        self.workers += 1;
        Worker::start(&self.shared, &format!("worker-{}", self.workers), "{}", timings).await.expect("a worker starts")
    }

    /// What its services are told, with other ways to the stores.
    pub fn told(&self, database_url: String, redis_url: String) -> Shared {
        Shared { database_url, redis_url, ..self.shared.clone() }
    }

    /// A new company with an ADMIN of this name, logged in.
    pub async fn tenant(&self, name: &str) -> Tenant {
        let (email, password) = (format!("admin@{name}.example"), crate::random_word(12));
        let made = self.make_tenant(name, &email, &password).expect("a tenant is made");
        let text = |field: &str| made[field].as_str().unwrap_or_default().to_owned();
        Tenant {
            client: ApiClient::login(&self.api.url(), &email, &password).await,
            id: text("tenant"),
            session: text("session"),
            password,
        }
    }

    /// An EMPLEADO of a company, logged in, with nothing granted.
    pub async fn employee(&self, tenant: &Tenant, email: &str) -> ApiClient {
        let admin = "(select u.tenant, u.password_hash from app_user u join session s on s.tenant = u.tenant and s.is_default \
                      where u.rol = 'ADMIN' and u.email = 'admin@' || split_part('EMAIL', '@', 2)) a";
        let admin = admin.replace("EMAIL", email);
        self.postgres.sql(&format!(
            "insert into app_user (id, tenant, email, name, rol, password_hash)
             select gen_random_uuid(), a.tenant, '{email}', '{email}', 'EMPLEADO', a.password_hash from {admin}"
        ));
        ApiClient::login(&self.api.url(), email, &tenant.password).await
    }

    /// Grants an EMPLEADO the chat that has this address.
    pub fn grant(&self, email: &str, alias: &str, access: &str) {
        self.postgres.sql(&format!(
            "insert into access_grant (id, tenant, app_user, session, chat, access, created_by)
             select gen_random_uuid(), u.tenant, u.id, c.session, c.id, '{access}', u.id
               from app_user u, chat_alias a join chat c on c.id = a.chat
              where u.email = '{email}' and a.alias = '{alias}' and c.tenant = u.tenant"
        ));
    }

    /// Makes a company; answers `{tenant, user, session}`.
    ///
    /// # Errors
    /// What the command said.
    pub fn make_tenant(&self, name: &str, email: &str, password: &str) -> Result<Value, Error> {
        Api::make_tenant(&self.shared, name, email, password)
    }

    /// The fault points.
    pub fn points(&self) -> &Faults {
        self.faults.as_ref().expect("the stack serves fault points")
    }

    /// The proxies.
    pub fn proxies(&self) -> &Proxies {
        self.proxies.as_ref().expect("the stack has proxies")
    }

    /// The database, to look at what callers cannot see.
    pub async fn db(&self) -> PgPool {
        PgPool::connect(&self.postgres.url()).await.expect("Postgres answers")
    }

    /// A copy of a program where the stack's user can run it.
    ///
    /// # Errors
    /// The file system's.
    pub fn copy(&self, program: &std::path::Path) -> Result<PathBuf, Error> {
        Ok(self.folder.copy(program)?)
    }

    /// Changes what no caller can: the past, mostly.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn sql(&self, statement: &'static str) -> Result<(), Error> {
        sqlx::query(statement).execute(&self.db().await).await?;
        Ok(())
    }

    /// Somebody's own browser, in their language.
    pub async fn visitor(&self, language: &str) -> crate::visitor::Visitor {
        crate::visitor::Visitor::open(self.shared.user, &self.folder, &self.shared.logs, language)
            .await
            .expect("a visitor's browser starts")
    }

    /// `MASTER_KEY` of its services.
    pub fn master_key(&self) -> &str {
        &self.shared.master_key
    }

    /// Where the object store of its services is.
    pub fn objects(&self) -> &std::path::Path {
        &self.shared.objects
    }

    /// Where its files are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
