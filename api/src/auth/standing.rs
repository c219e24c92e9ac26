//! Whether the holder of a credential still counts, asked of the database at most once a second and credential. Who asks at the same time is
//! answered by the same statement: a thousand streams that look at every fifth of a second cost two statements a look, not a thousand.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::{FutureExt, future::Shared};
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

/// When it was asked, and what was answered. `None`: nobody has it.
type Answer = (Instant, Option<Known>);
type Answers = Arc<HashMap<Credential, Answer>>;
/// Whoever waits for it drives it on. `None`: the database did not answer.
type Asking = Shared<Pin<Box<dyn Future<Output = Option<Answers>> + Send>>>;

/// The cache.
#[derive(Default)]
pub struct Standings(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    known: HashMap<Credential, (Instant, Known)>,
    /// What is about to be asked, and the question that will ask it.
    next: Option<(Vec<Credential>, Asking)>,
}

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
        let asking = self.join(pool, credential);
        let (asked, known) = match asking.await.and_then(|answers| answers.get(&credential).cloned()) {
            Some(answer) => answer,
            // By itself, for an error of its own.
            None => (Instant::now(), ask(pool, &[credential]).await?.remove(&credential).flatten()),
        };
        let Some(known) = known else { return Ok(None) };
        let now = known.now();
        let mut inner = lock(&self.0);
        if inner.known.len() >= MANY {
            inner.known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        inner.known.insert(credential, (asked, known.clone()));
        Ok(Some((known, now)))
    }

    /// Forgets, at once, what this process itself has changed; other processes learn of it within a second.
    pub fn forget(&self, which: impl Fn(&Credential) -> bool) {
        let mut inner = lock(&self.0);
        inner.known.retain(|credential, _| !which(credential));
    }

    fn cached(&self, credential: Credential) -> Option<(Instant, Known)> {
        lock(&self.0).known.get(&credential).filter(|(at, _)| at.elapsed() < FRESH).cloned()
    }

    /// The question that will ask for it, which has not been asked yet.
    fn join(&self, pool: &PgPool, credential: Credential) -> Asking {
        let mut inner = lock(&self.0);
        let (all, asking) = inner.next.get_or_insert_with(|| (Vec::new(), self.question(pool.clone())));
        all.push(credential);
        asking.clone()
    }

    fn question(&self, pool: PgPool) -> Asking {
        let inner = self.0.clone();
        let question = async move {
            // Whoever is ready to ask as well comes first.
            tokio::task::yield_now().await;
            let (all, _) = lock(&inner).next.take()?;
            // Taken before the question: an answer may be late, never younger than it says.
            let asked = Instant::now();
            let answers = ask(&pool, &all).await.ok()?.into_iter().map(|(credential, known)| (credential, (asked, known)));
            Some(Arc::new(answers.collect::<HashMap<Credential, Answer>>()))
        };
        question.boxed().shared()
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for all of them, by a statement for logins and one for keys.
async fn ask(pool: &PgPool, all: &[Credential]) -> store::Result<HashMap<Credential, Option<Known>>> {
    let (mut people, mut logins, mut machines, mut secrets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for credential in all {
        match *credential {
            Credential::Token { tenant, user, login, .. } => {
                people.push(*credential);
                logins.push((tenant, user, login));
            }
            Credential::Key { id, hash } => {
                machines.push(*credential);
                secrets.push((id, hash));
            }
        }
    }
    let mut answers = HashMap::with_capacity(all.len());
    if !logins.is_empty() {
        let known = users::statuses(pool, &logins).await?.into_iter().map(|status| status.map(Known::User));
        answers.extend(people.into_iter().zip(known));
    }
    if !secrets.is_empty() {
        let known = keys::statuses(pool, &secrets).await?.into_iter().map(|status| status.map(|status| Known::Key(Arc::new(status))));
        answers.extend(machines.into_iter().zip(known));
    }
    Ok(answers)
}
