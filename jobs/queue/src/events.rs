//! Following a tenant's log. One reader a tenant feeds all that follow it in a process.
//!
//! Streams and channels are hints that may be trimmed, deleted or missed. A reader accepts only the event after its last; anything else it
//! reads from Postgres, and it compares with the tenant's counter at every keep-alive. A follower does the same with what its reader says.

use std::{
    collections::{HashMap, VecDeque},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use contract::{Ephemeral, Event, TenantId};
use redis::streams::StreamRangeReply;
use store::{PgPool, StoreError};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{
    channels::{Channels, Ears, Heard},
    keys,
    redis::{QueueError, Redis},
    restored,
};

pub use crate::publish::{catch_up, publish};

/// How often a reader that hears the channel compares with the counter all the same.
const COMPARE_EVERY: Duration = Duration::from_secs(15);
/// How often one that does not hear it looks into Postgres.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Events of one read.
const PAGE: i64 = 500;
/// Events that a slow follower may leave waiting in memory; what it misses beyond that it reads from Postgres.
const WAITING: usize = 256;

/// The same for what is in no log.
const TOLD: usize = 32;

/// Tells whoever listens now. What is told is in no log.
///
/// # Errors
/// [`QueueError`].
pub async fn tell(redis: &Redis, told: &Ephemeral) -> Result<(), QueueError> {
    let text = serde_json::to_string(told).unwrap_or_default();
    Ok(redis::cmd("PUBLISH").arg(keys::new_events(told.tenant)).arg(text).query_async(&mut redis.shared()).await?)
}

/// For how long an event may be told as it was read. It may have been erased since, and is read again after that; so is nothing of it told
/// any more by whoever follows the log, once so long has passed since an erasure emptied it.
pub const AS_READ: Duration = Duration::from_secs(5);

/// An event of the log, and its JSON: written once, however many are shown it.
#[derive(Debug)]
pub struct Logged {
    event: Event,
    json: OnceLock<Box<str>>,
    read: Instant,
}

impl Logged {
    /// The envelope, as every transport carries it.
    pub fn json(&self) -> &str {
        // An envelope is always JSON.
        self.json.get_or_init(|| serde_json::to_string(&self.event).unwrap_or_default().into_boxed_str())
    }

    /// An event that was read by a question asked at `asked`.
    fn read(event: Event, asked: Instant) -> Arc<Self> {
        Arc::new(Self { event, json: OnceLock::new(), read: asked })
    }

    /// Whether it may be told as it is: see [`AS_READ`].
    pub fn is_fresh(&self) -> bool {
        self.read.elapsed() < AS_READ
    }
}

/// Of what was read just now.
impl From<Event> for Logged {
    fn from(event: Event) -> Self {
        Self { event, json: OnceLock::new(), read: Instant::now() }
    }
}

impl Deref for Logged {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.event
    }
}

/// The readers of a process. Clones share them. A reader ends with its last follower, and the connection with the last reader.
#[derive(Clone)]
pub struct Readers(Arc<Inner>);

struct Inner {
    redis: Redis,
    pool: PgPool,
    tasks: TaskTracker,
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    by_tenant: HashMap<TenantId, Arc<Room>>,
    channels: Option<Channels>,
}

/// What a reader and its followers share.
struct Room {
    events: broadcast::Sender<Arc<Logged>>,
    /// What is in no log: lost for whoever does not listen, or not fast enough.
    told: broadcast::Sender<Arc<Ephemeral>>,
    /// All up to here has been sent; raised before the event is.
    last: AtomicI64,
    /// The stream's tail, as last heard.
    tail: AtomicI64,
    /// Whether the channel is heard.
    listening: AtomicBool,
    /// Messages may have been missed.
    compare: AtomicBool,
    news: Notify,
}

impl Readers {
    /// No readers yet. `tasks` runs those to come.
    pub fn new(redis: Redis, pool: PgPool, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner { redis, pool, tasks, rooms: Mutex::default() }))
    }

    /// Follows the log from now on: every event that commits after this call returns is seen, once and in order.
    ///
    /// # Errors
    /// Where Postgres does not answer.
    pub async fn follow(&self, tenant: TenantId) -> Result<Follow, StoreError> {
        let head = store::counters::head(&self.0.pool, tenant).await?;
        Ok(self.join(tenant, head, head))
    }

    /// Follows the log from behind `cursor`, which must not be below what is kept.
    ///
    /// # Errors
    /// Where Postgres does not answer.
    pub async fn follow_from(&self, tenant: TenantId, cursor: i64) -> Result<Follow, StoreError> {
        let head = store::counters::head(&self.0.pool, tenant).await?;
        Ok(self.join(tenant, cursor, head))
    }

    fn join(&self, tenant: TenantId, last: i64, head: i64) -> Follow {
        let mut rooms = self.0.rooms();
        if rooms.channels.is_none() {
            // Where it cannot be opened, readers poll.
            if let Ok((channels, ears)) = Channels::open(&self.0.redis, &self.0.tasks) {
                self.0.tasks.spawn(hear(self.0.clone(), ears));
                rooms.channels = Some(channels);
            }
        }
        let (room, events) = match rooms.by_tenant.get(&tenant) {
            Some(room) => (room.clone(), room.events.subscribe()),
            None => {
                let (sender, events) = broadcast::channel(WAITING);
                let room = Arc::new(Room::new(sender, head));
                rooms.by_tenant.insert(tenant, room.clone());
                if let Some(channels) = &rooms.channels {
                    channels.listen(keys::new_events(tenant));
                }
                self.0.tasks.spawn(Reader { inner: self.0.clone(), tenant, room: room.clone() }.run());
                (room, events)
            }
        };
        // Read after subscribing: what was sent before is not above it.
        let known = head.max(room.last.load(Ordering::Acquire));
        Follow { readers: self.clone(), tenant, room, events, last, known, ready: VecDeque::new() }
    }
}

