//! A host's hub: the sessions it owns, and how work gets from their lanes to the handler.
//!
//! Idle lanes cost nothing: a push wakes the owner over a channel, and only then is the lane looked at. At most one looker a lane talks to
//! Redis, so that what it reads is never older than what it removed. `Slot` tells when one has to start.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use apalis_core::task::{Task, builder::TaskBuilder, task_id::TaskId};
use contract::{HostId, JobId, Lane, SessionId, Timings};
use store::PgPool;
use tokio::{
    runtime::Handle,
    sync::{OnceCell, Semaphore, mpsc, watch},
};
use tokio_util::task::TaskTracker;

use crate::{
    backend::{Done, Entry, LaneBackend, Owed},
    channels::{Channels, Ears, Heard},
    keys, lanes,
    lease::{self, Owned},
    redis::{Connection, QueueError, Redis},
};

/// Pause before a lane is looked at again after something failed.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(100);
/// Lanes that are rebuilt at the same time after Redis came back.
const REBUILDS_AT_ONCE: usize = 4;

/// The sessions of one host and their lanes.
pub struct Hub {
    pub(crate) redis: Redis,
    pub(crate) pool: PgPool,
    pub(crate) timings: Timings,
    pub(crate) renewal: OnceCell<Connection>,
    /// When the hub's runtime last ran one of its tasks.
    pub(crate) beat: AtomicU64,
    pub(crate) host: HostId,
    owned: RwLock<HashMap<SessionId, Arc<Owned>>>,
    /// Lost, and not reported by a round yet.
    lost: Mutex<Vec<SessionId>>,
    channels: Channels,
    out: mpsc::UnboundedSender<Task<Entry>>,
    taking: watch::Sender<bool>,
    /// Changes whenever a job ends.
    ends: watch::Sender<()>,
    rebuilds: Semaphore,
    tasks: TaskTracker,
    runtime: Handle,
}

/// What a look into a lane led to.
pub(crate) enum Look {
    /// An entry was handed on or removed: there may be more.
    More,
    /// Nothing to do until there is news.
    Nothing,
    /// Something failed: look again, a little later.
    Trouble,
    /// The session is no longer ours.
    Fenced,
}

