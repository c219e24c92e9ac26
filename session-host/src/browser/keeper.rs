//! The one task that keeps a browser's page: takes its events in order, puts the driver in, and heals what can be healed without
//! a new browser.
use super::{
    BrowserTimings,
    cdp::{CdpError, CdpEvent},
    events::{Entry, Heard, PageEvent},
    page::{Driven, Link, SHORT, Settings},
    shared::{Exit, Shared, View},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

/// So many reloads within [`HEAL_WINDOW`] and we stop trying: a new browser is needed.
const MAX_HEALS: usize = 5;
const HEAL_WINDOW: Duration = Duration::from_secs(600);
/// A lost socket is opened again so often before the browser counts as hung.
const MAX_ATTACHES: u32 = 5;
/// A page that did not beat is given this long to answer one question.
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// The network refused the navigation: it is tried again, without counting as healing.
const NAVIGATE_AGAIN: Duration = Duration::from_secs(5);
/// A closed socket usually means that the process is ending.
const EXIT_FOLLOWS: Duration = Duration::from_millis(500);

/// What the keeper waits for in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A document is loading; its gate opens in time or it is loaded anew.
    Loading,
    /// The driver is in; its verdict comes in time or the page is loaded anew.
    Driving,
    /// All is well until the beat is overdue.
    Ready,
    /// The site was not reached, and is tried again when due.
    Unreachable,
    /// Nothing more is tried here.
    GivenUp,
}

/// An order from a handle: load the page anew.
pub(crate) type Reload = oneshot::Sender<()>;

/// What stays the same for a browser's life.
pub(crate) struct Fixed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) timings: BrowserTimings,
    /// Parameters of `Emulation.setUserAgentOverride`.
    pub(crate) agent: Value,
    /// Address of the browser's DevTools socket.
    pub(crate) socket: String,
    pub(crate) tasks: TaskTracker,
    pub(crate) out: mpsc::Sender<PageEvent>,
    /// Asks for a new WebDriver session.
    pub(crate) attach_again: Arc<Notify>,
}

pub(crate) struct Keeper {
    fixed: Fixed,
    link: Link,
    events: mpsc::Receiver<CdpEvent>,
    orders: mpsc::Receiver<Reload>,
    exit: watch::Receiver<Option<Exit>>,
    phase: Phase,
    due: Instant,
    /// The current document, as the page names it.
    document: String,
    /// The highest event number taken from it.
    last: u64,
    heals: VecDeque<Instant>,
    unreachable_told: bool,
}

enum Next {
    Cdp(Option<CdpEvent>),
    Reload(Reload),
    Overdue,
    Exit(Exit),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Gate,
    Events,
}

/// What the page says through the binding. Not an enum by `what`: those cannot hold their entries as text.
#[derive(Deserialize)]
struct Report<'a> {
    what: What,
    document: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    ms: u64,
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
}

