//! News of webhooks, for the workers that tell them: a webhook's settings, cursor or errands have changed. A hint that may be missed.

use contract::WebhookId;
use tokio_util::task::TaskTracker;

use crate::{
    channels::{Channels, Ears, Heard},
    keys,
    redis::{QueueError, Redis},
};

/// Tells the workers that something about a webhook has changed.
///
/// # Errors
/// [`QueueError`]; the workers look for themselves, a little later.
pub async fn wake(redis: &Redis, webhook: WebhookId) -> Result<(), QueueError> {
    Ok(redis::cmd("PUBLISH").arg(keys::HOOKS).arg(webhook.to_string()).query_async(&mut redis.shared()).await?)
}

/// A listener.
pub struct News {
    ears: Ears,
    _channels: Channels,
}

/// Listens, as soon as Redis is there.
///
/// # Errors
/// Where the connection cannot be prepared.
pub fn listen(redis: &Redis, tasks: &TaskTracker) -> Result<News, QueueError> {
    let (channels, ears) = Channels::open(redis, tasks)?;
    channels.listen(keys::HOOKS.to_owned());
    Ok(News { ears, _channels: channels })
}

impl News {
    /// The webhook that something is new about. Ends with the process.
    pub async fn next(&mut self) -> Option<WebhookId> {
        loop {
            if let Heard::Message { text, .. } = self.ears.next().await?
                && let Ok(webhook) = text.parse()
            {
                return Some(webhook);
            }
        }
    }
}
