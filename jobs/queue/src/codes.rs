//! Waiting for a session's code to change: whoever shows one is woken, and polls nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use contract::{SessionId, TenantId};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    channels::{Channels, Ears, Heard},
    keys,
    redis::Redis,
};

/// Who waits for codes in this process. Clones share it. One connection for all, which ends with the last who waits.
#[derive(Clone)]
pub struct Codes(Arc<Inner>);

struct Inner {
    redis: Redis,
    tasks: TaskTracker,
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    by_session: HashMap<SessionId, (watch::Sender<()>, usize)>,
    channels: Option<Channels>,
}

/// Somebody who waits. What changed since it was made is not missed, as long as Redis answers.
pub struct Waiting {
    inner: Arc<Inner>,
    channel: String,
    session: SessionId,
    news: watch::Receiver<()>,
}

impl Codes {
    /// Nobody waits yet. `tasks` runs what listens.
    pub fn new(redis: Redis, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner { redis, tasks, rooms: Mutex::default() }))
    }

    /// From here on changes are heard.
    pub fn watch(&self, tenant: TenantId, session: SessionId) -> Waiting {
        let channel = keys::code_wake(tenant, session);
        let mut rooms = self.0.rooms();
        if rooms.channels.is_none()
            && let Ok((channels, ears)) = Channels::open(&self.0.redis, &self.0.tasks)
        {
            self.0.tasks.spawn(hear(Arc::downgrade(&self.0), ears));
            rooms.channels = Some(channels);
        }
        let (sender, waiting) = rooms.by_session.entry(session).or_insert_with(|| (watch::Sender::new(()), 0));
        *waiting += 1;
        let (news, first) = (sender.subscribe(), *waiting == 1);
        if let Some(channels) = rooms.channels.as_ref().filter(|_| first) {
            channels.listen(channel.clone());
        }
        Waiting { inner: self.0.clone(), channel, session, news }
    }
}

impl Inner {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The next change, or one that may have been missed. May be dropped and called again.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut rooms = self.inner.rooms();
        let Some((_, waiting)) = rooms.by_session.get_mut(&self.session) else { return };
        *waiting -= 1;
        if *waiting > 0 {
            return;
        }
        rooms.by_session.remove(&self.session);
        if let Some(channels) = &rooms.channels {
            channels.ignore(std::mem::take(&mut self.channel));
        }
        if rooms.by_session.is_empty() {
            rooms.channels = None;
        }
    }
}

/// Ends with the channels.
async fn hear(inner: Weak<Inner>, mut ears: Ears) {
    while let Some(heard) = ears.next().await {
        let Some(inner) = inner.upgrade() else { return };
        let (Heard::Listening(channel) | Heard::Message { channel, .. }) = heard else { continue };
        let Some(session) = keys::last_part::<SessionId>(&channel) else { continue };
        if let Some((news, _)) = inner.rooms().by_session.get(&session) {
            news.send_replace(());
        }
    }
}