impl Keeper {
    /// For a page whose navigation has begun.
    pub(crate) fn new(
        fixed: Fixed,
        link: Link,
        events: mpsc::Receiver<CdpEvent>,
        orders: mpsc::Receiver<Reload>,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Self {
        let due = Instant::now() + fixed.timings.gate_within;
        Self {
            fixed,
            link,
            events,
            orders,
            exit,
            phase: Phase::Loading,
            due,
            document: String::new(),
            last: 0,
            heals: VecDeque::new(),
            unreachable_told: false,
        }
    }

    /// Until the browser's process ends, which is the last event.
    pub(crate) async fn run(mut self) {
        let exit = loop {
            match self.next().await {
                Next::Cdp(Some(event)) => self.on_cdp(event).await,
                Next::Cdp(None) => {
                    if let Some(exit) = self.attach_again().await {
                        break exit;
                    }
                }
                Next::Reload(done) => {
                    self.load_anew().await;
                    let _ = done.send(());
                }
                Next::Overdue => self.on_overdue().await,
                Next::Exit(exit) => break exit,
            }
        };
        self.fixed.shared.send_modify(|v| {
            v.forget();
            v.link = None;
        });
        self.emit(PageEvent::Closed { clean: exit.clean, status: exit.status }).await;
    }

    /// In this order: what the page said before its browser ended is still taken.
    async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            event = self.events.recv() => Next::Cdp(event),
            Some(order) = self.orders.recv() => Next::Reload(order),
            () = sleep_until(self.due), if self.phase != Phase::GivenUp => Next::Overdue,
            exit = exited(&mut self.exit) => Next::Exit(exit),
        }
    }

    async fn emit(&self, event: PageEvent) {
        let _ = self.fixed.out.send(event).await; // nobody listens any more: the session is being dropped
    }

    fn enter(&mut self, phase: Phase, within: Duration) {
        self.phase = phase;
        self.due = Instant::now() + within;
    }

    async fn on_cdp(&mut self, event: CdpEvent) {
        if event.method == "Target.detachedFromTarget" && event.params["sessionId"] == self.link.session.as_str() {
            self.link.cdp.hang_up(); // the socket lives, our session in it does not: begin again as after a lost socket
        }
        if event.session.as_deref() != Some(self.link.session.as_str()) {
            return;
        }
        match event.method.as_str() {
            "Runtime.bindingCalled" if event.params["name"] == self.fixed.settings.binding.as_str() => self.on_report(&event.params).await,
            "Page.frameNavigated" if event.params["frame"]["parentId"].is_null() => self.on_navigated(&event.params["frame"]).await,
            "Page.javascriptDialogOpening" => drop(self.link.command("Page.handleJavaScriptDialog", json!({"accept": true})).await),
            "Inspector.targetCrashed" => {
                self.fixed.shared.send_modify(View::forget);
                self.emit(PageEvent::Crashed).await;
                self.fixed.attach_again.notify_one(); // a WebDriver session says "tab crashed" for ever after
                self.heal("the renderer crashed").await;
            }
            _ => {}
        }
    }

    async fn on_navigated(&mut self, frame: &Value) {
        self.fixed.shared.send_modify(View::forget);
        if !frame["unreachableUrl"].is_null() {
            self.unreachable("the browser shows its own error page").await; // a reason, if we navigated, came before
        } else if self.phase != Phase::GivenUp {
            self.enter(Phase::Loading, self.fixed.timings.gate_within);
        }
    }

    async fn on_report(&mut self, params: &Value) {
        let report: Report<'_> = match serde_json::from_str(params["payload"].as_str().unwrap_or_default()) {
            Ok(report) => report,
            Err(error) => return tracing::error!(%error, "the page's report is not understood"),
        };
        let known = report.document == self.document;
        match report.what {
            What::Gate if !known => {
                tracing::debug!(page_version = report.version, ms = report.ms, "the gate opened");
                self.on_gate(report.document, &params["executionContextId"]).await;
            }
            What::Events if known => self.on_events(&report.events).await,
            What::Gate | What::Events => {} // said twice, or the last words of an older document
        }
    }

    async fn on_gate(&mut self, document: String, context: &Value) {
        self.document = document;
        self.last = 0;
        self.unreachable_told = false;
        let mut number = 0;
        self.fixed.shared.send_modify(|v| {
            v.forget();
            v.document += 1;
            number = v.document;
        });
        self.emit(PageEvent::Document(number)).await;
        match self.link.drive(&self.fixed.settings, context, &self.document).await {
            Ok(Driven::Api(api)) => {
                self.fixed.shared.send_modify(|v| v.api = Some(api));
                self.enter(Phase::Driving, self.fixed.timings.ready_within + PROBE_WITHIN); // the page's own deadline comes first
            }
            Ok(Driven::Threw(why)) => self.heal(&format!("the driver threw: {why}")).await,
            // Its own event is on the way.
            Err(CdpError::Crashed(_) | CdpError::Closed(_)) => {}
            Err(error) => self.heal(&error.to_string()).await,
        }
    }

    async fn on_events(&mut self, events: &[&RawValue]) {
        for raw in events {
            let Entry { n, name, heard } = match Entry::read(raw) {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::error!(%error, "an entry of the page's report has no number");
                    continue;
                }
            };
            if n <= self.last {
                continue; // sent again after a gap
            }
            if n > self.last + 1 {
                self.ask_again().await;
                return; // what follows comes again, in order
            }
            self.last = n;
            match heard {
                Ok(Heard::Event(event)) => self.emit(event).await,
                Ok(Heard::Ready) => {
                    let mut document = 0;
                    self.fixed.shared.send_modify(|v| {
                        v.ready = v.api.is_some();
                        document = v.document;
                    });
                    self.phase = Phase::Ready;
                    self.emit(PageEvent::Ready { document }).await;
                }
                Ok(Heard::Deaf(why)) => return self.heal(&why).await,
                Err(error) => {
                    // Not the error itself: it quotes what it met.
                    tracing::error!(event = name, category = ?error.classify(), "an event of the page is not understood");
                    self.emit(PageEvent::Lost { from: n, to: n }).await;
                }
            }
        }
        if self.phase == Phase::Ready {
            self.enter(Phase::Ready, self.fixed.timings.beat * 3 / 2);
        }
    }

    /// Has the page send again what it still holds above the last number taken, and announces what it does not hold any more.
    async fn ask_again(&mut self) {
        let Some(api) = self.fixed.shared.borrow().api.clone() else { return };
        let answer = self.link.on(&api, "function(n){return this.resume(n)}", json!([{"value": self.last}]), SHORT).await;
        match answer.map(|a| a["result"]["value"].as_u64()) {
            Ok(Some(first)) if first > self.last + 1 => {
                self.emit(PageEvent::Lost { from: self.last + 1, to: first - 1 }).await;
                self.last = first - 1;
            }
            Ok(Some(_)) => {}
            other => tracing::warn!(?other, "missed events could not be asked for; the next ones ask again"),
        }
    }

    async fn on_overdue(&mut self) {
        match self.phase {
            Phase::Loading => self.heal("the page's core modules did not appear in time").await,
            Phase::Driving => self.heal("the driver gave no verdict in time").await,
            Phase::Ready => self.probe().await,
            Phase::Unreachable => self.load_anew().await,
            Phase::GivenUp => {}
        }
    }

    async fn probe(&mut self) {
        self.enter(Phase::Ready, self.fixed.timings.beat);
        let Some(api) = self.fixed.shared.borrow().api.clone() else { return };
        if let Err(CdpError::Deadline(_)) = self.link.on(&api, "function(){return 1}", json!([]), PROBE_WITHIN).await {
            self.emit(PageEvent::Silent).await;
            // Ends a script that never returns, which would hold up the new document too.
            let _ = self.link.command("Runtime.terminateExecution", json!({})).await;
            self.heal("the page hangs").await;
        }
    }

    /// Loads the page anew, unless that has been done too often.
    async fn heal(&mut self, reason: &str) {
        let now = Instant::now();
        self.heals.retain(|t| now.duration_since(*t) < HEAL_WINDOW);
        if self.heals.len() >= MAX_HEALS {
            tracing::error!(reason, "the page does not heal");
            self.phase = Phase::GivenUp;
            self.fixed.shared.send_modify(View::forget);
            return self.emit(PageEvent::Unwell { reason: reason.to_owned() }).await;
        }
        self.heals.push_back(now);
        tracing::warn!(reason, "the page is loaded anew");
        self.load_anew().await;
    }

    async fn load_anew(&mut self) {
        self.fixed.shared.send_modify(View::forget);
        self.enter(Phase::Loading, self.fixed.timings.gate_within);
        // Otherwise crashed, closed or hung: its event or the deadline comes.
        if let Err(CdpError::Protocol { message, .. }) = self.link.navigate().await {
            self.unreachable(&message).await;
        }
    }

    async fn unreachable(&mut self, reason: &str) {
        if self.phase == Phase::GivenUp {
            return;
        }
        self.enter(Phase::Unreachable, NAVIGATE_AGAIN);
        if !std::mem::replace(&mut self.unreachable_told, true) {
            tracing::warn!(reason, "the site cannot be reached");
            self.emit(PageEvent::Unreachable { reason: reason.to_owned() }).await;
        }
    }

    /// After a lost socket. Answers the exit if that is why it was lost. The document, its driver and the calls pending in it stay.
    async fn attach_again(&mut self) -> Option<Exit> {
        self.fixed.shared.send_modify(|v| {
            v.link = None;
            v.api = None;
        });
        if let Ok(exit) = timeout(EXIT_FOLLOWS, exited(&mut self.exit)).await {
            return Some(exit);
        }
        for attempt in 1..=MAX_ATTACHES {
            let f = &self.fixed;
            match Link::open(&f.socket, &f.settings, &f.agent, &f.tasks).await {
                Ok((link, events)) => {
                    (self.link, self.events) = (link, events);
                    self.take_up().await;
                    return None;
                }
                Err(error) => tracing::warn!(%error, attempt, "the browser does not take a new connection"),
            }
            if let Ok(exit) = timeout(Duration::from_millis(200) * attempt, exited(&mut self.exit)).await {
                return Some(exit);
            }
        }
        self.phase = Phase::GivenUp;
        self.emit(PageEvent::Unwell { reason: "the browser takes no connection".into() }).await;
        Some(exited(&mut self.exit).await)
    }

    /// Goes on with the document that stands, or loads a new one if it is not the one we left.
    async fn take_up(&mut self) {
        let found = self.link.find_driver(&self.fixed.settings).await;
        let api = match found {
            Ok(Some((api, document))) if document == self.document => Some(api),
            _ => None,
        };
        let same = api.is_some();
        self.fixed.shared.send_modify(|v| {
            v.link = Some(self.link.clone());
            v.api = api;
            v.ready &= same;
        });
        if same {
            self.ask_again().await;
        } else if self.phase != Phase::GivenUp {
            self.heal("the document changed while nobody was connected").await;
        }
    }
}

async fn exited(exit: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(found) => found.unwrap_or(Exit::UNKNOWN),
        Err(_) => Exit::UNKNOWN,
    }
}
