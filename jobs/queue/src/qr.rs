//! The code that a session shows now. It lives in Redis only, and not longer than WhatsApp shows it.

use std::time::Duration;

use contract::{SessionId, TenantId};

use crate::{QueueError, Redis, keys};

/// A code and how long it can still be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qr {
    /// The text of the QR code.
    pub code: String,
    /// Until WhatsApp shows another one.
    pub expires_in: Duration,
}

/// Shows a code.
///
/// # Errors
/// [`QueueError`].
pub async fn write(redis: &Redis, tenant: TenantId, session: SessionId, code: &str, ttl: Duration) -> Result<(), QueueError> {
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
    ::redis::cmd("SET").arg(keys::qr(tenant, session)).arg(code).arg("PX").arg(ms).query_async::<()>(&mut redis.commands()).await?;
    Ok(())
}

/// The code of now.
///
/// # Errors
/// [`QueueError`].
pub async fn read(redis: &Redis, tenant: TenantId, session: SessionId) -> Result<Option<Qr>, QueueError> {
    let key = keys::qr(tenant, session);
    let (code, ms): (Option<String>, i64) =
        ::redis::pipe().cmd("GET").arg(&key).cmd("PTTL").arg(&key).query_async(&mut redis.commands()).await?;
    Ok(code.map(|code| Qr { code, expires_in: Duration::from_millis(u64::try_from(ms).unwrap_or(0)) }))
}

/// No code any more.
///
/// # Errors
/// [`QueueError`].
pub async fn clear(redis: &Redis, tenant: TenantId, session: SessionId) -> Result<(), QueueError> {
    ::redis::cmd("DEL").arg(keys::qr(tenant, session)).query_async::<()>(&mut redis.commands()).await?;
    Ok(())
}
