//! A session's life: browser up, page events into state, browser down, lease given back.

use std::{sync::Arc, time::Duration};

use contract::{Reason, SessionState, Signal};
use store::owned::{Account, Owned};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{Ending, Order, Shared, Stage, account::Takeover, lanes_open, opening::Safe, recorder::Record, recycling::Recycle};
use crate::browser::{Browser, PageEvent, StreamState};

/// How long a release waits for the outcome of a control job.
const OUTCOME_WITHIN: Duration = Duration::from_secs(5);

/// How a browser's life ended.
pub(super) enum After {
    /// Start another one.
    Restart,
    /// Somebody asked for another one.
    Ordered,
    /// It has run long enough, or costs too much: a snapshot, and another one.
    Recycle,
    /// The session ends here.
    End(Ending),
}

/// What the actor hears while a browser runs.
enum Next {
    End(Ending),
    Order(Order),
    Takeover,
    Recycle,
    Compare,
    Unwell,
    Event(PageEvent),
    Gone,
}

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) state: SessionState,
    reason: Option<Reason>,
    pub(super) me: Option<Account>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// The browser runs only to log the account out: its tenant sees no other state.
    pub(super) visit: bool,
    /// The page's account is the session's. Before that nothing of it is recorded.
    pub(super) bound: bool,
    /// What came while nobody listened is being read from the page's rows, or was.
    pub(super) caught_up: bool,
    /// What the page reported before that: announced behind it, in the order in which it came to the page.
    pub(super) early: Vec<PageEvent>,
    pub(super) takeover: Takeover,
    /// The driver of the current document is complete.
    pub(super) ready: bool,
    pub(super) stream: Option<StreamState>,
    /// When the page first said that a phone has linked it.
    pub(super) registered: Option<Instant>,
    pub(super) qr_lists: u32,
    /// The page has all from before the link.
    pub(super) history: bool,
    pub(super) safe: Safe,
    pub(super) recycle: Recycle,
    /// Browsers in a row that cost too much as soon as that counted: to replace them did not help.
    pub(super) in_vain: u32,
    /// Starts since the session was last useful.
    pub(super) restarts: u32,
}

/// Runs a session that was claimed, until it is released or lost. `on_change` tells the host that a browser came or went.
pub(super) async fn run(shared: Arc<Shared>, records: mpsc::Receiver<Record>, orders: mpsc::Receiver<Order>, on_change: Arc<Notify>) {
    let recorder = shared.services.tasks.spawn(super::recorder::run(shared.clone(), records));
    let forward = {
        let shared = shared.clone();
        async move {
            loop {
                shared.browser_changed().await;
                on_change.notify_one();
            }
        }
    };
    // A fence reaches whoever works for the session, also what waits for the recorder: nothing more is started or written.
    let fence = async {
        shared.lease.fenced().await;
        shared.gone.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = forward => {}
        () = fence => {}
        () = live(&shared, orders) => {}
    }
    shared.gone.cancel();
    recorder.abort();
    // However it ended: a lease that nobody works for must not be renewed.
    shared.services.hub.let_go(&shared.lease);
}

async fn live(shared: &Arc<Shared>, orders: mpsc::Receiver<Order>) {
    let Some(owned) = load(shared).await else { return };
    // A session that is down stays so until somebody starts it: it is owned for a logout only, whatever was wished for before.
    let runs = owned.wanted && owned.state.is_alive();
    let mut actor = Actor {
        shared: shared.clone(),
        state: owned.state,
        reason: owned.reason,
        me: owned.account.clone().map(|phone| Account { phone, lid: None, name: None }),
        orders,
        visit: !runs && owned.logout,
        bound: false,
        caught_up: false,
        early: Vec::new(),
        takeover: Takeover::No,
        ready: false,
        stream: None,
        registered: None,
        qr_lists: 0,
        history: false,
        safe: Safe::default(),
        recycle: Recycle::No,
        in_vain: 0,
        restarts: 0,
    };
    let ending = match (runs || owned.logout, owned.wanted) {
        (true, _) => actor.browse(owned).await,
        (false, true) => Ending::None,
        (false, false) => Ending::Stop,
    };
    shared.services.hub.close_lanes(shared.session());
    shared.over.send_replace(Some(ending));
    if ending != Ending::Fence {
        let _ = tokio::time::timeout(OUTCOME_WITHIN, shared.controls_ended()).await;
    }
    match ending {
        Ending::Fence => {}
        Ending::Stop => {
            actor.signal(Signal::Stopped).await;
            release(shared).await;
        }
        Ending::None | Ending::Drain => release(shared).await,
    }
}

