//! What hosts say of themselves, and how they are called.

use std::time::Duration;

use contract::{HostId, SessionId};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::{
    channels::{Channels, Ears, Heard},
    keys,
    lease::millis,
    redis::{QueueError, Redis},
    scripts,
};

/// A record outlives a few missed heartbeats; the sorted set decides who lives.
const RECORD_LASTS: Duration = Duration::from_secs(60);

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRecord {
    /// Sessions it can run.
    pub slots: usize,
    /// Sessions it runs.
    pub used: usize,
    /// Whether it is leaving: it claims nothing.
    pub draining: bool,
    /// The major version of its browser, which opens no profile of a newer one.
    #[serde(default = "any_browser")]
    pub browser: i32,
}

/// Of a host that does not say yet which it has.
fn any_browser() -> i32 {
    i32::MAX
}

impl HostRecord {
    /// What a host says that leaves.
    pub const LEAVING: Self = Self { slots: 0, used: 0, draining: true, browser: 0 };
}

/// A host with a recent heartbeat.
#[derive(Debug, Clone)]
pub struct LiveHost {
    /// Which.
    pub id: HostId,
    /// What it last said.
    pub record: HostRecord,
}

/// Calls the hosts: one of them should look at this session. A call that fails is made up for by their next look by themselves.
pub async fn wanted(redis: &Redis, session: SessionId) {
    let called = redis::cmd("PUBLISH").arg(keys::WANTED).arg(session.to_string()).query_async::<i64>(&mut redis.shared()).await;
    if let Err(error) = called {
        tracing::debug!(%error, %session, "hosts not called");
    }
}

/// Says that a host lives, and answers all whose heartbeat is younger than `stale`. Redis's clock stamps them.
///
/// # Errors
/// [`QueueError`].
pub async fn heartbeat(redis: &Redis, host: HostId, record: &HostRecord, stale: Duration) -> Result<Vec<HostId>, QueueError> {
    let record = serde_json::to_string(record).unwrap_or_default();
    let mut connection = redis.shared();
    let mut set = redis::cmd("SET");
    set.arg(keys::host(host)).arg(record).arg("PX").arg(millis(RECORD_LASTS)).query_async::<()>(&mut connection).await?;
    let mut beat = scripts::HEARTBEAT.key(keys::HOSTS);
    let live: Vec<String> = beat.arg(host.to_string()).arg(millis(stale)).invoke_async(&mut connection).await?;
    Ok(live.iter().filter_map(|h| h.parse().ok()).collect())
}

/// Hosts whose heartbeat is younger than `stale`.
///
/// # Errors
/// [`QueueError`].
pub async fn live(redis: &Redis, stale: Duration) -> Result<Vec<LiveHost>, QueueError> {
    let mut hosts = Vec::new();
    for id in living(redis, stale).await? {
        let record: Option<String> = redis::cmd("GET").arg(keys::host(id)).query_async(&mut redis.shared()).await?;
        hosts.extend(record.and_then(|r| serde_json::from_str(&r).ok()).map(|record| LiveHost { id, record }));
    }
    Ok(hosts)
}

/// The ids of hosts whose heartbeat is younger than `stale`.
///
/// # Errors
/// [`QueueError`].
pub async fn living(redis: &Redis, stale: Duration) -> Result<Vec<HostId>, QueueError> {
    by_age(redis, stale, true).await
}

/// Hosts that have been silent for `stale` and are not forgotten yet.
///
/// # Errors
/// [`QueueError`].
pub async fn stale(redis: &Redis, stale: Duration) -> Result<Vec<HostId>, QueueError> {
    by_age(redis, stale, false).await
}

async fn by_age(redis: &Redis, age: Duration, younger: bool) -> Result<Vec<HostId>, QueueError> {
    let mut ask = scripts::HOSTS.key(keys::HOSTS);
    ask.arg(millis(age)).arg(i32::from(younger));
    let hosts: Vec<String> = ask.invoke_async(&mut redis.shared()).await?;
    Ok(hosts.iter().filter_map(|h| h.parse().ok()).collect())
}

/// For how long this Redis has not forgotten anything. One that is new, lost its keys, or took over from another, starts counting with the
/// first who asks: for one TTL from then nobody may conclude from a missing lease that a session has no owner. Its owner may still renew the
/// lease with the one that was taken over from.
///
/// # Errors
/// [`QueueError`].
pub async fn birth(redis: &Redis) -> Result<Duration, QueueError> {
    birth_of(redis, &redis.replication().await?.history).await
}

/// [`birth`] of one that has said which history it is.
pub(crate) async fn birth_of(redis: &Redis, history: &str) -> Result<Duration, QueueError> {
    let age: i64 = scripts::BIRTH.key(keys::BIRTH).arg(history).invoke_async(&mut redis.shared()).await?;
    Ok(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
}

/// Calls to hosts, as one of them hears them.
pub struct Wanted {
    ears: Option<Ears>,
    _channels: Option<Channels>,
    _tasks: TaskTracker,
}

/// Listens to [`wanted`]. Where Redis cannot be listened to, nothing is heard and hosts look by themselves.
pub async fn wanted_changes(redis: &Redis) -> Wanted {
    let tasks = TaskTracker::new();
    let (channels, ears) = Channels::open(redis, &tasks).ok().unzip();
    if let Some(channels) = &channels {
        channels.listen(keys::WANTED.to_owned());
    }
    Wanted { ears, _channels: channels, _tasks: tasks }
}

impl Wanted {
    /// The sessions of the next call, and of all that came with it. Empty: calls may have been missed.
    pub async fn changed(&mut self) -> Vec<SessionId> {
        let Some(ears) = &mut self.ears else { return std::future::pending().await };
        let mut called = Vec::new();
        let mut heard = loop {
            match ears.next().await {
                Some(Heard::Lost) => {}
                heard @ Some(_) => break heard,
                None => std::future::pending().await,
            }
        };
        while let Some(one) = heard {
            if let Heard::Message { text, .. } = one {
                called.extend(text.parse::<SessionId>());
            }
            heard = ears.waiting();
        }
        called
    }
}
