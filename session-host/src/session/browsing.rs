//! Browser after browser: started in the directory that the row names, ended as the session's end asks for.

use std::time::Duration;

use contract::{Reason, Signal};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Ending,
    account::Takeover,
    actor::{Actor, After, load},
    opening::Opened,
    recycling::Recycle,
    snapshots,
};
use crate::browser::{Browser, PageEvent};
use store::owned::Owned;

/// Browser starts in a row without becoming useful before the session is `failed`.
const MOST_RESTARTS: u32 = 6;
/// How long the kernel may take to end what was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

pub(super) type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Actor {
    /// Browser after browser, until the session ends.
    pub(super) async fn browse(&mut self, mut owned: Owned) -> Ending {
        loop {
            let after = match self.one_browser(&owned).await {
                Ok(after) => after,
                Err(why) => {
                    tracing::warn!(session = %self.shared.session(), error = %why, "the browser does not start");
                    After::Restart
                }
            };
            match after {
                After::End(ending) => return ending,
                After::Ordered | After::Recycle => {
                    if matches!(after, After::Ordered) {
                        self.signal(Signal::Restarting).await;
                    }
                    match load(&self.shared).await {
                        Some(now) => owned = now,
                        None => return Ending::Fence,
                    }
                    continue;
                }
                After::Restart if self.restarts >= MOST_RESTARTS => {
                    self.signal(Signal::GaveUp(Reason::BrowserFailed)).await;
                    return Ending::Drain;
                }
                After::Restart => self.signal(Signal::BrowserLost).await,
            }
            let pause = self.shared.services.timings.restart_after() * 2u32.pow(self.restarts.min(5));
            self.restarts += 1;
            if let Some(ending) = self.unless_told_to_end(tokio::time::sleep(pause)).await.err() {
                return ending;
            }
            match load(&self.shared).await {
                Some(now) => owned = now,
                None => return Ending::Fence,
            }
        }
    }

    /// What `step` leads to; an error where the session is to end first. A step that is dropped leaves nothing behind.
    pub(super) async fn unless_told_to_end<T>(&self, step: impl Future<Output = T>) -> Result<T, Ending> {
        let shared = &self.shared;
        let mut ending = shared.ending.subscribe();
        tokio::select! {
            biased;
            () = shared.lease.fenced() => Err(Ending::Fence),
            () = shared.gone.cancelled() => Err(Ending::Fence),
            _ = ending.wait_for(|e| *e != Ending::None) => Err(*shared.ending.borrow()),
            done = step => Ok(done),
        }
    }

    async fn one_browser(&mut self, owned: &Owned) -> Result<After, Failed> {
        let shared = self.shared.clone();
        let (events, mut heard) = mpsc::channel(4096);
        let (browser, profile) = match self.open_browser(owned, events).await? {
            Opened::Browser(browser, profile) => (browser, profile),
            Opened::Ends(after) => return Ok(after),
        };
        shared.set_browser(Some(browser.clone()));
        self.unheard();
        (self.takeover, self.recycle) = (Takeover::No, Recycle::No);
        let after = self.hear(&browser, &mut heard).await;
        self.set_working(false);
        match &after {
            After::End(Ending::Fence) => self.fence(&browser, &mut heard).await,
            After::End(Ending::Drain) => self.signal(Signal::BrowserStarting).await, // shows as `reconnecting`: the next host takes over
            After::Recycle => self.signal(Signal::Recycling).await,
            After::End(_) | After::Restart | After::Ordered => {}
        }
        let closed = match &after {
            After::End(Ending::Fence) => false,
            _ => browser.close().await.clean,
        };
        shared.set_browser(None);
        if matches!(after, After::End(Ending::Stop)) {
            self.signal(Signal::Stopped).await; // it is, for whoever asked; what follows is ours
        }
        let keeps = matches!(after, After::End(Ending::Stop | Ending::Drain) | After::Recycle);
        if let (true, Some(marker)) = (keeps && closed && self.has_worked(), &self.safe.marker) {
            match snapshots::take(&shared, &profile, marker).await {
                Some(_) => self.safe.failed = 0,
                None => self.safe.failed += 1,
            }
        }
        if matches!(after, After::End(Ending::None)) {
            self.remove_if_forgotten(browser, profile).await;
        }
        if let Err(error) = queue::qr::clear(&shared.services.redis, &shared.lease).await {
            tracing::debug!(%error, "QR not cleared: it expires");
        }
        Ok(after)
    }

    /// Told to end, and killed only when the lease is about to be somebody else's: a browser that is killed while it writes can lose its
    /// database. Until it is dead it is the session's browser, so that the guard has it in its list.
    async fn fence(&self, browser: &Browser, heard: &mut mpsc::Receiver<PageEvent>) {
        let timings = &self.shared.services.timings;
        browser.terminate();
        let most = timings.fence_margin().saturating_sub(timings.kill_margin());
        let left = Duration::from_millis(self.shared.lease.deadline().saturating_sub(queue::lease::boottime_ms()));
        if timeout(most.min(left.saturating_sub(timings.kill_margin())), closed(heard)).await.is_ok() {
            return;
        }
        browser.kill_now();
        if timeout(KILLED_WITHIN, closed(heard)).await.is_err() {
            tracing::error!(session = %self.shared.session(), pid = browser.pid(), "a browser that was killed does not end");
        }
    }
}

async fn closed(heard: &mut mpsc::Receiver<PageEvent>) {
    while !matches!(heard.recv().await, None | Some(PageEvent::Closed { .. })) {}
}