pub(super) async fn load(shared: &Shared) -> Option<Owned> {
    loop {
        match store::within(store::owned::load(&shared.services.pool, shared.lease.held())).await {
            Ok(owned) => return owned,
            Err(error) => tracing::warn!(session = %shared.session(), %error, "session not read yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            () = shared.lease.fenced() => return None,
        }
    }
}

async fn release(shared: &Shared) {
    while let Err(error) = shared.services.hub.release(shared.session()).await {
        tracing::warn!(session = %shared.session(), %error, "not released yet");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            () = shared.lease.fenced() => return,
        }
    }
}

impl Actor {
    pub(super) async fn hear(&mut self, browser: &Browser, heard: &mut mpsc::Receiver<PageEvent>) -> After {
        let shared = self.shared.clone();
        let mut ending = shared.ending.subscribe();
        let every = shared.services.timings.compare_every();
        let mut compare = interval_at(Instant::now() + every, every);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                biased;
                () = shared.lease.fenced() => Next::End(Ending::Fence),
                () = shared.gone.cancelled() => Next::End(Ending::Fence),
                _ = ending.wait_for(|e| *e != Ending::None) => Next::End(*shared.ending.borrow()),
                Some(order) = self.orders.recv() => Next::Order(order),
                () = self.takeover.due() => Next::Takeover,
                () = self.recycle.due(&shared) => Next::Recycle,
                _ = compare.tick() => Next::Compare,
                () = shared.unwell() => Next::Unwell,
                event = heard.recv() => event.map_or(Next::Gone, Next::Event),
            };
            let after = match next {
                Next::End(ending) => return After::End(ending),
                Next::Gone => return After::Restart,
                Next::Order(order) => self.obey(order, browser, heard).await,
                Next::Takeover => self.takeover_due(browser).await,
                Next::Recycle => self.recycle(browser).await,
                Next::Compare => self.compare().await,
                Next::Unwell => self.cannot_read(),
                Next::Event(event) => self.on(browser, event).await,
            };
            match after {
                None => {}
                // Not left to the phone's owner: the account that was refused is logged out before the browser closes.
                Some(After::End(Ending::None)) if self.refused() => {
                    self.unlink(browser, heard).await;
                    return self.logged_out(Reason::WrongAccount).await;
                }
                Some(after) => return after,
            }
        }
    }

    pub(super) async fn on(&mut self, browser: &Browser, event: PageEvent) -> Option<After> {
        match event {
            PageEvent::Document(_) => {
                (self.ready, self.history, self.caught_up) = (false, false, false);
                self.shared.rows_anew(false);
                self.shared.set_stage(Stage::Away);
                self.set_working(false);
            }
            PageEvent::Ready { .. } => {
                self.ready = true;
                return self.judge().await;
            }
            PageEvent::Stream(stream) => {
                self.registered = stream.registered.then(|| self.registered.unwrap_or_else(Instant::now));
                self.stream = Some(stream);
                return self.judge().await;
            }
            PageEvent::Qr { code, ttl_ms } => self.show_code(code, ttl_ms).await,
            PageEvent::Socket(state) if state == "UNPAIRED_IDLE" => return self.next_list(browser).await,
            PageEvent::Socket(_) | PageEvent::Beat => {}
            // Whose they are is not known yet, or there are older ones; what does not fit is found in the page's rows afterwards.
            early @ PageEvent::Message(_) if !self.caught_up => self.keep(early),
            early @ PageEvent::Ack(_) if !self.bound => self.keep(early),
            event @ (PageEvent::Message(_) | PageEvent::Ack(_)) => self.record(event).await,
            PageEvent::History => {
                self.history = true;
                // Otherwise it is read once the session works.
                if self.state == SessionState::Working {
                    let _ = self.shared.records.send(Record::History).await;
                }
            }
            PageEvent::Cmd(name) => return self.command(&name).await,
            PageEvent::LoggedOut { reason } => {
                tracing::info!(session = %self.shared.session(), ?reason, "logged out");
                return Some(self.logged_out(Reason::DeviceRemoved).await);
            }
            PageEvent::Lost { from, to } => {
                tracing::warn!(session = %self.shared.session(), from, to, "page events lost: comparing rows");
                let _ = self.shared.records.send(Record::Reconcile(None)).await;
            }
            PageEvent::Silent | PageEvent::Crashed => {
                self.ready = false;
                self.shared.set_stage(Stage::Away);
                self.set_working(false);
                self.signal(Signal::BrowserLost).await;
            }
            PageEvent::Unreachable { .. } => {
                self.ready = false;
                self.shared.set_stage(Stage::Away);
                self.set_working(false);
                self.signal(Signal::ConnectionLost).await;
            }
            PageEvent::Unwell { reason } => {
                tracing::warn!(session = %self.shared.session(), reason, "only a new browser may help");
                return Some(After::Restart);
            }
            PageEvent::Closed { clean, status } => {
                tracing::warn!(session = %self.shared.session(), clean, ?status, "the browser ended");
                return Some(After::Restart);
            }
        }
        None
    }

    /// What driver and stream together mean.
    pub(super) async fn judge(&mut self) -> Option<After> {
        let stream = self.stream.clone()?;
        if stream.needs_update {
            return Some(self.give_up(Signal::GaveUp(Reason::Outdated)).await);
        }
        if stream.mode == "CONFLICT" || stream.socket.as_deref() == Some("CONFLICT") {
            return self.replaced().await;
        }
        self.shared.set_stage(match (self.ready, stream.registered, stream.socket.as_deref()) {
            (true, false, _) if stream.mode == "QR" => Stage::Code,
            (true, true, None | Some("CONNECTED")) => Stage::Linked,
            _ => Stage::Away,
        });
        if !stream.registered {
            if stream.mode == "QR" && self.state != SessionState::Linking {
                if matches!(self.state, SessionState::Syncing | SessionState::Working | SessionState::Reconnecting) {
                    return Some(self.logged_out(Reason::DeviceRemoved).await);
                }
                self.signal(Signal::CodeShown).await;
            }
            return None;
        }
        if let Some(after) = self.bind(&stream).await {
            return Some(after);
        }
        let connected = stream.socket.as_deref().is_none_or(|s| s == "CONNECTED");
        if stream.mode == "MAIN" && self.ready && connected {
            self.work().await;
            return None;
        }
        self.set_working(false);
        if stream.mode == "MAIN" && !connected {
            self.signal(Signal::ConnectionLost).await;
        } else if stream.mode != "MAIN" {
            self.signal(Signal::Syncing).await;
        }
        None
    }

    /// Ready, registered and MAIN, and the account is the session's: open the lanes, look for what was missed.
    async fn work(&mut self) {
        if !self.bound || self.visit || self.state == SessionState::Working && *self.shared.working.borrow() {
            return;
        }
        (self.restarts, self.qr_lists) = (0, 0);
        self.takeover = Takeover::No;
        self.signal(Signal::Ready).await;
        self.catch_up(if self.history { Record::History } else { Record::Reconcile(None) }).await;
        self.set_working(lanes_open(self.state));
        if let (Recycle::No, Some(browser)) = (self.recycle, self.shared.browser()) {
            self.profile_works(&browser).await;
        }
    }

    pub(super) fn set_working(&self, works: bool) {
        let changed = self.shared.working.send_if_modified(|now| std::mem::replace(now, works) != works);
        if changed && works && !self.is_quiet() {
            self.shared.services.hub.open(self.shared.session());
        } else if changed {
            self.shared.services.hub.close_lanes(self.shared.session());
        }
    }

    async fn command(&mut self, name: &str) -> Option<After> {
        match name {
            "account_temporarily_banned_from_bridge" => Some(self.give_up(Signal::Banned).await),
            "needs_update" => Some(self.give_up(Signal::GaveUp(Reason::Outdated)).await),
            other => {
                tracing::info!(session = %self.shared.session(), command = other, "the page announces");
                None
            }
        }
    }

    /// Ends the session in a state that only a person leaves.
    pub(super) async fn give_up(&mut self, signal: Signal) -> After {
        self.set_working(false);
        self.signal(signal).await;
        After::End(Ending::None)
    }

    /// Changes the state, and waits until it is written.
    pub(super) async fn signal(&mut self, signal: Signal) {
        let Some((state, reason)) = self.state.next(signal) else { return };
        if (state, reason) == (self.state, self.reason) {
            return;
        }
        let since = Instant::now();
        (self.state, self.reason) = (state, reason);
        let (written, done) = oneshot::channel();
        // A code that nobody scanned also ends the wish; a stop that was asked for must not end a start that was asked for since.
        let want_stopped = reason == Some(Reason::QrTimeout);
        let _ = self.shared.records.send(Record::State(state, reason, self.me.clone(), want_stopped, written)).await;
        // An error: the recorder found that the session is no longer ours; the actor hears it by `gone`.
        let _ = done.await;
        tracing::info!(session = %self.shared.session(), state = state.as_str(), reason = reason.map(Reason::as_str), took_ms = since.elapsed().as_millis() as u64, "state");
    }
}
