//! What a tenant may do in a time, and how much it may hold open at once, counted over all processes.
//!
//! A hint like all of Redis: where it does not answer, nobody is refused. What protects people is kept in Postgres.

use std::time::Duration;

use contract::TenantId;
use uuid::Uuid;

use crate::{
    keys,
    lease::millis,
    redis::{QueueError, Redis},
    scripts,
};

/// So many in so long: a bucket that fills evenly.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its name, unique within the tenant.
    pub name: &'static str,
    /// How many.
    pub quota: i64,
    /// In how long.
    pub every: Duration,
}

/// A window after it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many are left now.
    pub left: i64,
    /// When one more will be.
    pub next: Duration,
}

/// Takes one of each window, or of none. Answers whether it did, and how each of them is now.
///
/// # Errors
/// [`QueueError`]: nothing was counted.
pub async fn take(redis: &Redis, tenant: TenantId, windows: &[Window]) -> Result<(bool, Vec<Left>), QueueError> {
    let mut script = scripts::BUCKETS.prepare_invoke();
    for window in windows {
        script.key(keys::limit(tenant, window.name)).arg(window.quota).arg(millis(window.every));
    }
    let (taken, lefts): (i64, Vec<(i64, u64)>) = script.invoke_async(&mut redis.shared()).await?;
    Ok((taken == 1, lefts.into_iter().map(|(left, next)| Left { left, next: Duration::from_millis(next) }).collect()))
}

/// Something held open: a stream, a waiting request.
#[derive(Debug, Clone)]
pub struct Held {
    tenant: TenantId,
    what: &'static str,
    principal: Uuid,
    id: Uuid,
}

/// How many may be held open.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// By all of the tenant.
    pub tenant: i64,
    /// By one principal.
    pub principal: i64,
}

impl Held {
    /// One more of `what`; not yet counted.
    pub fn new(tenant: TenantId, what: &'static str, principal: Uuid) -> Self {
        Self { tenant, what, principal, id: Uuid::now_v7() }
    }

    /// Of what it is one.
    pub const fn what(&self) -> &'static str {
        self.what
    }

    fn keys(&self) -> [String; 2] {
        [keys::held(self.tenant, self.what, None), keys::held(self.tenant, self.what, Some(self.principal))]
    }

    /// Counts it for `lasts`, or again if it is counted. `false`: as many are held as may be.
    ///
    /// # Errors
    /// [`QueueError`]: it is not counted.
    pub async fn count(&self, redis: &Redis, most: Most, lasts: Duration) -> Result<bool, QueueError> {
        let mut script = scripts::HOLD.prepare_invoke();
        for key in self.keys() {
            script.key(key);
        }
        script.arg(self.id.to_string()).arg(millis(lasts)).arg(most.tenant).arg(most.principal);
        Ok(script.invoke_async::<i64>(&mut redis.shared()).await? == 1)
    }

    /// Counts it no longer. What is never released runs out.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn release(&self, redis: &Redis) -> Result<(), QueueError> {
        let mut both = redis::pipe();
        for key in self.keys() {
            both.zrem(key, self.id.to_string()).ignore();
        }
        Ok(both.query_async(&mut redis.shared()).await?)
    }
}
