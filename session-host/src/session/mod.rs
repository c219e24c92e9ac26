//! One actor a session: page events and wishes in, state and records out; jobs run beside it against the same shared state.
//!
//! The actor owns the browser and the session's state. [`Shared`] is what jobs see of it. The [`recorder`] is the only writer of what the
//! page reports, so that facts reach the log in the order in which they were heard.

mod acks;
mod actor;
mod executor;
mod messages;
mod people;
mod recipient;
mod recorder;

use std::sync::{Arc, Mutex, PoisonError};

use contract::{SessionId, SessionState, Timings};
use queue::{Hub, Lease, Redis};
use store::PgPool;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use actor::run;
pub use executor::execute;

use crate::browser::{Browser, BrowserEnv};

/// What every session of a host uses.
#[derive(Clone)]
pub struct Services {
    /// The database.
    pub pool: PgPool,
    /// Redis.
    pub redis: Redis,
    /// Lanes and leases.
    pub hub: Arc<Hub>,
    /// Programs and directories.
    pub browsers: Arc<BrowserEnv>,
    /// All durations.
    pub timings: Arc<Timings>,
    /// At most two browsers start at a time.
    pub starts: Arc<tokio::sync::Semaphore>,
    /// Tasks that a drain waits for.
    pub tasks: TaskTracker,
}

/// Why a session is to be given up. A later reason may only be graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Nobody asked.
    None,
    /// Its tenant wants it stopped.
    Stop,
    /// The host is leaving: close cleanly, hand over.
    Drain,
    /// The lease is gone or nearly: no write, no grace.
    Fence,
}

/// A receipt as jobs wait for it: id part and ack.
type Seen = (String, i16);

/// A session as jobs and the host see it.
pub struct Shared {
    /// Its lease.
    pub lease: Lease,
    services: Services,
    working: watch::Sender<bool>,
    browser: Mutex<Option<Browser>>,
    browser_changed: Notify,
    acks: broadcast::Sender<Seen>,
    records: mpsc::Sender<recorder::Record>,
    /// People as they were last written down.
    people: tokio::sync::Mutex<people::Known>,
    /// Receipts and outcomes are read and written by turns.
    writing: tokio::sync::Mutex<()>,
    ending: watch::Sender<Ending>,
    /// Cancelled when nothing may be done for the session any more.
    gone: CancellationToken,
}

impl Shared {
    /// Which session.
    pub fn session(&self) -> SessionId {
        self.lease.held().session()
    }

    /// The browser of now, where there is one.
    pub fn browser(&self) -> Option<Browser> {
        self.browser.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the actor to end; a graver reason replaces a lighter one.
    pub fn end(&self, why: Ending) {
        self.ending.send_if_modified(|now| {
            let graver = why > *now;
            if graver {
                *now = why;
            }
            graver
        });
    }

    /// Woken when a browser came or went: the guard must hear of it.
    pub async fn browser_changed(&self) {
        self.browser_changed.notified().await;
    }

    fn set_browser(&self, browser: Option<Browser>) {
        *self.browser.lock().unwrap_or_else(PoisonError::into_inner) = browser;
        self.browser_changed.notify_one();
    }
}

/// Takes a claimed session on. The actor ends by releasing or losing the lease; its handle is what the host keeps meanwhile.
pub fn take_on(services: &Services, lease: Lease, on_change: Arc<Notify>) -> (Arc<Shared>, impl Future<Output = ()> + Send + use<>) {
    let (records, record_rx) = mpsc::channel(4096);
    let shared = Arc::new(Shared {
        lease,
        services: services.clone(),
        working: watch::Sender::new(false),
        browser: Mutex::default(),
        browser_changed: Notify::new(),
        acks: broadcast::Sender::new(1024),
        records,
        people: tokio::sync::Mutex::default(),
        writing: tokio::sync::Mutex::default(),
        ending: watch::Sender::new(Ending::None),
        gone: CancellationToken::new(),
    });
    let actor = run(shared.clone(), record_rx, on_change);
    (shared, actor)
}

/// Whether lanes of write and query jobs may run.
fn lanes_open(state: SessionState) -> bool {
    state == SessionState::Working
}
