//! Handles to a running browser.
use super::{
    BrowserEnv, LaunchError, PageCall, PageEvent, ProfileDir,
    calls::CallError,
    cdp::CdpError,
    chromium::{self, Fuse, Running},
    driver::Driver,
    keeper::{Fixed, Keeper, Reload},
    marker::{self, Storage},
    page::{Link, SHORT, SITE, Settings},
    process::{ProcessId, tree_pss},
    shared::{Exit, Shared, View},
};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    process::{Child, ChildStdin},
    sync::{OnceCell, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a first WebDriver session may take before we navigate without it.
const DRIVER_WITHIN: Duration = Duration::from_secs(5);
/// Between `SIGTERM` and `SIGKILL` of a browser that did not close when asked.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Why no browser could be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program itself.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It runs, but does not do as it is told.
    #[error("the browser cannot be set up: {0}")]
    Setup(String),
    /// The directory's storage does not hold its marker: some or all of it is gone. The page was not let on.
    #[error("the profile's storage does not hold its marker")]
    Erased,
    /// The directory's storage cannot be opened, for which the browser gives this reason. The page was not let on.
    #[error("the profile's storage cannot be opened: {0}")]
    Unreadable(String),
}

/// How a browser was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// It ended by itself, its data whole; the directory is marked so.
    pub clean: bool,
}

/// A running browser with our page in it. Clones are handles to the same one; when the last is dropped without [`Browser::close`], the browser
/// closes by itself, and is killed if that takes longer than 2 s.
#[derive(Clone)]
pub struct Browser(Arc<Inner>);

struct Inner {
    env: Arc<BrowserEnv>,
    profile: Arc<ProfileDir>,
    process: ProcessId,
    shared: Arc<Shared>,
    driver: Driver,
    orders: mpsc::Sender<Reload>,
    exit: watch::Receiver<Option<Exit>>,
    /// Ends the driver, and the browser with it.
    dropped: CancellationToken,
    closed: OnceCell<Closed>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.dropped.cancel(); // stops what keeps the driver too
    }
}

/// Starts a browser on this directory, attaches to it and begins the navigation. All that follows comes as events. `marked`: what the
/// directory's storage must hold before the page may go on.
pub async fn start(
    env: &Arc<BrowserEnv>,
    profile: &Arc<ProfileDir>,
    marked: Option<&str>,
    events: mpsc::Sender<PageEvent>,
) -> Result<Browser, StartError> {
    let Running { child, pipe, id, port, socket } = chromium::launch(env, profile).await?;
    let mut fuse = Fuse(Some(id));
    let tasks = TaskTracker::new();
    let (exit_tx, exit) = watch::channel(None);
    let dropped = CancellationToken::new();
    tasks.spawn(watch_exit(child, pipe, id, dropped.clone(), exit_tx));

    let timings = env.config().timings.clone();
    let settings = Settings { binding: binding_name()?, beat: timings.beat, ready_within: timings.ready_within };
    let agent = chromium::user_agent_override(env.version(), env.major());
    let (link, mut cdp_events) = Link::open(&socket, &settings, &agent, &tasks).await.map_err(|e| StartError::Setup(e.to_string()))?;
    if let Some(word) = marked {
        let refused = match marker::holds(&link, &mut cdp_events, word).await.map_err(|e| StartError::Setup(e.to_string()))? {
            Storage::Whole => None,
            Storage::Erased => Some(StartError::Erased),
            Storage::Unreadable(why) => Some(StartError::Unreadable(why)),
        };
        if let Some(refused) = refused {
            drop(fuse);
            // The directory is about to be deleted.
            let _ = timeout(TERM_GRACE, exit.clone().wait_for(Option::is_some)).await;
            return Err(refused);
        }
    }
    let driver = Driver::keep(env.clone(), port, profile.path().to_owned(), &tasks, dropped.child_token());
    begin(&driver, &link).await?;

    let shared = Arc::new(Shared::new(View { link: Some(link.clone()), ..View::default() }));
    let (orders, orders_rx) = mpsc::channel(4);
    let fixed =
        Fixed { shared: shared.clone(), settings, timings, agent, socket, tasks: tasks.clone(), out: events, attach_again: driver.again() };
    tasks.spawn(Keeper::new(fixed, link, cdp_events, orders_rx, exit.clone()).run());
    fuse.0 = None;
    let closed = OnceCell::new();
    Ok(Browser(Arc::new(Inner { env: env.clone(), profile: profile.clone(), process: id, shared, driver, orders, exit, dropped, closed })))
}

/// Holds the pipe that the browser lives by, and collects the browser.
async fn watch_exit(mut child: Child, pipe: ChildStdin, id: ProcessId, dropped: CancellationToken, exit: watch::Sender<Option<Exit>>) {
    let mut ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = dropped.cancelled() => None,
    };
    drop(pipe);
    if ended.is_none() {
        ended = timeout(TERM_GRACE, child.wait()).await.ok();
    }
    let ended = match ended {
        Some(ended) => ended,
        None => {
            id.kill_tree();
            child.wait().await
        }
    };
    let ended = ended.map_or(Exit::UNKNOWN, Exit::from);
    exit.send_replace(Some(ended));
}

