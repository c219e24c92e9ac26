//! How often something was attempted lately. It slows guessing down; nothing else depends on it, so that whoever asks goes on where Redis
//! does not answer.

use std::time::Duration;

use crate::{
    keys,
    redis::{QueueError, Redis},
    scripts,
};

/// Counts an attempt. Answers how many there were in the window that the first of them began, and how long it lasts still.
///
/// # Errors
/// [`QueueError`]: nobody knows.
pub async fn count(redis: &Redis, what: &str, window: Duration) -> Result<(u64, Duration), QueueError> {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let mut ask = scripts::COUNT.key(keys::throttle(what));
    let (attempts, left) = ask.arg(window).invoke_async::<(u64, i64)>(&mut redis.shared()).await?;
    Ok((attempts, Duration::from_millis(u64::try_from(left).unwrap_or(0))))
}

/// Forgets the attempts: one has succeeded.
///
/// # Errors
/// [`QueueError`]: they are forgotten with their window.
pub async fn forget(redis: &Redis, what: &str) -> Result<(), QueueError> {
    Ok(::redis::cmd("DEL").arg(keys::throttle(what)).query_async(&mut redis.shared()).await?)
}
