//! Connections to Redis.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ::redis::{
    Client, Cmd, ErrorKind, InfoDict, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, RedisFuture, RedisResult, ServerErrorKind,
    Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use futures::FutureExt;
use tokio::sync::mpsc;

/// How long a connection may take to be made. Shorter than [`ANSWER_WITHIN`]: a call that has to connect first still fails in time.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long an answer may take. The library's default of 500 ms is met by an ordinary stall.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long a peer may leave what was sent unconfirmed.
const SILENT_FOR: Duration = Duration::from_secs(15);

/// Redis, or the database behind it, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Redis did not answer, or refused.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// Postgres did not.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// An answer did not come in time.
    #[error("no answer in time")]
    TimedOut,
    /// Redis may evict keys: leases and lanes would vanish.
    #[error("redis must run with maxmemory-policy noeviction, it has {0}")]
    Evicts(String),
    /// Publishers kept overtaking one another; the reconciler publishes what is left.
    #[error("the stream kept moving under the publisher")]
    Contended,
}

/// A handle on one Redis, shared by all users of a process. Connections are made when first used and made again when lost: while Redis is
/// away each call fails within two seconds.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    shared: Connection,
    pub(crate) firehose_bodies: bool,
}

/// Where a Redis stands among its copies.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    /// How many are connected: with none, no fail-over can bring back a lease that was lost.
    pub replicas: usize,
    /// Which history of writes it is: another one after a fail-over or a restart, either of which may have lost some.
    pub history: String,
}

/// A connection that asks a second time where the first showed only that the connection was gone, or had been when it was last tried: else
/// the first call after an outage would fail although Redis is back. Whatever is asked through it may be done twice. One that does not answer
/// in time is replaced: its peer may be gone without a farewell, and then it would never answer again. So is one whose server has become a
/// replica: the primary that took its place is behind the same address.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Line>);

struct Line {
    client: Client,
    answer_within: Duration,
    now: RwLock<(u64, ConnectionManager)>,
}

impl Connection {
    fn new(client: Client, answer_within: Duration) -> Result<Self, RedisError> {
        let now = RwLock::new((0, ConnectionManager::new_lazy_with_config(client.clone(), impatient(answer_within))?));
        Ok(Self(Arc::new(Line { client, answer_within, now })))
    }
    fn current(&self) -> (u64, ConnectionManager) {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Replaces that one; if it has been already, the newer one stays.
    fn replace(&self, number: u64) {
        let mut now = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        if now.0 == number
            && let Ok(fresh) = ConnectionManager::new_lazy_with_config(self.0.client.clone(), impatient(self.0.answer_within))
        {
            *now = (number + 1, fresh);
        }
    }
    fn judge<T>(&self, number: u64, answer: &RedisResult<T>) {
        if answer.as_ref().is_err_and(RedisError::is_timeout) {
            self.replace(number);
        }
    }
    /// The connection to ask a second time, where the first answer shows that another one is needed.
    fn again<T>(
        &self,
        (number, manager): (u64, ConnectionManager),
        answer: &RedisResult<T>,
        demoted: bool,
    ) -> Option<(u64, ConnectionManager)> {
        if demoted {
            self.replace(number);
            return Some(self.current());
        }
        is_gone(answer).then_some((number, manager))
    }
}

/// Whether a server said that it takes no writes: nothing was done.
fn is_demoted(answer: &RedisResult<Value>) -> bool {
    match answer {
        Ok(value) => says_read_only(value),
        Err(error) => error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly),
    }
}

fn says_read_only(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}

