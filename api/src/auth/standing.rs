//! Whether the holder of a credential still counts, asked of the database at most once a second and credential.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use store::{PgPool, keys, users};

use super::Credential;

/// How old an answer may be. Disabling a user, revoking a key, a logout or a suspended tenant shows after this at the latest.
/// Less than the second that is promised: streams ask every 200 ms, and both together must fit into it.
const FRESH: Duration = Duration::from_millis(750);
/// Above this many entries the stale ones are dropped.
const MANY: usize = 4096;

/// What is known of a credential.
#[derive(Debug, Clone)]
pub enum Known {
    /// Of an access token: its user and login.
    User(users::Status),
    /// Of a key.
    Key(Arc<keys::Status>),
}

/// The cache.
#[derive(Default)]
pub struct Standings(Mutex<HashMap<Credential, (Instant, Known)>>);

impl Standings {
    /// How the credential is, and the time by the database's clock. `None`: nobody has it.
    ///
    /// # Errors
    /// Where the database does not answer; then nobody is let in.
    pub async fn of(&self, pool: &PgPool, credential: Credential) -> store::Result<Option<(Known, DateTime<Utc>)>> {
        if let Some((at, known)) = self.cached(credential) {
            let now = known.now() + at.elapsed();
            return Ok(Some((known, now)));
        }
        // Taken before the question: an answer may be late, never younger than it says.
        let asked = Instant::now();
        let known = match credential {
            Credential::Token { tenant, user, login, .. } => users::status(pool, tenant, user, login).await?.map(Known::User),
            Credential::Key { id, hash } => keys::status(pool, id, &hash).await?.map(|status| Known::Key(Arc::new(status))),
        };
        let Some(known) = known else { return Ok(None) };
        let now = known.now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MANY {
            entries.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        entries.insert(credential, (asked, known.clone()));
        Ok(Some((known, now)))
    }

    /// Forgets, at once, what this process itself has changed; other processes learn of it within a second.
    pub fn forget(&self, which: impl Fn(&Credential) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|credential, _| !which(credential));
    }

    fn cached(&self, credential: Credential) -> Option<(Instant, Known)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&credential).filter(|(at, _)| at.elapsed() < FRESH).cloned()
    }
}
