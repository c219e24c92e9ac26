//! Which hosts live, and the channel that says that a session is wanted.

use std::time::Duration;

use contract::{HostId, SessionId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{QueueError, Redis, bus::Heard, keys};

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Sessions it can run.
    pub slots: usize,
    /// Sessions it runs.
    pub used: usize,
    /// It is leaving.
    pub draining: bool,
}

/// A host with a fresh heartbeat.
#[derive(Debug, Clone)]
pub struct LiveHost {
    /// Which.
    pub id: HostId,
    /// What it says.
    pub record: HostRecord,
}

/// The time by Redis' clock, in ms: hosts' own clocks may differ.
async fn time(redis: &Redis) -> Result<i64, QueueError> {
    let (seconds, micros): (i64, i64) = ::redis::cmd("TIME").query_async(&mut redis.commands()).await?;
    Ok(seconds * 1000 + micros / 1000)
}

/// Says that a host lives.
///
/// # Errors
/// [`QueueError`].
pub async fn heartbeat(redis: &Redis, host: HostId, record: &HostRecord) -> Result<(), QueueError> {
    let now = time(redis).await?;
    let record = serde_json::to_string(record).unwrap_or_default();
    ::redis::pipe()
        .cmd("ZADD")
        .arg(keys::HOSTS)
        .arg(now)
        .arg(host.to_string())
        .ignore()
        .cmd("SET")
        .arg(keys::host(host))
        .arg(record)
        .arg("EX")
        .arg(600)
        .ignore()
        .cmd("ZREMRANGEBYSCORE")
        .arg(keys::HOSTS)
        .arg("-inf")
        .arg(now - 600_000)
        .ignore()
        .query_async::<()>(&mut redis.commands())
        .await?;
    Ok(())
}

/// The hosts whose last heartbeat is at most `stale` old.
///
/// # Errors
/// [`QueueError`].
pub async fn live(redis: &Redis, stale: Duration) -> Result<Vec<LiveHost>, QueueError> {
    let since = time(redis).await? - i64::try_from(stale.as_millis()).unwrap_or(i64::MAX);
    let mut connection = redis.commands();
    let ids: Vec<String> = ::redis::cmd("ZRANGEBYSCORE").arg(keys::HOSTS).arg(since).arg("+inf").query_async(&mut connection).await?;
    let ids: Vec<HostId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut get = ::redis::cmd("MGET");
    for id in &ids {
        get.arg(keys::host(*id));
    }
    let records: Vec<Option<String>> = get.query_async(&mut connection).await?;
    let host = |(id, record): (HostId, Option<String>)| Some(LiveHost { id, record: serde_json::from_str(&record?).ok()? });
    Ok(ids.into_iter().zip(records).filter_map(host).collect())
}

/// Says that a session's wish has changed, or that it is free. Nobody hearing it loses nothing: hosts look by themselves.
pub async fn wanted(redis: &Redis, session: SessionId) {
    let told = ::redis::cmd("PUBLISH").arg(keys::WANTED).arg(session.to_string()).query_async::<()>(&mut redis.commands()).await;
    if let Err(error) = told {
        tracing::debug!(%error, "hosts not woken: they look by themselves");
    }
}

/// Hears [`wanted`].
pub struct Wanted(mpsc::UnboundedReceiver<Heard>);

impl Wanted {
    /// The next time that something changed.
    pub async fn changed(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while self.0.try_recv().is_ok() {}
    }
}

/// Listens for changed wishes.
pub async fn wanted_changes(redis: &Redis) -> Wanted {
    Wanted(redis.bus.listen(keys::WANTED.to_owned()))
}

/// Whether this Redis is the one it was: its birth mark, written where it is missing. `false`: it has lost everything or is another one, so
/// for one lease TTL nobody may claim a session whose row still names an owner.
///
/// # Errors
/// [`QueueError`].
pub async fn same_redis(redis: &Redis, known: &mut Option<String>) -> Result<bool, QueueError> {
    let fresh = HostId::new().to_string();
    let before: Option<String> =
        ::redis::cmd("SET").arg(keys::BIRTH).arg(&fresh).arg("NX").arg("GET").query_async(&mut redis.commands()).await?;
    let (now, was_there) = before.map_or((fresh, false), |mark| (mark, true));
    let same = was_there && known.as_ref().is_none_or(|mark| *mark == now);
    *known = Some(now);
    Ok(same)
}