impl Hub {
    /// A hub that owns nothing yet, and the backend of its worker. Its tasks end when the hub is dropped.
    ///
    /// # Errors
    /// [`QueueError::Evicts`], or where connections cannot be prepared. Redis need not be there.
    pub async fn start(
        redis: Redis,
        pool: PgPool,
        host: HostId,
        timings: Timings,
        tasks: TaskTracker,
    ) -> Result<(Arc<Self>, LaneBackend), QueueError> {
        match redis.check().await {
            Err(error @ QueueError::Evicts(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "starting without Redis"),
            Ok(()) => {}
        }
        let (channels, ears) = Channels::open(&redis, &tasks)?;
        let (out, rx) = mpsc::unbounded_channel();
        let hub = Arc::new(Self {
            redis,
            pool,
            timings,
            renewal: OnceCell::new(),
            beat: AtomicU64::new(lease::boottime_ms()),
            host,
            owned: RwLock::default(),
            lost: Mutex::default(),
            channels,
            out,
            taking: watch::Sender::new(true),
            ends: watch::Sender::new(()),
            rebuilds: Semaphore::new(REBUILDS_AT_ONCE),
            tasks,
            runtime: Handle::current(),
        });
        hub.tasks.spawn(listen(Arc::downgrade(&hub), ears));
        hub.tasks.spawn(beat(Arc::downgrade(&hub), hub.timings.renew_every() / 4));
        hub.tasks.spawn(check_ears(Arc::downgrade(&hub), hub.timings.reconcile_every()));
        Ok((hub, LaneBackend { rx }))
    }

    pub(crate) fn find(&self, session: SessionId) -> Option<Arc<Owned>> {
        self.owned.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Owned>> {
        self.owned.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert(&self, owned: Arc<Owned>) {
        let channel = keys::wake(owned.held.tenant(), owned.session());
        self.owned.write().unwrap_or_else(PoisonError::into_inner).insert(owned.session(), owned);
        // Only now: its confirmation fills the lanes.
        self.channels.listen(channel);
    }

    /// Forgets exactly this ownership, not a later one of the same session. `true`: it had not been forgotten before.
    pub(crate) fn forget(&self, owned: &Arc<Owned>) -> bool {
        let mut all = self.owned.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&owned.session()).is_some_and(|o| Arc::ptr_eq(o, owned));
        if known {
            all.remove(&owned.session());
            self.channels.ignore(keys::wake(owned.held.tenant(), owned.session()));
        }
        owned.fence();
        self.ends.send_replace(());
        known
    }

    /// The session is another's, or its lease too near its end.
    pub(crate) fn lose(&self, owned: &Arc<Owned>) {
        if self.forget(owned) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(owned.session());
        }
    }

    /// What was lost since this was last asked.
    pub(crate) fn take_lost(&self) -> Vec<SessionId> {
        std::mem::take(&mut self.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets jobs of the session's write and query lanes start, and takes what waits at once.
    pub fn open(self: &Arc<Self>, session: SessionId) {
        if let Some(owned) = self.find(session) {
            owned.set_open(true);
            self.wake_all(&owned);
        }
    }

    /// Starts no more jobs of the session's write and query lanes; those that run go on.
    pub fn close_lanes(&self, session: SessionId) {
        if let Some(owned) = self.find(session) {
            owned.set_open(false);
        }
    }

    /// Starts no more jobs at all; what ends is still removed from its lane.
    pub fn stop_taking(&self) {
        self.taking.send_replace(false);
    }

    /// When nothing runs and nothing has to be removed from a lane.
    pub async fn idle(&self) {
        let mut ends = self.ends.subscribe();
        while !self.all().iter().all(|owned| owned.slots().iter().all(|slot| slot.is_idle())) {
            if ends.changed().await.is_err() {
                return;
            }
        }
    }

    /// When nothing of the session runs, and nothing has to be removed from a lane of it.
    pub async fn session_idle(&self, session: SessionId) {
        let mut ends = self.ends.subscribe();
        while !self.session_is_idle(session) {
            if ends.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether nothing of the session runs now.
    pub fn session_is_idle(&self, session: SessionId) -> bool {
        self.find(session).is_none_or(|owned| owned.slots().iter().all(|slot| slot.is_idle()))
    }

    fn wake_all(self: &Arc<Self>, owned: &Arc<Owned>) {
        for lane in Lane::ALL {
            self.wake(owned, lane);
        }
    }

    pub(crate) fn wake(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane) {
        if owned.slot(lane).wake() {
            self.tasks.spawn_on(self.clone().look(owned.clone(), lane), &self.runtime);
        }
    }

    async fn look(self: Arc<Self>, owned: Arc<Owned>, lane: Lane) {
        let slot = owned.slot(lane);
        loop {
            slot.look();
            match self.look_once(&owned, lane).await {
                Look::More => {}
                Look::Nothing if slot.leave() => return,
                Look::Nothing => {}
                Look::Trouble => tokio::time::sleep(BACK_OFF).await,
                Look::Fenced => {
                    self.lose(&owned);
                    return;
                }
            }
        }
    }

    async fn look_once(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane) -> Look {
        if !owned.stands() {
            return Look::Fenced;
        }
        let slot = owned.slot(lane);
        let view = slot.view();
        let room = *self.taking.borrow() && owned.is_open(lane) && view.running < lane.width() && !self.out.is_closed();
        if view.ended.is_empty() && !room {
            return Look::Nothing;
        }
        let entries = match lanes::take(&self.redis, owned, lane, view.running, &view.ended).await {
            Ok((1, entries)) => entries,
            Ok((0, _)) => {
                tracing::warn!(session = %owned.session(), "another holds the lease");
                return Look::Fenced;
            }
            Ok(_) => return self.retake(owned).await,
            Err(error) => {
                tracing::debug!(%error, session = %owned.session(), lane = lane.as_str(), "lane not read");
                return Look::Trouble;
            }
        };
        if !view.ended.is_empty() {
            slot.removed(&view.ended);
            self.ends.send_replace(());
        }
        let next = entries.into_iter().find(|entry| !slot.runs(entry));
        match next {
            Some(entry) if room => self.hand_over(owned, lane, entry).await,
            _ => Look::Nothing,
        }
    }

    /// Redis has forgotten the lease while it stands: it is ours still, and the lanes are gone as well.
    async fn retake(self: &Arc<Self>, owned: &Arc<Owned>) -> Look {
        let left = Duration::from_millis(owned.stands_for_ms());
        match lease::seize(&mut self.redis.shared(), &owned.key, &owned.value, left.max(Duration::from_millis(1))).await {
            Ok(None) => self.taken_again(owned).await,
            Ok(Some(_)) => {}
            Err(error) => tracing::debug!(%error, session = %owned.session(), "lease not taken again"),
        }
        Look::Trouble
    }

    /// A missing lease is ours again. If it was missing because the session was released meanwhile, it would keep the next owner out for a
    /// TTL: a release fences before it deletes the key, so this sees it.
    pub(crate) async fn taken_again(self: &Arc<Self>, owned: &Arc<Owned>) {
        if owned.stands() {
            return self.refresh(owned.clone());
        }
        if let Err(error) = lease::give_up(&mut self.redis.shared(), &owned.key, &owned.value, owned.session()).await {
            tracing::debug!(%error, session = %owned.session(), "lease not given up: it runs out");
        }
    }

    /// Loads the job of an entry and gives it to the handler. An entry whose job has ended is a late push: it is cleared.
    async fn hand_over(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane, entry: String) -> Look {
        let slot = owned.slot(lane);
        let (tenant, session) = (owned.held.tenant(), owned.session());
        let job = match entry.parse::<JobId>() {
            Ok(id) => store::lane_jobs::load(&self.pool, tenant, session, id).await,
            Err(_) => Ok(None),
        };
        match job {
            Ok(Some(job)) if job.state.is_final() => slot.ended(entry),
            Ok(Some(job)) => {
                slot.started(job.id);
                let id = TaskId::from_string(entry);
                let owed = Owed::new(self.clone(), owned.clone(), lane, job.id);
                // A worker that is gone drops it, and the guard puts the job back.
                let _ = self.out.send(TaskBuilder::new(Entry::new(job, owed)).task_id(id).build());
            }
            Ok(None) => return self.without_job(owned, lane, entry).await,
            Err(error) => {
                tracing::debug!(%error, %session, job = entry, "job not loaded");
                return Look::Trouble;
            }
        }
        Look::More
    }

    /// An attempt is over.
    pub(crate) fn settle(self: &Arc<Self>, owned: Arc<Owned>, lane: Lane, job: JobId, done: Done) {
        match done {
            Done::Ack => {
                owned.slot(lane).ended(job.to_string());
                self.wake(&owned, lane);
            }
            Done::Again => {
                let hub = self.clone();
                let put_back = async move {
                    tokio::time::sleep(BACK_OFF).await;
                    owned.slot(lane).put_back(job);
                    hub.ends.send_replace(());
                    hub.wake(&owned, lane);
                };
                self.tasks.spawn_on(put_back, &self.runtime);
            }
        }
    }

    /// Puts into the lanes what Postgres knows, and looks at them: after anything that may have lost entries or wake-ups.
    pub(crate) fn refresh(self: &Arc<Self>, owned: Arc<Owned>) {
        let hub = self.clone();
        let refreshed = async move {
            let (tenant, session) = (owned.held.tenant(), owned.session());
            while owned.stands() {
                let _turn = hub.rebuilds.acquire().await;
                match lanes::rebuild(&hub.pool, &hub.redis, tenant, session).await {
                    Ok(_) => break,
                    Err(error) => tracing::debug!(%error, %session, "lanes not rebuilt"),
                }
                tokio::time::sleep(BACK_OFF * 5).await;
            }
            hub.wake_all(&owned);
        };
        self.tasks.spawn_on(refreshed, &self.runtime);
    }

    fn heard(self: &Arc<Self>, heard: Heard) {
        let session = |channel: &str| keys::last_part(channel).and_then(|session| self.find(session));
        match heard {
            Heard::Message { channel, text } => {
                if let (Some(owned), Some(lane)) = (session(&channel), Lane::from_name(&text)) {
                    self.wake(&owned, lane);
                }
            }
            Heard::Listening(channel) => {
                if let Some(owned) = session(&channel) {
                    self.refresh(owned);
                }
            }
            Heard::Lost => tracing::warn!("not listening to Redis"),
        }
    }
}

async fn listen(hub: Weak<Hub>, mut ears: Ears) {
    while let Some(heard) = ears.next().await {
        let Some(hub) = hub.upgrade() else { return };
        hub.heard(heard);
    }
}

/// Says that the runtime on which jobs and pages are tended gets to run: leases are renewed elsewhere, and must not outlive it.
async fn beat(hub: Weak<Hub>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.beat.store(lease::boottime_ms(), Ordering::Release);
    }
}

/// A connection that died without a farewell hears nothing and is not made again: ask it now and then, and look for oneself meanwhile.
async fn check_ears(hub: Weak<Hub>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(hub) = hub.upgrade() else { return };
        let owned = hub.all();
        if !owned.is_empty() && !hub.channels.answers().await {
            for owned in owned {
                hub.wake_all(&owned);
            }
        }
    }
}
