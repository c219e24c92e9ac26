//! Channels that a process listens to, over one connection that comes back by itself.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value, aio::ConnectionManager};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::redis::{QueueError, Redis};

/// Pause before a subscription that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a listener hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// From now on nothing on this channel is missed; what came before may have been. Said again after each reconnection.
    Listening(String),
    /// A message.
    Message {
        /// On which channel.
        channel: String,
        /// What it says.
        text: String,
    },
    /// The connection is gone: messages are being missed.
    Lost,
}

/// The channels to listen to. Changes are carried out one after the other, so that leaving a channel never undoes a later wish to hear it.
pub(crate) struct Channels {
    wanted: Arc<Mutex<HashSet<String>>>,
    changes: mpsc::UnboundedSender<String>,
    connection: ConnectionManager,
}

/// What comes in. Ends when the [`Channels`] are gone.
pub(crate) struct Ears(mpsc::UnboundedReceiver<PushInfo>);

impl Channels {
    pub(crate) fn open(redis: &Redis, tasks: &TaskTracker) -> Result<(Self, Ears), QueueError> {
        let (connection, ears) = redis.listening()?;
        let wanted = Arc::new(Mutex::new(HashSet::new()));
        let (changes, todo) = mpsc::unbounded_channel();
        tasks.spawn(carry_out(connection.clone(), wanted.clone(), todo));
        Ok((Self { wanted, changes, connection }, Ears(ears)))
    }

    pub(crate) fn listen(&self, channel: String) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.clone());
        let _ = self.changes.send(channel);
    }

    pub(crate) fn ignore(&self, channel: String) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
        let _ = self.changes.send(channel);
    }

    /// Whether the connection answers. One that went silent without a farewell is noticed here, and made again.
    pub(crate) async fn answers(&self) -> bool {
        let mut connection = self.connection.clone();
        let ping = redis::cmd("PING");
        let pong = tokio::time::timeout(Duration::from_secs(3), ping.query_async::<Value>(&mut connection)).await;
        matches!(pong, Ok(Ok(_)))
    }
}

async fn carry_out(mut connection: ConnectionManager, wanted: Arc<Mutex<HashSet<String>>>, mut todo: mpsc::UnboundedReceiver<String>) {
    while let Some(channel) = todo.recv().await {
        loop {
            if todo.is_closed() {
                return;
            }
            let listen = wanted.lock().unwrap_or_else(PoisonError::into_inner).contains(&channel);
            // While Redis is away the connection waits for it; the end of the process must not wait along.
            let done = async { if listen { connection.subscribe(&channel).await } else { connection.unsubscribe(&channel).await } };
            match tokio::time::timeout(Duration::from_secs(5), done).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::debug!(%error, channel, "not subscribed yet"),
                Err(_) => tracing::debug!(channel, "not subscribed yet"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Ears {
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = heard(self.0.recv().await?) {
                return Some(heard);
            }
        }
    }

    /// What has come in already.
    pub(crate) fn waiting(&mut self) -> Option<Heard> {
        std::iter::from_fn(|| self.0.try_recv().ok()).find_map(heard)
    }
}

fn heard(push: PushInfo) -> Option<Heard> {
    let text = |n: usize| match push.data.get(n) {
        Some(Value::BulkString(bytes)) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    match push.kind {
        PushKind::Message => text(0).zip(text(1)).map(|(channel, text)| Heard::Message { channel, text }),
        PushKind::Subscribe => text(0).map(Heard::Listening),
        PushKind::Disconnection => Some(Heard::Lost),
        _ => None,
    }
}