impl Inner {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a room that nobody follows. Under the lock: a follower that comes later finds none and makes another.
    fn close(&self, tenant: TenantId, room: &Room) -> bool {
        let mut rooms = self.rooms();
        if room.events.receiver_count() > 0 {
            return false;
        }
        rooms.by_tenant.remove(&tenant);
        if let Some(channels) = &rooms.channels {
            channels.ignore(keys::new_events(tenant));
        }
        if rooms.by_tenant.is_empty() {
            rooms.channels = None;
        }
        true
    }
}

/// Tells the readers what the channels say. Ends with the channels.
async fn hear(inner: Arc<Inner>, mut ears: Ears) {
    while let Some(heard) = ears.next().await {
        let rooms = inner.rooms();
        let room = |channel: &str| keys::last_part(channel).and_then(|tenant: TenantId| rooms.by_tenant.get(&tenant));
        match heard {
            Heard::Message { channel, text } if text.starts_with('{') => {
                if let (Some(room), Ok(told)) = (room(&channel), serde_json::from_str(&text)) {
                    let _ = room.told.send(Arc::new(told));
                }
            }
            Heard::Message { channel, text } => {
                if let Some(room) = room(&channel) {
                    room.tail.fetch_max(text.parse().unwrap_or(0), Ordering::AcqRel);
                    room.news.notify_one();
                }
            }
            Heard::Listening(channel) => {
                if let Some(room) = room(&channel) {
                    room.hears(true);
                }
            }
            Heard::Lost => rooms.by_tenant.values().for_each(|room| room.hears(false)),
        }
    }
}

impl Room {
    fn new(events: broadcast::Sender<Arc<Logged>>, last: i64) -> Self {
        Self {
            events,
            told: broadcast::Sender::new(TOLD),
            last: AtomicI64::new(last),
            tail: AtomicI64::new(0),
            listening: AtomicBool::new(false),
            compare: AtomicBool::new(false),
            news: Notify::new(),
        }
    }
    fn hears(&self, yes: bool) {
        self.listening.store(yes, Ordering::Release);
        self.compare.store(true, Ordering::Release);
        self.news.notify_one();
    }
}

/// Reads one tenant's log while somebody follows it.
struct Reader {
    inner: Arc<Inner>,
    tenant: TenantId,
    room: Arc<Room>,
}

impl Reader {
    async fn run(self) {
        loop {
            let pause = if self.room.listening.load(Ordering::Acquire) { COMPARE_EVERY } else { POLL_EVERY };
            let news = tokio::select! {
                () = self.room.events.closed() => {
                    if self.inner.close(self.tenant, &self.room) {
                        return;
                    }
                    continue;
                }
                () = self.room.news.notified() => true,
                () = tokio::time::sleep(pause) => false,
            };
            let compare = self.room.compare.swap(false, Ordering::AcqRel);
            if news && !compare {
                self.read_stream().await;
            }
            let behind = compare || !news || self.last() < self.room.tail.load(Ordering::Acquire);
            if behind && let Err(error) = self.read_log().await {
                tracing::warn!(%error, tenant = %self.tenant, "log not read");
                tokio::time::sleep(POLL_EVERY).await;
                self.room.compare.store(true, Ordering::Release);
                self.room.news.notify_one();
            }
        }
    }

    fn last(&self) -> i64 {
        self.room.last.load(Ordering::Acquire)
    }

    fn say(&self, event: Event, asked: Instant) {
        self.room.last.store(event.seq, Ordering::Release);
        // Nobody listens: the reader is about to end.
        let _ = self.room.events.send(Logged::read(event, asked));
    }

