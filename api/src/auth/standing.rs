//! Whether the holder of a token still counts, asked of the database at most once a second and holder.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use store::{PgPool, users::Status};
use uuid::Uuid;

/// How old an answer may be. Disabling a user, a logout or a suspended tenant shows after this at the latest.
const FRESH: Duration = Duration::from_secs(1);
/// Above this many entries the stale ones are dropped.
const MANY: usize = 4096;

/// The cache.
#[derive(Default)]
pub struct Standings(Mutex<HashMap<(Uuid, Uuid), (Instant, Status)>>);

impl Standings {
    /// The status of a token's holder and login, and the time by the database's clock. `None`: no such user.
    ///
    /// # Errors
    /// Where the database does not answer; then nobody is let in.
    pub async fn of(&self, pool: &PgPool, tenant: TenantId, user: UserId, login: Uuid) -> store::Result<Option<(Status, DateTime<Utc>)>> {
        let key = (user.uuid(), login);
        if let Some((at, status)) = self.cached(key) {
            return Ok(Some((status, status.now + at.elapsed())));
        }
        // Taken before the question: an answer may be late, never younger than it says.
        let asked = Instant::now();
        let Some(status) = store::users::status(pool, tenant, user, login).await? else { return Ok(None) };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MANY {
            entries.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        entries.insert(key, (asked, status));
        Ok(Some((status, status.now)))
    }

    /// Forgets a login at once, where this process ended it.
    pub fn forget(&self, user: Uuid, login: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(user, login));
    }

    fn cached(&self, key: (Uuid, Uuid)) -> Option<(Instant, Status)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key).copied().filter(|(at, _)| at.elapsed() < FRESH)
    }
}