fn is_gone<T>(answer: &RedisResult<T>) -> bool {
    answer.as_ref().is_err_and(|error| error.is_connection_refusal() || error.is_connection_dropped())
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let (mut number, mut manager) = self.current();
            let mut answer = manager.send_packed_command(cmd).await;
            if let Some(other) = self.again((number, manager), &answer, is_demoted(&answer)) {
                (number, manager) = other;
                answer = manager.send_packed_command(cmd).await;
            }
            self.judge(number, &answer);
            answer
        }
        .boxed()
    }
    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let (mut number, mut manager) = self.current();
            let mut answer = manager.send_packed_commands(pipeline, offset, count).await;
            let demoted = match &answer {
                Ok(values) => values.iter().any(says_read_only),
                Err(error) => error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly),
            };
            if let Some(other) = self.again((number, manager), &answer, demoted) {
                (number, manager) = other;
                answer = manager.send_packed_commands(pipeline, offset, count).await;
            }
            self.judge(number, &answer);
            answer
        }
        .boxed()
    }
    fn get_db(&self) -> i64 {
        self.current().1.get_db()
    }
}

impl Redis {
    /// Prepares the connections; Redis need not be there.
    ///
    /// # Errors
    /// Where the URL does not parse.
    pub async fn connect(url: &str) -> Result<Self, QueueError> {
        // The kernel gives a connection up whose peer is gone without a farewell, also one that only listens.
        let probes = TcpKeepalive::new().with_time(SILENT_FOR).with_interval(SILENT_FOR / 3);
        let settings = TcpSettings::default().set_keepalive(probes).set_user_timeout(SILENT_FOR);
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(settings))?;
        Ok(Self { shared: Connection::new(client.clone(), ANSWER_WITHIN)?, client, firehose_bodies: false })
    }

    /// The same, with or without the bodies of events (what people wrote) in the operator's firehose.
    #[must_use]
    pub fn with_firehose_bodies(self, bodies: bool) -> Self {
        Self { firehose_bodies: bodies, ..self }
    }

    /// Makes a new connection at the next use: this process was frozen, and the old one may be dead and not show it.
    pub fn renew(&self) {
        self.shared.replace(self.shared.current().0);
    }

    /// Whether Redis answers and never evicts.
    ///
    /// # Errors
    /// [`QueueError::Evicts`], or that it does not answer.
    pub async fn check(&self) -> Result<(), QueueError> {
        let policy = self.info("memory").await?.get::<String>("maxmemory_policy").unwrap_or_default();
        if policy == "noeviction" { Ok(()) } else { Err(QueueError::Evicts(policy)) }
    }

    /// What it says of fail-overs.
    ///
    /// # Errors
    /// That it does not answer.
    pub(crate) async fn replication(&self) -> Result<Replication, QueueError> {
        let info = self.info("replication").await?;
        let (replicas, history) = (info.get("connected_slaves").unwrap_or(0), info.get("master_replid").unwrap_or_default());
        Ok(Replication { replicas, history })
    }

    async fn info(&self, section: &str) -> Result<InfoDict, QueueError> {
        Ok(::redis::cmd("INFO").arg(section).query_async(&mut self.shared()).await?)
    }

    /// The connection that all share. Never for a blocking command.
    pub(crate) fn shared(&self) -> Connection {
        self.shared.clone()
    }

    /// A connection of its own, driven by the runtime that first calls it.
    pub(crate) fn separate(&self, answer_within: Duration) -> Result<Connection, QueueError> {
        Ok(Connection::new(self.client.clone(), answer_within.min(ANSWER_WITHIN))?)
    }

    /// A connection for channels, with what it hears. It never gives up: nobody else would notice that it is gone.
    pub(crate) fn listening(&self) -> Result<(ConnectionManager, mpsc::UnboundedReceiver<::redis::PushInfo>), QueueError> {
        let (heard, ears) = mpsc::unbounded_channel();
        let config = impatient(ANSWER_WITHIN)
            .set_number_of_retries(usize::MAX)
            .set_max_delay(Duration::from_millis(500))
            .set_push_sender(heard)
            .set_automatic_resubscription();
        let info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings))?;
        Ok((ConnectionManager::new_lazy_with_config(client, config)?, ears))
    }
}

fn impatient(answer_within: Duration) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(answer_within))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
}
