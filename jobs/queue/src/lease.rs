//! Leases: the Redis lock that makes a host the owner of a session. The epoch comes from Postgres; Redis only remembers who has it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use store::Held;
use tokio_util::sync::CancellationToken;

use crate::{QueueError, Redis, keys, scripts};

/// Milliseconds of `CLOCK_BOOTTIME`: it goes on while a machine sleeps, as the lease in Redis does.
pub(crate) fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// A session's lease, as long as it is ours.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    held: Held,
    key: String,
    value: String,
    deadline: AtomicU64,
    fenced: CancellationToken,
}

impl Lease {
    pub(crate) fn new(held: Held, deadline: u64) -> Self {
        let key = keys::lease(held.tenant(), held.session());
        let value = format!("{}:{}", held.epoch(), held.owner());
        Self(Arc::new(Inner { held, key, value, deadline: AtomicU64::new(deadline), fenced: CancellationToken::new() }))
    }

    /// The ownership.
    pub fn held(&self) -> &Held {
        &self.0.held
    }
    /// Its key in Redis.
    pub fn key(&self) -> &str {
        &self.0.key
    }
    /// What the key holds while it is ours.
    pub fn value(&self) -> &str {
        &self.0.value
    }
    /// When it ends unless it is renewed, in ms of `CLOCK_BOOTTIME`.
    pub fn deadline(&self) -> u64 {
        self.0.deadline.load(SeqCst)
    }
    pub(crate) fn extend_to(&self, deadline: u64) {
        self.0.deadline.fetch_max(deadline, SeqCst);
    }
    pub(crate) fn fence(&self) {
        self.0.fenced.cancel();
    }
    pub(crate) fn is_fenced(&self) -> bool {
        self.0.fenced.is_cancelled()
    }
    /// When it is no longer ours, or too nearly so.
    pub async fn fenced(&self) {
        self.0.fenced.cancelled().await;
    }
}

/// Takes the lock under a provisional value. `false`: somebody holds it.
pub(crate) async fn take(redis: &Redis, key: &str, claim: &str, ttl: Duration) -> Result<bool, QueueError> {
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let won: Option<String> =
        ::redis::cmd("SET").arg(key).arg(claim).arg("NX").arg("PX").arg(ms).query_async(&mut redis.commands()).await?;
    Ok(won.is_some())
}

/// Turns the provisional value into the owner's. `false`: the lock was lost meanwhile.
pub(crate) async fn confirm(redis: &Redis, lease: &Lease, claim: &str, ttl: Duration) -> Result<bool, QueueError> {
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let won: i64 = scripts::CAS.key(lease.key()).arg(claim).arg(lease.value()).arg(ms).invoke_async(&mut redis.commands()).await?;
    Ok(won == 1)
}

/// Deletes a lock that has this value.
pub(crate) async fn release(redis: &Redis, key: &str, value: &str) -> Result<(), QueueError> {
    scripts::RELEASE.key(key).arg(value).invoke_async::<i64>(&mut redis.commands()).await?;
    Ok(())
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    Yes,
    /// The key was gone (Redis lost it) and is ours again: the lanes are gone too.
    Restored,
    Lost,
}

/// Renews all in one pipeline, on a connection of its own.
pub(crate) async fn renew(redis: &Redis, leases: &[Lease], ttl: Duration) -> Result<Vec<Renewed>, QueueError> {
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let mut pipe = ::redis::pipe();
    for lease in leases {
        pipe.cmd("EVAL").arg(scripts::RENEW).arg(1).arg(lease.key()).arg(lease.value()).arg(ms);
    }
    let answers: Vec<i64> = pipe.query_async(&mut redis.renewals()).await?;
    Ok(answers
        .into_iter()
        .map(|a| match a {
            1 => Renewed::Yes,
            2 => Renewed::Restored,
            _ => Renewed::Lost,
        })
        .collect())
}

/// For the guard, once the host proper and its browsers are gone: the leases, so that another host need not wait for their end.
///
/// # Errors
/// [`QueueError`]: they run out by themselves.
pub async fn release_after_death(url: &str, leases: &[(String, String)]) -> Result<(), QueueError> {
    let redis = Redis::connect(url).await?;
    for (key, value) in leases {
        release(&redis, key, value).await?;
    }
    ::redis::cmd("PUBLISH").arg(keys::WANTED).arg("released").query_async::<()>(&mut redis.commands()).await?;
    Ok(())
}
