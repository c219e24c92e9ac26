//! What every handler may use.

use std::{path::PathBuf, sync::Arc};

use contract::Timings;
use queue::{Codes, Redis, events::Readers};
use service::{objects::Objects, seal::Sealer};
use store::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{Passwords, Standings, Tokens, address::TrustedProxies},
    cors::Origins,
    webhook_rules::UrlRules,
};

/// Cheap to clone; nothing in it is a caller's.
#[derive(Clone)]
pub struct AppState {
    /// The truth.
    pub pool: PgPool,
    /// The fast path.
    pub redis: Redis,
    /// Followers of tenants' logs.
    pub readers: Readers,
    /// Who waits for codes to scan.
    pub codes: Codes,
    /// What must be finished before the process ends, whether or not its request is still there.
    pub tasks: TaskTracker,
    /// Ends what is being held open, when the process is asked to end.
    pub stopping: CancellationToken,
    /// Signs and checks access tokens.
    pub tokens: Arc<Tokens>,
    /// Seals what is kept to be read again.
    pub sealer: Arc<Sealer>,
    /// Where large things lie.
    pub objects: Objects,
    /// Checks passwords.
    pub passwords: Passwords,
    /// Whether token holders still count, at most a second old.
    pub standings: Arc<Standings>,
    /// Tenants' limits, a few seconds old.
    pub limits: Arc<crate::limits::Cache>,
    /// The origins whose pages may call.
    pub origins: Origins,
    /// Where webhooks may lead.
    pub webhook_urls: Arc<UrlRules>,
    /// Whose word on where a request came from counts.
    pub proxies: TrustedProxies,
    /// The protocol's durations.
    pub timings: Arc<Timings>,
    /// Whether this is a Lambda function: nothing outlives a response there.
    pub on_lambda: bool,
}

impl AppState {
    /// Puts the parts together.
    pub fn new(pool: PgPool, redis: Redis, (tokens, sealer): (Tokens, Sealer), timings: Timings) -> Self {
        let tasks = TaskTracker::new();
        Self {
            readers: Readers::new(redis.clone(), pool.clone(), tasks.clone()),
            codes: Codes::new(redis.clone(), tasks.clone()),
            pool,
            redis,
            tasks,
            stopping: CancellationToken::new(),
            tokens: Arc::new(tokens),
            sealer: Arc::new(sealer),
            objects: Objects::directory(PathBuf::new()),
            passwords: Passwords::default(),
            standings: Arc::default(),
            limits: Arc::default(),
            origins: Origins::default(),
            webhook_urls: Arc::default(),
            proxies: TrustedProxies::default(),
            timings: Arc::new(timings),
            on_lambda: false,
        }
    }
}
