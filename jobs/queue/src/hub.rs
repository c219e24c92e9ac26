//! The sessions that this host owns, and the pumps of their lanes. An idle lane costs no command: a pump runs when it is woken.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use apalis_core::task::{Task, builder::TaskBuilder};
use contract::{HostId, JobId, Lane, OwnerId, SessionId, Timings, fault_point};
use store::{
    PgPool,
    lane_jobs::{self, LaneJob},
    leases::{Claimable, StillHeld},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Done, Entry, LaneBackend, Lease, QueueError, Redis, backend,
    bus::Heard,
    hosts, keys,
    lane::LaneState,
    lanes,
    lease::{self, Renewed, boottime_ms},
    scripts,
};

/// Before a kept entry is looked at again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

struct Owned {
    lease: Lease,
    lanes: [LaneState; 3],
    /// Ends its listener.
    gone: CancellationToken,
}

impl Owned {
    fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane as usize]
    }
}

/// What a renewal round found.
#[derive(Debug)]
pub struct Round {
    /// Still ours, and whether they are wanted.
    pub held: Vec<StillHeld>,
    /// No longer ours, or too nearly so.
    pub fenced: Vec<SessionId>,
    /// How long it took.
    pub took: Duration,
}

/// One a host.
pub struct Hub {
    redis: Redis,
    pool: PgPool,
    host: HostId,
    timings: Timings,
    tasks: TaskTracker,
    out: mpsc::UnboundedSender<Task<Entry>>,
    owned: Mutex<HashMap<SessionId, Arc<Owned>>>,
    running: watch::Sender<usize>,
    taking: AtomicBool,
    birth: tokio::sync::Mutex<(Option<String>, Option<Instant>)>,
}

