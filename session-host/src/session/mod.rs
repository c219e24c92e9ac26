//! One actor a session: page events and wishes in, state and records out; jobs run beside it against the same shared state.
//!
//! The actor owns the browser and the session's state. [`Shared`] is what jobs see of it. The [`recorder`] is the only writer of what the
//! page reports, so that facts reach the log in the order in which they were heard.

mod account;
mod acks;
mod actor;
mod browsing;
mod codes;
mod control;
mod executor;
mod heard;
mod messages;
mod opening;
mod people;
mod recipient;
mod recorder;
mod recycling;
mod snapshots;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::{SessionId, SessionState, Timings};
use queue::{Hub, Lease, Redis};
use service::{objects::Objects, seal::Sealer};
use store::PgPool;
use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use actor::run;
pub use executor::execute;

use crate::browser::{Browser, BrowserEnv};

/// How long a page may fail to read its own rows.
const UNREADABLE_FOR: Duration = Duration::from_secs(15);

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
    /// Where snapshots lie.
    pub objects: Objects,
    /// What opens the tenants' data keys.
    pub sealer: Arc<Sealer>,
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

/// What the page can be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Away,
    /// It asks to be linked.
    Code,
    /// It is linked and connected.
    Linked,
}

/// What a control job asks of the actor.
enum Order {
    /// A new browser. Answered when the old one is about to go.
    Restart(oneshot::Sender<()>),
    /// Unlink the device. Answered when the session's state says so; `false`: the page was not linked, or did not confirm it.
    Logout(oneshot::Sender<bool>),
}

