//! Leases: who owns a session for the next seconds.
//!
//! Redis holds `<epoch>:<owner>` under a TTL; Postgres issued the epoch. Nothing here trusts a lease for more than its deadline, which is
//! counted from before the command that set it was sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::{Lane, SessionId, Timings};
use store::Held;
use tokio_util::sync::CancellationToken;

use crate::{
    keys,
    redis::{Connection, QueueError, Redis},
    scripts,
    slot::Slot,
};

/// Milliseconds of a clock that goes on while the machine sleeps, as leases do.
pub fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A session that this process owns. Clones are the same lease.
#[derive(Clone)]
pub struct Lease(pub(crate) Arc<Owned>);

pub(crate) struct Owned {
    pub held: Held,
    pub key: String,
    pub value: String,
    margin: u64,
    /// From when on its session may be connected.
    opens: u64,
    deadline: AtomicU64,
    fenced: CancellationToken,
    open: AtomicBool,
    slots: [Slot; 3],
}

impl Lease {
    pub(crate) fn new(held: Held, opens: u64, deadline: u64, timings: &Timings) -> Self {
        Self(Arc::new(Owned {
            held,
            key: keys::lease(held.tenant(), held.session()),
            value: value_of(&held),
            margin: timings.fence_margin_ms,
            opens,
            deadline: AtomicU64::new(deadline),
            fenced: CancellationToken::new(),
            open: AtomicBool::new(false),
            slots: [const { Slot::new() }; 3],
        }))
    }

    /// What every owner statement takes.
    pub fn held(&self) -> &Held {
        &self.0.held
    }
    /// Its key in Redis.
    pub fn key(&self) -> &str {
        &self.0.key
    }
    /// What the key holds while the lease is ours.
    pub fn value(&self) -> &str {
        &self.0.value
    }
    /// When it ends unless it is renewed: milliseconds of `CLOCK_BOOTTIME`.
    pub fn deadline(&self) -> u64 {
        self.0.deadline.load(Ordering::Acquire)
    }
    /// When the session may be connected: one TTL after the claim where Redis may have lost the lease of an owner that is still there.
    pub async fn opens(&self) {
        tokio::time::sleep(Duration::from_millis(self.0.opens.saturating_sub(boottime_ms()))).await;
    }
    /// When the session must be let go of: it is another's, or its deadline is nearer than the margin. Never returns before that.
    pub async fn fenced(&self) {
        while self.0.stands() {
            let left = self.0.stands_for_ms().clamp(1, 1000);
            tokio::select! {
                () = self.0.fenced.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(left)) => {}
            }
        }
    }
}

impl Owned {
    pub(crate) fn session(&self) -> SessionId {
        self.held.session()
    }
    pub(crate) fn slot(&self, lane: Lane) -> &Slot {
        &self.slots[lane as usize]
    }
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
    pub(crate) fn lane_key(&self, lane: Lane) -> String {
        keys::lane(self.held.tenant(), self.session(), lane)
    }
    pub(crate) fn is_open(&self, lane: Lane) -> bool {
        lane == Lane::Control || self.open.load(Ordering::Acquire)
    }
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }
    /// How long the owner may still act.
    pub(crate) fn stands_for_ms(&self) -> u64 {
        self.deadline.load(Ordering::Acquire).saturating_sub(self.margin).saturating_sub(boottime_ms())
    }
    /// Whether the owner may act. A lease that once stopped standing never stands again.
    pub(crate) fn stands(&self) -> bool {
        if self.fenced.is_cancelled() {
            return false;
        }
        if self.stands_for_ms() == 0 {
            self.fence();
            return false;
        }
        true
    }
    pub(crate) fn prolong(&self, deadline: u64) {
        self.deadline.fetch_max(deadline, Ordering::AcqRel);
    }
    pub(crate) fn fence(&self) {
        self.fenced.cancel();
    }
}

fn value_of(held: &Held) -> String {
    format!("{}:{}", held.epoch(), held.owner())
}

/// `SET NX`. `None`: the session was free, or had been taken by this very value (an answer that was lost). Otherwise how long its lease lasts
/// unless it is renewed.
pub(crate) async fn seize(redis: &mut Connection, key: &str, value: &str, ttl: Duration) -> Result<Option<Duration>, QueueError> {
    let mut ask = redis::pipe();
    ask.cmd("SET").arg(key).arg(value).arg("NX").arg("GET").arg("PX").arg(millis(ttl)).pttl(key);
    let (holder, left): (Option<String>, i64) = ask.query_async(redis).await?;
    Ok(holder.filter(|holder| holder != value).map(|_| Duration::from_millis(u64::try_from(left).unwrap_or(0))))
}

/// Turns a claim into the lease of `held`: whether the claim still stood.
pub(crate) async fn confirm(redis: &mut Connection, key: &str, claim: &str, held: &Held, ttl: Duration) -> Result<bool, QueueError> {
    let done: i64 = scripts::CAS.key(key).arg(claim).arg(value_of(held)).arg(millis(ttl)).invoke_async(redis).await?;
    Ok(done == 1)
}

/// Deletes the key if it holds `value`, and calls the hosts.
pub(crate) async fn give_up(redis: &mut Connection, key: &str, value: &str, session: SessionId) -> Result<bool, QueueError> {
    let done: i64 = scripts::RELEASE.key(key).arg(value).arg(keys::WANTED).arg(session.to_string()).invoke_async(redis).await?;
    Ok(done == 1)
}

/// Releases leases whose holder is dead and whose browsers have ended: `(key, value)` as [`Lease::key`] and [`Lease::value`] gave them. The
/// rows still name the dead owner; the next claim replaces it.
///
/// # Errors
/// [`QueueError`]; then the leases run out by themselves.
pub async fn release_after_death(url: &str, leases: &[(String, String)]) -> Result<(), QueueError> {
    if leases.is_empty() {
        return Ok(());
    }
    let mut connection = Redis::connect(url).await?.shared();
    for (key, value) in leases {
        if let Some(session) = keys::last_part(key) {
            give_up(&mut connection, key, value, session).await?;
        }
    }
    Ok(())
}
