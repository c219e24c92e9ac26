//! What is kept for a minute or three and nowhere else: pairing codes and pictures of pages.

use std::time::Duration;

use contract::{JobId, MediaId, SessionId, TenantId};
use uuid::Uuid;

use crate::{
    keys,
    lease::{Lease, millis},
    redis::{QueueError, Redis},
    scripts,
};

/// How long WhatsApp takes a pairing code.
pub const CODE_LASTS: Duration = Duration::from_secs(180);
/// How long a picture is kept.
pub const SCREENSHOT_LASTS: Duration = Duration::from_secs(60);

/// Keeps the code that a job got. `false`: the lease is no longer ours.
///
/// # Errors
/// [`QueueError`].
pub async fn keep_code(redis: &Redis, lease: &Lease, job: JobId, code: &str) -> Result<bool, QueueError> {
    keep(redis, lease, keys::pairing_code(lease.held().tenant(), job), code.as_bytes(), CODE_LASTS).await
}

/// The code that a job got, and for how long it counts.
///
/// # Errors
/// [`QueueError`].
pub async fn code(redis: &Redis, tenant: TenantId, job: JobId) -> Result<Option<(String, Duration)>, QueueError> {
    let key = keys::pairing_code(tenant, job);
    let mut both = redis::pipe();
    both.get(&key).pttl(&key);
    let (code, left): (Option<String>, i64) = both.query_async(&mut redis.shared()).await?;
    Ok(code.zip(u64::try_from(left).ok()).map(|(code, left)| (code, Duration::from_millis(left))))
}

/// Keeps a picture, with the session whose page it shows. `false`: the lease is no longer ours.
///
/// # Errors
/// [`QueueError`].
pub async fn keep_screenshot(redis: &Redis, lease: &Lease, id: MediaId, png: &[u8]) -> Result<bool, QueueError> {
    let held = lease.held();
    let bytes = [held.session().uuid().as_bytes(), png].concat();
    keep(redis, lease, keys::screenshot(held.tenant(), id), &bytes, SCREENSHOT_LASTS).await
}

/// A picture of a page.
#[derive(Debug, Clone)]
pub struct Screenshot {
    /// Whose page.
    pub session: SessionId,
    /// The picture.
    pub png: Vec<u8>,
}

/// The picture, while it is kept.
///
/// # Errors
/// [`QueueError`].
pub async fn screenshot(redis: &Redis, tenant: TenantId, id: MediaId) -> Result<Option<Screenshot>, QueueError> {
    let kept: Option<Vec<u8>> = redis::cmd("GET").arg(keys::screenshot(tenant, id)).query_async(&mut redis.shared()).await?;
    Ok(kept.and_then(|bytes| {
        let (session, png) = bytes.split_first_chunk::<16>()?;
        Some(Screenshot { session: SessionId::from_uuid(Uuid::from_bytes(*session)), png: png.to_vec() })
    }))
}

async fn keep(redis: &Redis, lease: &Lease, key: String, bytes: &[u8], lasts: Duration) -> Result<bool, QueueError> {
    let mut call = scripts::OWNED_SET.key(lease.key());
    call.key(key).arg(lease.value()).arg(bytes).arg(millis(lasts));
    Ok(call.invoke_async::<i64>(&mut redis.shared()).await? == 1)
}

/// Takes one of `most` in a window that begins with the first. `Some`: there is none, and when there will be. A Redis that does not answer
/// refuses nobody.
pub async fn over_limit(redis: &Redis, tenant: TenantId, what: &str, most: i64, window: Duration) -> Option<Duration> {
    let key = keys::limit(tenant, what);
    let mut call = scripts::LIMIT.key(key);
    match call.arg(most).arg(millis(window)).invoke_async::<i64>(&mut redis.shared()).await {
        Ok(left) => u64::try_from(left).ok().filter(|ms| *ms > 0).map(Duration::from_millis),
        Err(error) => {
            metrics::counter!("zaguan_limits_not_asked").increment(1);
            tracing::warn!(%error, "a limit was not asked: let through");
            None
        }
    }
}
