//! Following a tenant's events: one reader a tenant that somebody follows in this process, however many follow. It accepts only the next
//! `seq`; anything else it reads from Postgres.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use contract::{Event, TenantId};
use store::PgPool;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::{QueueError, Redis, events, keys};

/// Events that a slow follower may be behind before it has to read by itself.
const BACKLOG: usize = 1_024;
/// How often the reader compares with the tenant's counter although nothing was announced.
const COMPARE_EVERY: Duration = Duration::from_secs(15);
/// The same while Redis is away.
const POLL_EVERY: Duration = Duration::from_secs(1);
const PAGE: usize = 500;

/// The readers of a process.
#[derive(Clone)]
pub struct Readers(Arc<Inner>);

struct Inner {
    redis: Redis,
    pool: PgPool,
    tasks: TaskTracker,
    open: Mutex<HashMap<TenantId, Weak<Reader>>>,
}

struct Reader {
    tenant: TenantId,
    sender: broadcast::Sender<Arc<Event>>,
}

/// Somebody who follows a tenant.
pub struct Follow {
    receiver: broadcast::Receiver<Arc<Event>>,
    pool: PgPool,
    tenant: TenantId,
    last: i64,
    /// Read again because the follower was too slow.
    again: VecDeque<Arc<Event>>,
    _reader: Arc<Reader>,
}

impl Follow {
    /// The next event, in order, none missing, none twice.
    pub async fn next(&mut self) -> Arc<Event> {
        loop {
            if let Some(event) = self.again.pop_front() {
                self.last = event.seq;
                return event;
            }
            match self.receiver.recv().await {
                Ok(event) if event.seq <= self.last => {}
                Ok(event) if event.seq == self.last + 1 => {
                    self.last = event.seq;
                    return event;
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.again = self.missed().await,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    async fn missed(&self) -> VecDeque<Arc<Event>> {
        loop {
            match store::counters::after(&self.pool, self.tenant, self.last, PAGE as i64).await {
                Ok(missed) => return missed.into_iter().map(Arc::new).collect(),
                Err(error) => tracing::warn!(%error, "missed events not read yet"),
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The `seq` after which it follows.
    pub fn after(&self) -> i64 {
        self.last
    }
}

impl Readers {
    /// No reader yet.
    pub fn new(redis: Redis, pool: PgPool, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner { redis, pool, tasks, open: Mutex::default() }))
    }

    /// Follows a tenant from now on: every event committed after this returns is heard.
    ///
    /// # Errors
    /// [`store::StoreError`] where the head cannot be read.
    pub async fn follow(&self, tenant: TenantId) -> Result<Follow, store::StoreError> {
        // A new reader begins at a head read before it, an old one is subscribed to before the head is read: either way nothing that is
        // committed later can slip between.
        let before = store::counters::head(&self.0.pool, tenant).await?;
        let (reader, receiver, is_new) = self.0.subscribe(tenant, before);
        let last = if is_new { before } else { store::counters::head(&self.0.pool, tenant).await? };
        Ok(Follow { receiver, pool: self.0.pool.clone(), tenant, last, again: VecDeque::new(), _reader: reader })
    }
}

impl Inner {
    fn subscribe(self: &Arc<Self>, tenant: TenantId, head: i64) -> (Arc<Reader>, broadcast::Receiver<Arc<Event>>, bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, reader| reader.strong_count() > 0);
        if let Some(reader) = open.get(&tenant).and_then(Weak::upgrade) {
            let receiver = reader.sender.subscribe();
            return (reader, receiver, false);
        }
        let reader = Arc::new(Reader { tenant, sender: broadcast::Sender::new(BACKLOG) });
        let receiver = reader.sender.subscribe();
        open.insert(tenant, Arc::downgrade(&reader));
        self.tasks.spawn(read(self.clone(), Arc::downgrade(&reader), head));
        (reader, receiver, true)
    }
}

/// Reads until nobody follows.
async fn read(inner: Arc<Inner>, reader: Weak<Reader>, mut last: i64) {
    let Some(tenant) = reader.upgrade().map(|r| r.tenant) else { return };
    let channel = keys::new_events(tenant);
    let mut heard = inner.redis.bus.listen(channel.clone());
    let mut pause = Duration::ZERO;
    while reader.strong_count() > 0 {
        tokio::select! {
            _ = heard.recv() => while heard.try_recv().is_ok() {},
            () = tokio::time::sleep(pause) => {}
            () = gone(&reader) => {}
        }
        pause = match advance(&inner, &reader, tenant, &mut last).await {
            Ok(()) => COMPARE_EVERY,
            Err(error) => {
                tracing::debug!(%error, "reading events from postgres");
                POLL_EVERY
            }
        };
    }
    drop(heard);
    inner.redis.bus.forget(&channel);
}

/// Notices within a second that nobody follows any more.
async fn gone(reader: &Weak<Reader>) {
    while reader.strong_count() > 0 {
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Hands on everything up to the counter.
async fn advance(inner: &Inner, reader: &Weak<Reader>, tenant: TenantId, last: &mut i64) -> Result<(), QueueError> {
    loop {
        let streamed = events::read(&inner.redis, tenant, *last, PAGE).await;
        let down = streamed.is_err();
        let mut batch = streamed.unwrap_or_default();
        if batch.first().is_none_or(|first| first.seq != *last + 1) {
            batch = store::counters::after(&inner.pool, tenant, *last, PAGE as i64).await?;
        } else if let Some(hole) = batch.windows(2).position(|w| w[1].seq != w[0].seq + 1) {
            // Trimmed under us: the next round reads the rest from Postgres.
            batch.truncate(hole + 1);
        }
        if batch.is_empty() {
            return if down { Err(QueueError::Redis(::redis::RedisError::from(std::io::Error::other("redis is away")))) } else { Ok(()) };
        }
        for event in batch {
            *last = event.seq;
            if let Some(reader) = reader.upgrade() {
                let _ = reader.sender.send(Arc::new(event));
            }
        }
    }
}