impl Hub {
    /// A hub that owns nothing yet, and the backend for its worker.
    ///
    /// # Errors
    /// [`QueueError::Evicts`] where Redis may throw leases away; Redis being down is none.
    pub async fn start(
        redis: Redis,
        pool: PgPool,
        host: HostId,
        timings: Timings,
        tasks: TaskTracker,
    ) -> Result<(Arc<Self>, LaneBackend), QueueError> {
        match redis.check().await {
            Err(error @ QueueError::Evicts(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "starting without redis"),
            Ok(()) => {}
        }
        let (out, rx) = mpsc::unbounded_channel();
        let hub = Self {
            redis,
            pool,
            host,
            timings,
            tasks,
            out,
            owned: Mutex::default(),
            running: watch::Sender::new(0),
            taking: AtomicBool::new(true),
            birth: tokio::sync::Mutex::default(),
        };
        Ok((Arc::new(hub), LaneBackend(rx)))
    }

    fn owned(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Owned>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, session: SessionId) -> Option<Arc<Owned>> {
        self.owned().get(&session).cloned()
    }

    /// Claims in Redis, takes the epoch from Postgres, then confirms the claim. `None`: somebody else has it, or may have it still.
    ///
    /// # Errors
    /// [`QueueError`]: nothing is ours.
    pub async fn claim(self: &Arc<Self>, session: &Claimable) -> Result<Option<Lease>, QueueError> {
        if session.owned && !self.may_take_over().await? {
            return Ok(None);
        }
        let (owner, key) = (OwnerId::new(), keys::lease(session.tenant, session.session));
        let (claim, ttl, asked) = (format!("?:{owner}"), self.timings.lease_ttl(), boottime_ms());
        if !lease::take(&self.redis, &key, &claim, ttl).await? {
            return Ok(None);
        }
        let _ = fault_point!("lease.after_claim", "session" => session.session);
        let _ = fault_point!("lease.before_bump", "session" => session.session);
        let bumped = store::leases::bump(&self.pool, session, owner, self.host).await;
        let held = match bumped {
            Ok(Some(held)) => held,
            other => {
                lease::release(&self.redis, &key, &claim).await?;
                return other.map(|_| None).map_err(QueueError::from);
            }
        };
        let _ = fault_point!("lease.before_cas", "session" => session.session);
        let lease = Lease::new(held, asked + self.timings.lease_ttl_ms);
        if !lease::confirm(&self.redis, &lease, &claim, ttl).await? {
            return Ok(None);
        }
        self.own(lease.clone());
        Ok(Some(lease))
    }

    /// A Redis that lost its keys does not know who holds what: for one TTL nothing is taken from an owner that may live.
    async fn may_take_over(&self) -> Result<bool, QueueError> {
        let mut birth = self.birth.lock().await;
        let (mark, since) = &mut *birth;
        if !hosts::same_redis(&self.redis, mark).await? {
            *since = Some(Instant::now());
        }
        Ok(since.is_none_or(|since| since.elapsed() >= self.timings.lease_ttl()))
    }

    fn own(self: &Arc<Self>, lease: Lease) {
        let (tenant, session) = (lease.held().tenant(), lease.held().session());
        let owned = Arc::new(Owned { lease, lanes: Default::default(), gone: CancellationToken::new() });
        owned.lane(Lane::Control).set_open(true);
        self.owned().insert(session, owned.clone());
        let mut heard = self.redis.bus.listen(keys::wake(tenant, session));
        let hub = self.clone();
        self.tasks.spawn(async move {
            loop {
                let heard = tokio::select! {
                    heard = heard.recv() => heard,
                    () = owned.gone.cancelled() => None,
                };
                match heard {
                    Some(Heard::Message(lane)) => match Lane::from_name(&lane) {
                        Some(lane) => hub.wake(&owned, lane),
                        None => Lane::ALL.into_iter().for_each(|lane| hub.wake(&owned, lane)),
                    },
                    Some(Heard::Subscribed) => hub.rebuild(&owned).await,
                    None => break,
                }
            }
            drop(heard);
            hub.redis.bus.forget(&keys::wake(tenant, session));
        });
    }

    /// Redis may have lost the lanes, or we a push: put them together again and look.
    async fn rebuild(self: &Arc<Self>, owned: &Arc<Owned>) {
        let held = owned.lease.held();
        if let Err(error) = lanes::rebuild(&self.pool, &self.redis, held.tenant(), held.session()).await {
            tracing::warn!(session = %held.session(), %error, "lanes not rebuilt: the reconciler will");
        }
        Lane::ALL.into_iter().for_each(|lane| self.wake(owned, lane));
    }

    /// The session works: its write and query jobs may run.
    pub fn open(self: &Arc<Self>, session: SessionId) {
        let Some(owned) = self.get(session) else { return };
        for lane in [Lane::Write, Lane::Query] {
            owned.lane(lane).set_open(true);
            self.wake(&owned, lane);
        }
    }

    /// The session does not work: no write or query job is taken any more. What runs goes on.
    pub fn close_lanes(&self, session: SessionId) {
        if let Some(owned) = self.get(session) {
            owned.lane(Lane::Write).set_open(false);
            owned.lane(Lane::Query).set_open(false);
        }
    }

    /// The host is leaving.
    pub fn stop_taking(&self) {
        self.taking.store(false, SeqCst);
    }

    /// When no job is running.
    pub async fn idle(&self) {
        let _ = self.running.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Gives a session up cleanly and tells the other hosts.
    ///
    /// # Errors
    /// [`QueueError`]: the lease runs out by itself.
    pub async fn release(&self, session: SessionId) -> Result<(), QueueError> {
        let Some(owned) = self.forget(session) else { return Ok(()) };
        store::leases::release(&self.pool, owned.lease.held()).await?;
        lease::release(&self.redis, owned.lease.key(), owned.lease.value()).await?;
        hosts::wanted(&self.redis, session).await;
        Ok(())
    }

    fn forget(&self, session: SessionId) -> Option<Arc<Owned>> {
        let owned = self.owned().remove(&session)?;
        owned.gone.cancel();
        owned.lease.fence();
        Some(owned)
    }

    /// Renews every lease, in Redis and, while that is away, in Postgres; fences what is not ours. Called on a runtime of its own.
    pub async fn renew_round(self: &Arc<Self>) -> Round {
        let (began, asked) = (Instant::now(), boottime_ms());
        let all: Vec<Arc<Owned>> = self.owned().values().cloned().collect();
        let leases: Vec<Lease> = all.iter().map(|o| o.lease.clone()).collect();
        let mut round = Round { held: Vec::new(), fenced: Vec::new(), took: Duration::ZERO };
        if all.is_empty() {
            return round;
        }
        let held: Vec<_> = leases.iter().map(|l| *l.held()).collect();
        let (renewed, ours) =
            tokio::join!(lease::renew(&self.redis, &leases, self.timings.lease_ttl()), store::leases::still_held(&self.pool, &held));
        let until = asked + self.timings.lease_ttl_ms;
        match renewed {
            Ok(renewed) => {
                for (owned, renewed) in all.iter().zip(renewed) {
                    match renewed {
                        Renewed::Yes => owned.lease.extend_to(until),
                        Renewed::Restored => {
                            owned.lease.extend_to(until);
                            let (hub, owned) = (self.clone(), owned.clone());
                            self.tasks.spawn(async move { hub.rebuild(&owned).await });
                        }
                        Renewed::Lost => round.fenced.push(owned.lease.held().session()),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "leases not renewed: extending them in postgres");
                if let Ok(extended) = store::leases::extend(&self.pool, &held, self.timings.lease_ttl()).await {
                    all.iter().filter(|o| extended.contains(&o.lease.held().session())).for_each(|o| o.lease.extend_to(until));
                }
            }
        }
        if let Ok(ours) = ours {
            let moved = |o: &&Arc<Owned>| ours.iter().all(|s| s.session != o.lease.held().session());
            round.fenced.extend(all.iter().filter(moved).map(|o| o.lease.held().session()));
            round.held = ours;
        }
        let late = |o: &&Arc<Owned>| boottime_ms() + self.timings.fence_margin_ms >= o.lease.deadline();
        round.fenced.extend(all.iter().filter(late).map(|o| o.lease.held().session()));
        round.fenced.sort_unstable();
        round.fenced.dedup();
        for session in &round.fenced {
            self.forget(*session);
        }
        round.took = began.elapsed();
        round
    }

    fn wake(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane) {
        if owned.lane(lane).wake() {
            let (hub, owned) = (self.clone(), owned.clone());
            self.tasks.spawn(async move { hub.pump(&owned, lane).await });
        }
    }

    /// Looks at a lane until there is nothing to do and nobody has woken it meanwhile.
    async fn pump(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane) {
        let state = owned.lane(lane);
        loop {
            state.begin();
            while !owned.lease.is_fenced() {
                match self.step(owned, lane).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(session = %owned.lease.held().session(), %error, "lane not read yet");
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                }
            }
            if !state.end() || owned.lease.is_fenced() {
                return;
            }
        }
    }

    /// Acks one finished job, or starts one. `false`: nothing to do.
    async fn step(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane) -> Result<bool, QueueError> {
        let state = owned.lane(lane);
        let finished = state.inner().finished.pop();
        let next = match finished {
            Some((job, Done::Ack)) => match self.ack(owned, lane, job).await {
                Ok(next) => {
                    state.inner().running.remove(&job);
                    next
                }
                Err(error) => {
                    state.inner().finished.push((job, Done::Ack));
                    return Err(error);
                }
            },
            Some((job, Done::Again)) => {
                state.inner().running.remove(&job);
                return Ok(true);
            }
            None if self.has_room(state, lane) => self.take(owned, lane).await?,
            None => return Ok(false),
        };
        if !self.has_room(state, lane) {
            return Ok(finished.is_some());
        }
        let free = next.into_iter().find(|job| !state.inner().running.contains(job));
        match free {
            Some(job) => self.hand_out(owned, lane, job).await.map(|()| true),
            None => Ok(finished.is_some()),
        }
    }

    fn has_room(&self, state: &LaneState, lane: Lane) -> bool {
        state.is_open() && self.taking.load(SeqCst) && state.inner().running.len() < lane.width()
    }

    async fn take(&self, owned: &Owned, lane: Lane) -> Result<Vec<JobId>, QueueError> {
        let (held, last) = (owned.lease.held(), owned.lane(lane).inner().running.len());
        let mut call = scripts::TAKE.key(owned.lease.key());
        call.key(keys::lane(held.tenant(), held.session(), lane)).arg(owned.lease.value()).arg(last);
        Ok(ids(call.invoke_async(&mut self.redis.commands()).await?))
    }

    async fn ack(&self, owned: &Owned, lane: Lane, job: JobId) -> Result<Vec<JobId>, QueueError> {
        let (held, last) = (owned.lease.held(), owned.lane(lane).inner().running.len());
        let mut call = scripts::ACK.key(owned.lease.key());
        call.key(keys::lane(held.tenant(), held.session(), lane)).arg(owned.lease.value()).arg(last).arg(job.to_string());
        Ok(ids(call.invoke_async(&mut self.redis.commands()).await?))
    }

    async fn hand_out(self: &Arc<Self>, owned: &Arc<Owned>, lane: Lane, job: JobId) -> Result<(), QueueError> {
        let held = owned.lease.held();
        let loaded = lane_jobs::load(&self.pool, held.tenant(), held.session(), job).await?;
        let runnable = |j: &LaneJob| !j.state.is_final();
        match loaded {
            Some(loaded) if runnable(&loaded) => {
                owned.lane(lane).inner().running.insert(job);
                self.running.send_modify(|n| *n += 1);
                let _ = self.out.send(TaskBuilder::new(Entry::new(self.clone(), loaded)).build());
            }
            Some(_) => drop(self.ack(owned, lane, job).await?),
            None => {
                // Postgres lost a tail, or the entry is a stranger's: said aloud, then gone.
                metrics::counter!("zaguan_lane_entries_without_row_total").increment(1);
                tracing::error!(session = %held.session(), %job, "a lane entry has no row");
                self.ack(owned, lane, job).await?;
            }
        }
        Ok(())
    }

    /// An attempt has ended.
    pub(crate) fn finished(self: &Arc<Self>, session: SessionId, lane: Lane, job: JobId, done: Done) {
        self.running.send_modify(|n| *n = n.saturating_sub(1));
        let Some(owned) = self.get(session) else { return };
        let hub = self.clone();
        let report = move || {
            owned.lane(lane).inner().finished.push((job, done));
            hub.wake(&owned, lane);
        };
        if done == Done::Ack {
            report();
        } else {
            self.tasks.spawn(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                report();
            });
        }
    }

    /// Runs the worker over `backend` until the process ends.
    pub async fn worker<H, F>(&self, backend: LaneBackend, name: String, handler: H)
    where
        H: Fn(SessionId, Arc<LaneJob>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Done> + Send + 'static,
    {
        backend::work(backend, name, handler).await;
    }
}

fn ids(texts: Vec<String>) -> Vec<JobId> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