/// A page that cannot read its own rows.
#[derive(Debug, Clone, Copy, Default)]
struct Unread {
    since: Option<Instant>,
    /// For longer than a browser is given.
    too_long: bool,
    /// Browsers in a row that were replaced because of it.
    browsers: u32,
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
    /// Its browser costs too much.
    heavy: watch::Sender<bool>,
    /// Its profile cannot be brought back here, as things are.
    declined: AtomicBool,
    /// That the page cannot read its own rows.
    unread: watch::Sender<Unread>,
    /// A comparison of the page's rows with what is recorded is due: one is enough.
    comparing: AtomicBool,
    /// The row up to which this browser's page was compared; where rows could not be read yet, that is above the mark.
    compared: AtomicU64,
    /// What the page can be asked, and how many browsers were started for the session here.
    page: watch::Sender<(Stage, u64)>,
    orders: mpsc::Sender<Order>,
    /// Control jobs whose outcome is not written yet.
    controls: watch::Sender<usize>,
    /// Set when the actor is through, before it releases the session.
    over: watch::Sender<Option<Ending>>,
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
        // Whoever works for the session hears it at once, wherever it waits.
        if why == Ending::Fence {
            self.gone.cancel();
        }
    }

    /// Woken when a browser came or went: the guard must hear of it.
    pub async fn browser_changed(&self) {
        self.browser_changed.notified().await;
    }

    /// What was found of its browser's cost: one that is too much is replaced once nothing is under way. Whether that is news.
    pub fn weighed(&self, browser: &Browser, heavy: bool) -> bool {
        // Held, so that what was found of one browser is not said of the next.
        let now = self.browser.lock().unwrap_or_else(PoisonError::into_inner);
        let same = now.as_ref().is_some_and(|now| now.pid() == browser.pid());
        same && self.heavy.send_replace(heavy) != heavy && heavy
    }

    fn decline(&self) {
        self.declined.store(true, Ordering::Release);
    }

    /// Whether it was let go of because its profile cannot be brought back here, as things are.
    pub fn declined(&self) -> bool {
        self.declined.load(Ordering::Acquire)
    }

    /// The page cannot read its own rows. For long that has one cure, another browser: Chromium opens no database any more once a disk was full.
    /// Where that did not help, it takes longer and longer until the next one.
    fn rows_unreadable(&self) {
        self.unread.send_modify(|unread| {
            let patience = UNREADABLE_FOR * 2_u32.pow(unread.browsers.min(8));
            unread.too_long = unread.since.get_or_insert_with(Instant::now).elapsed() >= patience;
        });
    }

    fn rows_read(&self) {
        self.unread.send_replace(Unread::default());
    }

    /// Another document or browser may read them. `replaced`: because this one could not.
    fn rows_anew(&self, replaced: bool) {
        self.unread.send_modify(|unread| *unread = Unread { browsers: unread.browsers + u32::from(replaced), ..Unread::default() });
    }

    /// When the page could not read its own rows for too long.
    async fn unwell(&self) {
        let _ = self.unread.subscribe().wait_for(|unread| unread.too_long).await;
    }

    /// Has the page's rows compared with what is recorded, unless that is about to be done.
    fn ask_to_compare(&self) {
        if !self.comparing.swap(true, Ordering::AcqRel) && self.records.try_send(recorder::Record::Compare).is_err() {
            self.comparing.store(false, Ordering::Release);
        }
    }

    fn set_stage(&self, stage: Stage) {
        self.page.send_if_modified(|(now, _)| std::mem::replace(now, stage) != stage);
    }

    /// The page's stage, once it is one that fits.
    async fn stage(&self, within: Duration, fits: impl Fn(Stage) -> bool) -> Option<Stage> {
        let mut page = self.page.subscribe();
        let found = tokio::time::timeout(within, page.wait_for(|(stage, _)| fits(*stage))).await;
        found.ok()?.ok().map(|page| page.0)
    }

    fn browsers_started(&self) -> u64 {
        self.page.borrow().1
    }

    async fn browser_is_there(&self) {
        let mut page = self.page.subscribe();
        while self.browser().is_none() && page.changed().await.is_ok() {}
    }

    fn control_begins(&self) -> ControlRuns<'_> {
        self.controls.send_modify(|n| *n += 1);
        ControlRuns(self)
    }

    /// When no control job runs.
    async fn controls_ended(&self) {
        let _ = self.controls.subscribe().wait_for(|n| *n == 0).await;
    }

    /// How the actor ended.
    async fn over(&self) -> Ending {
        let mut over = self.over.subscribe();
        match over.wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(Ending::Fence),
            Err(_) => Ending::Fence,
        }
    }

    fn set_browser(&self, browser: Option<Browser>) {
        let started = u64::from(browser.is_some());
        {
            let mut now = self.browser.lock().unwrap_or_else(PoisonError::into_inner);
            *now = browser;
            self.heavy.send_replace(false);
            self.rows_anew(false);
            self.compared.store(0, Ordering::Release);
        }
        self.page.send_modify(|page| *page = (Stage::Away, page.1 + started));
        self.browser_changed.notify_one();
    }
}

/// A control job between its start and its outcome.
struct ControlRuns<'a>(&'a Shared);

impl Drop for ControlRuns<'_> {
    fn drop(&mut self) {
        self.0.controls.send_modify(|n| *n -= 1);
    }
}

/// Takes a claimed session on. The actor ends by releasing or losing the lease; its handle is what the host keeps meanwhile.
pub fn take_on(services: &Services, lease: Lease, on_change: Arc<Notify>) -> (Arc<Shared>, impl Future<Output = ()> + Send + use<>) {
    let (records, record_rx) = mpsc::channel(4096);
    let (orders, order_rx) = mpsc::channel(4);
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
        heavy: watch::Sender::new(false),
        declined: AtomicBool::new(false),
        unread: watch::Sender::default(),
        comparing: AtomicBool::new(false),
        compared: AtomicU64::new(0),
        page: watch::Sender::new((Stage::Away, 0)),
        orders,
        controls: watch::Sender::new(0),
        over: watch::Sender::new(None),
        gone: CancellationToken::new(),
    });
    let actor = run(shared.clone(), record_rx, order_rx, on_change);
    (shared, actor)
}

/// Whether lanes of write and query jobs may run.
fn lanes_open(state: SessionState) -> bool {
    state == SessionState::Working
}
