//! The sessions that this host runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use contract::SessionId;
use queue::Lease;
use tokio::sync::{Notify, watch};

use crate::session::{self, Ending, Services, Shared};

/// Sessions by id, and a slot for each.
pub struct Roster {
    services: Services,
    slots: usize,
    sessions: Mutex<HashMap<SessionId, Arc<Shared>>>,
    /// Sessions that could not be brought up here, and when.
    declined: Mutex<HashMap<SessionId, Instant>>,
    count: watch::Sender<usize>,
    /// A session or browser came or went: the guard's list is out of date.
    pub changed: Arc<Notify>,
}

impl Roster {
    /// An empty roster of `slots`.
    pub fn new(services: Services, slots: usize) -> Self {
        Self {
            services,
            slots,
            sessions: Mutex::default(),
            declined: Mutex::default(),
            count: watch::Sender::new(0),
            changed: Arc::new(Notify::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Shared>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, where it runs here.
    pub fn get(&self, session: SessionId) -> Option<Arc<Shared>> {
        self.lock().get(&session).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Shared>> {
        self.lock().values().cloned().collect()
    }

    fn declined(&self) -> MutexGuard<'_, HashMap<SessionId, Instant>> {
        self.declined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others should have the session, or nobody for now: it could not be brought up here less than a TTL ago.
    pub fn declines(&self, session: SessionId) -> bool {
        let mut declined = self.declined();
        declined.retain(|_, at| at.elapsed() < self.services.timings.lease_ttl());
        declined.contains_key(&session)
    }

    /// Slots in all, and taken ones.
    pub fn load(&self) -> (usize, usize) {
        (self.slots, self.lock().len())
    }

    /// Whether another session fits.
    pub fn has_room(&self) -> bool {
        let (slots, used) = self.load();
        used < slots
    }

    /// Runs a claimed session until its actor ends.
    pub fn take_on(self: &Arc<Self>, lease: Lease) {
        let session = lease.held().session();
        let (shared, actor) = session::take_on(&self.services, lease, self.changed.clone());
        self.lock().insert(session, shared.clone());
        self.recount();
        let roster = self.clone();
        self.services.tasks.spawn(async move {
            actor.await;
            if shared.declined() {
                roster.declined().insert(session, Instant::now());
            }
            roster.lock().remove(&session);
            roster.recount();
        });
    }

    fn recount(&self) {
        let used = self.lock().len();
        metrics::gauge!("zaguan_sessions").set(used as f64);
        self.count.send_replace(used);
        self.changed.notify_one();
    }

    /// Asks every session to end.
    pub fn end_all(&self, why: Ending) {
        for shared in self.all() {
            shared.end(why);
        }
    }

    /// When no session is left.
    pub async fn empty(&self) {
        let mut count = self.count.subscribe();
        let _ = count.wait_for(|n| *n == 0).await;
    }
}