fn binding_name() -> Result<String, StartError> {
    let mut random = [0_u8; 9];
    SystemRandom::new().fill(&mut random).map_err(|_| StartError::Setup("no randomness".into()))?;
    Ok(format!("_{}", random.map(|b| format!("{b:02x}")).concat()))
}

/// The first navigation, by WebDriver. A site that cannot be reached is no error here: the keeper tries again.
async fn begin(driver: &Driver, link: &Link) -> Result<(), StartError> {
    if let Some(client) = driver.client(DRIVER_WITHIN).await {
        match timeout(SHORT, client.goto(SITE)).await {
            Ok(Ok(())) => return Ok(()),
            other => tracing::warn!(?other, "WebDriver did not navigate"),
        }
    }
    match link.navigate().await {
        Ok(()) | Err(CdpError::Protocol { .. }) => Ok(()),
        Err(error) => Err(StartError::Setup(error.to_string())),
    }
}

impl Browser {
    /// The browser's process.
    pub fn pid(&self) -> u32 {
        self.0.process.pid
    }

    /// Its start, in clock ticks since boot: with the number it names the process for good.
    pub fn started_ticks(&self) -> u64 {
        self.0.process.start
    }

    /// The directory that it works in.
    pub fn profile(&self) -> &Path {
        self.0.profile.path()
    }

    /// The number of the current document, 0 before the first. A call made in one number never reaches another.
    pub fn document(&self) -> u64 {
        self.0.shared.borrow().document
    }

    /// Whether calls are taken now.
    pub fn is_ready(&self) -> bool {
        let view = self.0.shared.borrow();
        view.ready && !view.closing && view.api.is_some()
    }

    /// Asks the page. In one document a call is made once per `call_id`: a repeat joins the first. While a lost connection is being
    /// replaced the call waits for it, within its deadline.
    pub async fn call<C: PageCall>(&self, call: &C, call_id: &str, deadline: Duration) -> Result<C::Answer, CallError> {
        let until = Instant::now() + deadline;
        let mut view = self.0.shared.subscribe();
        let (link, api, document) = match timeout_at(until, view.wait_for(|v| v.link.is_some() || v.closing)).await {
            Ok(Ok(v)) => callable(&v),
            _ => None,
        }
        .ok_or_else(|| self.not_ready())?;
        let arguments = serde_json::to_value(call).map_err(|e| CallError::Malformed(e.to_string()))?;
        let arguments = json!([{"value": C::NAME}, {"value": arguments}, {"value": call_id}]);
        let left = until.duration_since(Instant::now());
        let asked = link.on(&api, "function(n,a,c){return this.call(n,a,c)}", arguments, left);
        let gone = async {
            let _ = view.wait_for(|v| v.document != document || (v.link.is_some() && v.api.is_none())).await;
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            // On a lost connection the call itself says so.
            () = gone => return Err(CallError::DocumentGone),
        };
        match answer {
            Ok(answer) => read_answer::<C>(answer),
            Err(error) => Err(self.failed(error).await),
        }
    }

    fn not_ready(&self) -> CallError {
        if self.0.exit.borrow().is_some() { CallError::BrowserGone } else { CallError::NotReady }
    }

    async fn failed(&self, error: CdpError) -> CallError {
        match error {
            CdpError::Deadline(_) => CallError::Deadline,
            CdpError::Crashed(_) => CallError::Crashed,
            CdpError::Closed(_) | CdpError::Connect(_) => {
                // The socket goes first, the process a moment later.
                let gone = timeout(Duration::from_millis(500), self.0.exit.clone().wait_for(Option::is_some)).await.is_ok();
                if gone { CallError::BrowserGone } else { CallError::LostSocket }
            }
            CdpError::Protocol { message, .. } if document_gone(&message) => CallError::DocumentGone,
            CdpError::Protocol { message, .. } => CallError::Malformed(message),
        }
    }

    /// Loads the page anew; answers when the navigation has begun. Pending calls end with [`CallError::DocumentGone`].
    pub async fn reload(&self) -> Result<(), CallError> {
        let (done, wait) = oneshot::channel();
        self.0.orders.send(done).await.map_err(|_| CallError::BrowserGone)?;
        wait.await.map_err(|_| CallError::BrowserGone)
    }

