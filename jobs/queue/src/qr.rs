//! The code to scan. It lives as long as it can be scanned, and nowhere else.

use std::time::Duration;

use contract::{SessionId, TenantId};

use crate::{
    keys,
    lease::millis,
    redis::{QueueError, Redis},
};

/// A code that can be scanned now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qr {
    /// What the picture says.
    pub code: String,
    /// For how long.
    pub expires_in: Duration,
}

/// Shows a code for `lasts`.
///
/// # Errors
/// [`QueueError`].
pub async fn write(redis: &Redis, tenant: TenantId, session: SessionId, code: &str, lasts: Duration) -> Result<(), QueueError> {
    let mut set = redis::cmd("SET");
    set.arg(keys::qr(tenant, session)).arg(code).arg("PX").arg(millis(lasts).max(1));
    Ok(set.query_async(&mut redis.shared()).await?)
}

/// The code, where there is one.
///
/// # Errors
/// [`QueueError`].
pub async fn read(redis: &Redis, tenant: TenantId, session: SessionId) -> Result<Option<Qr>, QueueError> {
    let key = keys::qr(tenant, session);
    let mut both = redis::pipe();
    both.get(&key).pttl(&key);
    let (code, left): (Option<String>, i64) = both.query_async(&mut redis.shared()).await?;
    // Negative: it ran out between the two.
    Ok(code.zip(u64::try_from(left).ok()).map(|(code, left)| Qr { code, expires_in: Duration::from_millis(left) }))
}

/// Takes the code away: it was scanned, or the browser is gone.
///
/// # Errors
/// [`QueueError`].
pub async fn clear(redis: &Redis, tenant: TenantId, session: SessionId) -> Result<(), QueueError> {
    Ok(redis::cmd("DEL").arg(keys::qr(tenant, session)).query_async(&mut redis.shared()).await?)
}