    /// As far as the stream continues without a hole.
    async fn read_stream(&self) {
        loop {
            let (from, asked) = (format!("{}-0", self.last() + 1), Instant::now());
            let mut ask = redis::cmd("XRANGE");
            ask.arg(keys::events(self.tenant)).arg(from).arg("+").arg("COUNT").arg(PAGE);
            let Ok(page) = ask.query_async::<StreamRangeReply>(&mut self.inner.redis.shared()).await else { return };
            if page.ids.is_empty() {
                return;
            }
            for entry in page.ids {
                let event = entry.get::<String>("e").and_then(|json| serde_json::from_str::<Event>(&json).ok());
                match event {
                    Some(event) if event.seq == self.last() + 1 => self.say(event, asked),
                    // A hole, or an event that only newer services know: Postgres decides.
                    Some(_) | None => return,
                }
            }
        }
    }

    async fn read_log(&self) -> Result<(), StoreError> {
        let pool = &self.inner.pool;
        let head = store::counters::head(pool, self.tenant).await?;
        if head < self.last() {
            // What it had committed, and lost.
            let told = [(self.last(), None)];
            if let Err(error) = restored::mend_told(pool, &self.inner.redis, self.tenant, &told, head).await {
                tracing::warn!(%error, tenant = %self.tenant, "a log that went back is not mended yet");
            }
        }
        while self.last() < head {
            let (last, asked) = (self.last(), Instant::now());
            let page = store::counters::after(pool, self.tenant, last, PAGE).await?;
            if page.is_empty() {
                // At least a page of numbers that say nothing here: of unknown types, or dropped.
                self.room.last.store(head.min(last + PAGE), Ordering::Release);
            }
            page.into_iter().for_each(|event| self.say(event, asked));
        }
        Ok(())
    }
}

/// A follower of a tenant's log.
pub struct Follow {
    readers: Readers,
    tenant: TenantId,
    room: Arc<Room>,
    events: broadcast::Receiver<Arc<Logged>>,
    /// What has been given out.
    last: i64,
    /// What is known to exist.
    known: i64,
    ready: VecDeque<Arc<Logged>>,
}

impl Follow {
    /// The next event. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Arc<Logged> {
        loop {
            if let Some(event) = self.take_ready() {
                return event;
            }
            if self.known > self.last {
                self.fetch().await;
                continue;
            }
            match self.events.recv().await {
                Ok(event) if event.seq == self.last + 1 && event.is_fresh() => {
                    self.last = event.seq;
                    self.known = self.known.max(event.seq);
                    return event;
                }
                Ok(event) => self.known = self.known.max(event.seq),
                Err(broadcast::error::RecvError::Lagged(_)) => self.known = self.known.max(self.room.last.load(Ordering::Acquire)),
                Err(broadcast::error::RecvError::Closed) => *self = self.readers.join(self.tenant, self.last, self.known),
            }
        }
    }

    /// The next event and those that are there behind it, at most `most`. May be dropped and called again: nothing is lost.
    pub async fn batch(&mut self, most: usize) -> Vec<Arc<Logged>> {
        let mut events = vec![self.next().await];
        while events.len() < most {
            if let Some(event) = self.take_ready() {
                events.push(event);
                continue;
            }
            match self.events.try_recv() {
                Ok(event) if event.seq == self.last + 1 && self.known <= self.last && event.is_fresh() => {
                    self.last = event.seq;
                    self.known = event.seq;
                    events.push(event);
                }
                // `next` says what to make of it.
                Ok(event) => {
                    self.known = self.known.max(event.seq);
                    break;
                }
                Err(_) => break,
            }
        }
        events
    }

    /// What was fetched, while it may be told as it is; after that it is known to exist, and fetched again.
    fn take_ready(&mut self) -> Option<Arc<Logged>> {
        let event = self.ready.pop_front()?;
        if event.is_fresh() {
            self.last = event.seq;
            return Some(event);
        }
        self.known = self.known.max(self.ready.back().unwrap_or(&event).seq);
        self.ready.clear();
        None
    }

    /// What is told from now on and is in no log.
    pub fn told(&self) -> broadcast::Receiver<Arc<Ephemeral>> {
        self.room.told.subscribe()
    }

    /// Up to where the follower has judged: the last event given out.
    pub const fn last(&self) -> i64 {
        self.last
    }

    /// The last event that is known to exist.
    pub fn head(&self) -> i64 {
        self.known.max(self.room.last.load(Ordering::Acquire))
    }

    async fn fetch(&mut self) {
        let (asked, pool) = (Instant::now(), &self.readers.0.pool);
        // The head first: a number up to it that is not there then never will be. One above it was lost, and something else may come under it.
        let page = async {
            let head = store::counters::head(pool, self.tenant).await?;
            Ok::<_, StoreError>((head, store::counters::after(pool, self.tenant, self.last, PAGE).await?))
        };
        match page.await.map(|(head, page)| (head.max(self.last), page)) {
            Ok((head, page)) if page.is_empty() => {
                self.known = self.known.min(head);
                self.last = self.known.min(self.last + PAGE);
            }
            Ok((_, page)) => self.ready.extend(page.into_iter().map(|event| Logged::read(event, asked))),
            Err(error) => {
                tracing::warn!(%error, tenant = %self.tenant, "log not read");
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }
}