    /// Marks the storage of the page's site with this word, unless it is marked already; answers with which. It can be counted on once the
    /// browser has closed cleanly: Chromium writes localStorage seconds late.
    pub async fn mark(&self, word: &str) -> Result<String, CallError> {
        let link = self.0.shared.borrow().link.clone().ok_or(CallError::LostSocket)?;
        match marker::write(&link, word).await {
            Ok(word) => Ok(word),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// A picture of the page, PNG, by WebDriver.
    pub async fn screenshot(&self) -> Result<Vec<u8>, CallError> {
        for _ in 0..2 {
            let client = self.0.driver.client(SHORT).await.ok_or(CallError::NotReady)?;
            match timeout(SHORT, client.screenshot()).await {
                Ok(Ok(png)) => return Ok(png),
                Ok(Err(error)) => tracing::warn!(%error, "no screenshot; attaching again"),
                Err(_) => tracing::warn!("no screenshot in time; attaching again"),
            }
            self.0.driver.attach_again();
        }
        Err(CallError::Deadline)
    }

    /// Cuts the page's network, or gives it back. Cutting ends the document too: refusing new connections leaves an open WebSocket
    /// working (measured), and the page's own is one.
    pub async fn offline(&self, offline: bool) -> Result<(), CallError> {
        let link = self.0.shared.borrow().link.clone().ok_or(CallError::LostSocket)?;
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        let steps: &[(&'static str, Value)] = &[("Network.enable", json!({})), ("Network.emulateNetworkConditions", conditions)];
        let last = if offline { ("Page.navigate", json!({"url": "about:blank"})) } else { ("Network.disable", json!({})) };
        for (method, params) in steps.iter().chain([&last]) {
            if let Err(error) = link.command(method, params.clone()).await {
                return Err(self.failed(error).await);
            }
        }
        if offline {
            self.0.shared.send_modify(View::forget);
        }
        if offline { Ok(()) } else { self.reload().await }
    }

    /// Ends the connection to the browser, as a fault of the network would; it is made anew, and the document stays.
    pub fn hang_up(&self) {
        if let Some(link) = &self.0.shared.borrow().link {
            link.cdp.hang_up();
        }
    }

    /// What the browser costs: proportional set size of its whole process tree, in bytes.
    pub async fn pss_bytes(&self) -> u64 {
        let pid = self.pid();
        tokio::task::spawn_blocking(move || tree_pss(pid)).await.unwrap_or(0)
    }

    /// Closes the browser: asked first, then `SIGTERM`, then `SIGKILL`. Later and concurrent callers get the same answer.
    pub async fn close(&self) -> Closed {
        *self.0.closed.get_or_init(|| self.close_once()).await
    }

    async fn close_once(&self) -> Closed {
        self.0.shared.send_modify(|v| v.closing = true);
        self.0.driver.stop();
        let within = self.0.env.config().timings.close_within;
        let link = self.0.shared.borrow().link.clone();
        if let Some(link) = link {
            let _ = link.cdp.call("Browser.close", json!({}), None, within).await;
        }
        let mut exit = self.exit_within(within).await;
        if exit.is_none() && self.terminate() {
            exit = self.exit_within(TERM_GRACE).await;
        }
        if exit.is_none() {
            self.kill_now();
            exit = self.exit_within(TERM_GRACE).await;
        }
        let mut clean = exit.is_some_and(|e| e.clean);
        if clean && let Err(error) = self.0.profile.mark_closed() {
            tracing::error!(%error, "the clean close cannot be marked");
            clean = false;
        }
        Closed { clean }
    }

    async fn exit_within(&self, within: Duration) -> Option<Exit> {
        let mut exit = self.0.exit.clone();
        let found = timeout(within, exit.wait_for(Option::is_some)).await;
        found.ok()?.ok().and_then(|e| *e)
    }

    /// `SIGTERM`, unless the browser is closing already: then a second one would kill it while it writes. Says whether it was sent.
    pub fn terminate(&self) -> bool {
        self.0.process.catches_term() && self.0.process.signal(Signal::TERM)
    }

    /// `SIGKILL` for the whole tree. What it was writing may be lost.
    pub fn kill_now(&self) {
        self.0.process.kill_tree();
    }
}

/// Where a call goes, if calls are taken.
fn callable(view: &View) -> Option<(Link, String, u64)> {
    let (link, api) = (view.link.clone()?, view.api.clone()?);
    (view.ready && !view.closing).then_some((link, api, view.document))
}

/// V8's words for an object or context that went with its document.
fn document_gone(message: &str) -> bool {
    const WORDS: &[&str] = &[
        "context was destroyed",
        "Cannot find context",
        "Could not find object",
        "Promise was collected",
        "navigated or closed",
        "Session with given id",
    ];
    WORDS.iter().any(|w| message.contains(w))
}

/// The page answers `{ok}` or `{err: {code, message}}`, and never throws.
fn read_answer<C: PageCall>(mut answer: Value) -> Result<C::Answer, CallError> {
    let mut value = answer["result"]["value"].take();
    if let Some(error) = value.get("err") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        return Err(CallError::Page { code: text("code"), message: text("message") });
    }
    match value.get_mut("ok") {
        Some(ok) => serde_json::from_value(ok.take()).map_err(|e| CallError::Malformed(e.to_string())),
        None => Err(CallError::Malformed(answer["exceptionDetails"]["text"].as_str().unwrap_or("neither ok nor err").to_owned())),
    }
}
