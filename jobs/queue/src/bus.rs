//! Messages from Redis: one connection a process, any number of listeners. A message is a hint; so is every (re)subscription, because
//! something may have been published while nobody was listening.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redis::{
    PushInfo, PushKind, Value,
    aio::{ConnectionManager, SendError},
};
use tokio::sync::mpsc;

use crate::redis::{QueueError, patient};

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Message(String),
    /// The subscription stands (again): look for what was missed.
    Subscribed,
}

type Listeners = Arc<Mutex<HashMap<String, Vec<mpsc::UnboundedSender<Heard>>>>>;

/// The connection for messages.
#[derive(Clone)]
pub struct Bus {
    connection: ConnectionManager,
    listeners: Listeners,
}

fn lock(listeners: &Listeners) -> MutexGuard<'_, HashMap<String, Vec<mpsc::UnboundedSender<Heard>>>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub(crate) fn connect(url: &str) -> Result<Self, QueueError> {
        let separator = if url.contains('?') { '&' } else { '?' };
        // Messages come as pushes, which only this protocol has.
        let client = ::redis::Client::open(format!("{url}{separator}protocol=resp3"))?;
        let listeners = Listeners::default();
        let heard = listeners.clone();
        let push = move |info: PushInfo| {
            dispatch(&heard, &info);
            Ok::<(), SendError>(())
        };
        let config = patient().set_push_sender(push).set_automatic_resubscription();
        Ok(Self { connection: ConnectionManager::new_lazy_with_config(client, config)?, listeners })
    }

    /// Hears a channel from now on. The subscription is repeated until Redis has taken it; dropping the receiver ends it.
    pub fn listen(&self, channel: String) -> mpsc::UnboundedReceiver<Heard> {
        let (tx, rx) = mpsc::unbounded_channel();
        lock(&self.listeners).entry(channel.clone()).or_default().push(tx.clone());
        let mut connection = self.connection.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its listener; nothing waits for it at shutdown")]
        tokio::spawn(async move {
            while !tx.is_closed() {
                match connection.subscribe(&channel).await {
                    Ok(()) => {
                        let _ = tx.send(Heard::Subscribed);
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "not subscribed yet"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        rx
    }

    /// Gives up a channel that nobody listens to any more.
    pub fn forget(&self, channel: &str) {
        let unused = {
            let mut listeners = lock(&self.listeners);
            let left = listeners.get_mut(channel).map(|l| {
                l.retain(|tx| !tx.is_closed());
                l.len()
            });
            left == Some(0) && listeners.remove(channel).is_some()
        };
        if unused {
            let (mut connection, channel) = (self.connection.clone(), channel.to_owned());
            #[expect(clippy::disallowed_methods, reason = "one command; nothing waits for it at shutdown")]
            tokio::spawn(async move {
                let _ = connection.unsubscribe(channel).await;
            });
        }
    }
}

fn dispatch(listeners: &Listeners, info: &PushInfo) {
    let text = |i: usize| match info.data.get(i) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
        Some(Value::SimpleString(text)) => Some(text.as_str()),
        _ => None,
    };
    let Some(channel) = text(0) else { return };
    let heard = match info.kind {
        PushKind::Message => Heard::Message(text(1).unwrap_or_default().to_owned()),
        PushKind::Subscribe => Heard::Subscribed,
        _ => return,
    };
    if let Some(list) = lock(listeners).get_mut(channel) {
        list.retain(|tx| tx.send(heard.clone()).is_ok());
    }
}
