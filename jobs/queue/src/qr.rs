//! The code to scan. It lives as long as it can be scanned, and nowhere else.

use std::time::Duration;

use chrono::DateTime;
use contract::{Ephemeral, EventId, Fact, SessionId, TenantId, Timestamp, event::SessionQrBody};

use crate::{
    events, keys,
    lease::{Lease, millis},
    redis::{QueueError, Redis},
    scripts,
};

/// A code that can be scanned now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qr {
    /// What the picture says.
    pub code: String,
    /// For how long.
    pub expires_in: Duration,
}

/// Shows a code for `lasts`, and tells it to whoever listens. Without effect where the lease is no longer ours.
///
/// # Errors
/// [`QueueError`].
pub async fn write(redis: &Redis, lease: &Lease, code: &str, lasts: Duration) -> Result<(), QueueError> {
    let shown_at = change(redis, lease, code, millis(lasts).max(1)).await?;
    let (Some(timestamp), held) = (DateTime::from_timestamp_millis(shown_at).filter(|_| shown_at > 0), lease.held()) else { return Ok(()) };
    let fact = Fact::SessionQr(SessionQrBody { qr: code.to_owned(), expires_at: Timestamp(timestamp + lasts) });
    let told = Ephemeral {
        id: EventId::new(),
        seq: (),
        kind: fact.kind(),
        timestamp,
        tenant: held.tenant(),
        session: Some(held.session()),
        chat: None,
        data: fact.data(),
    };
    events::tell(redis, &told).await
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

/// Takes the code away: it was scanned, or the browser is gone. Without effect where the lease is no longer ours.
///
/// # Errors
/// [`QueueError`].
pub async fn clear(redis: &Redis, lease: &Lease) -> Result<(), QueueError> {
    change(redis, lease, "", 1).await.map(drop)
}

async fn change(redis: &Redis, lease: &Lease, code: &str, ms: u64) -> Result<i64, QueueError> {
    let held = lease.held();
    let mut call = scripts::QR.key(lease.key());
    call.key(keys::qr(held.tenant(), held.session())).arg(lease.value()).arg(code).arg(ms);
    call.arg(keys::code_wake(held.tenant(), held.session()));
    Ok(call.invoke_async(&mut redis.shared()).await?)
}
