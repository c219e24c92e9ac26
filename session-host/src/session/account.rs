//! Whose page it is: the account that is bound, refused or logged out, and a browser elsewhere that takes it over.

use std::{sync::Arc, time::Duration};

use contract::{Jid, Reason, Signal};
use store::owned::{Account, Linked};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Ending, Order, Stage,
    actor::{Actor, After, load},
    recorder::{Record, until_known},
};
use crate::browser::{self, Browser, CallError, PageEvent, ProfileDir, StreamState};

/// Pause before a page that takes no calls yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a logout waits for what came before it to be read.
const READ_UP_WITHIN: Duration = Duration::from_secs(10);
/// For a call that only starts something in the page.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(10);

/// After another browser has taken the account over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takeover {
    /// None has.
    No,
    /// It is taken back at this time, unless it was not long ago.
    Due(Instant),
    /// It was taken back; if the session does not work by this time, a person has to decide.
    Tried(Instant),
    /// The account was refused: it is another's.
    Refused,
}

impl Takeover {
    /// When something is to be done about it.
    pub(super) async fn due(self) {
        match self {
            Self::No | Self::Refused => std::future::pending().await,
            Self::Due(at) | Self::Tried(at) => sleep_until(at).await,
        }
    }
}

impl Actor {
    /// Binds the session to the page's account, as soon as the page says whose it is: nothing of another account is recorded or sent.
    pub(super) async fn bind(&mut self, stream: &StreamState) -> Option<After> {
        if self.bound {
            return None;
        }
        let phone = stream.me.as_deref().and_then(|me| me.parse::<Jid>().ok()).and_then(|jid| jid.phone().map(str::to_owned))?;
        let account = Account { phone, lid: stream.me_lid.clone(), name: stream.pushname.clone() };
        let (answer, linked) = oneshot::channel();
        let since = self.registered.unwrap_or_else(Instant::now);
        let _ = self.shared.records.send(Record::Link(account.clone(), since, answer)).await;
        match linked.await {
            Ok(Linked::Accepted) => {}
            Ok(Linked::WrongAccount) => {
                tracing::warn!(session = %self.shared.session(), "another account was linked: refused");
                self.takeover = Takeover::Refused;
                return Some(After::End(Ending::None));
            }
            Ok(Linked::Fenced) | Err(_) => return Some(After::End(Ending::Fence)),
        }
        let known = self.me.replace(account);
        self.bound = true;
        if known.is_some_and(|known| Some(&known.phone) != self.me.as_ref().map(|me| &me.phone)) {
            self.end_jobs_of_the_old_account();
        }
        None
    }

    /// Whether the page's account was refused.
    pub(super) fn refused(&self) -> bool {
        self.takeover == Takeover::Refused
    }

    /// They do not start any more: their chats are another account's. This tells their callers; the reconciler finds what it does not.
    fn end_jobs_of_the_old_account(&self) {
        let shared = self.shared.clone();
        let tell = async move {
            let services = &shared.services;
            let told = queue::tidy::end_doomed(&services.pool, &services.redis, Some(shared.session()), &services.timings).await;
            if let Err(error) = told {
                tracing::warn!(session = %shared.session(), %error, "jobs of the old account not ended yet");
            }
        };
        self.shared.services.tasks.spawn(tell);
    }

    /// What a control job asks. Answered only when it is done, or can be waited for.
    pub(super) async fn obey(&mut self, order: Order, browser: &Browser, heard: &mut mpsc::Receiver<PageEvent>) -> Option<After> {
        match order {
            Order::Restart(done) => {
                let _ = done.send(());
                Some(After::Ordered)
            }
            Order::Logout(done) => {
                let linked = self.shared.page.borrow().0 == Stage::Linked;
                self.set_working(false);
                if linked && let Some(after) = self.read_up(browser, heard).await {
                    let _ = done.send(false);
                    return Some(after);
                }
                let unlinked = linked && self.unlink(browser, heard).await;
                let after = match unlinked {
                    true => Some(self.logged_out(Reason::LogoutRequested).await),
                    // It came for this only.
                    false if self.visit => Some(After::End(Ending::Drain)),
                    false => self.judge().await,
                };
                let _ = done.send(unlinked);
                after
            }
        }
    }

    /// What came before a logout is recorded before it: the page's rows go with the link. A page that does not come to its end in time is
    /// logged out all the same.
    async fn read_up(&mut self, browser: &Browser, heard: &mut mpsc::Receiver<PageEvent>) -> Option<After> {
        let until = Instant::now() + READ_UP_WITHIN.min(self.shared.services.timings.page_ready_within());
        let (mut read, mut asked) = (None::<oneshot::Receiver<()>>, false);
        loop {
            // In its main stream the page has what waited for it at the server.
            let complete = self.bound && self.stream.as_ref().is_some_and(|stream| stream.mode == "MAIN");
            if complete && !asked {
                let (done, wait) = oneshot::channel();
                self.catch_up(Record::Reconcile(Some(done))).await;
                (read, asked) = (Some(wait), true);
            }
            let done = async {
                match &mut read {
                    Some(read) => read.await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = done => return None,
                event = timeout_at(until, heard.recv()) => match event {
                    Ok(Some(event)) => if let Some(after) = self.on(browser, event).await { return Some(after) },
                    Ok(None) => return Some(After::Restart),
                    Err(_) => {
                        tracing::warn!(session = %self.shared.session(), "logged out before all was read");
                        return None;
                    }
                },
                () = self.shared.lease.fenced() => return Some(After::End(Ending::Fence)),
                () = self.shared.gone.cancelled() => return Some(After::End(Ending::Fence)),
            }
        }
    }

    /// Unlinks the device, and waits until the page says so: a browser that closes before it would stay linked. What comes in meanwhile is
    /// recorded, if it is the session's.
    pub(super) async fn unlink(&mut self, browser: &Browser, heard: &mut mpsc::Receiver<PageEvent>) -> bool {
        let (ready_within, logout_within) =
            (self.shared.services.timings.page_ready_within(), self.shared.services.timings.logout_within());
        self.record_early().await;
        let (mut asked, mut until) = (false, Instant::now() + ready_within);
        while Instant::now() < until {
            if !asked {
                // A phone can be faster than the driver's self-test: until that has passed, the page takes no calls.
                let call_id = format!("logout-{}", browser.document());
                match browser.call(&browser::Logout {}, &call_id, CALL_WITHIN).await {
                    Err(CallError::NotReady) => {}
                    // The document may go before it answers.
                    Ok(()) | Err(_) => (asked, until) = (true, Instant::now() + logout_within),
                }
            }
            let wait = if asked { until } else { until.min(Instant::now() + ASK_AGAIN) };
            match timeout_at(wait, heard.recv()).await {
                Ok(Some(PageEvent::LoggedOut { .. })) => return true,
                Ok(Some(PageEvent::Closed { .. }) | None) => return false,
                Ok(Some(event)) if self.bound => self.record(event).await,
                Ok(Some(_)) | Err(_) => {}
            }
        }
        tracing::warn!(session = %self.shared.session(), "the page did not confirm the logout");
        false
    }

    pub(super) async fn logged_out(&mut self, reason: Reason) -> After {
        self.record_early().await;
        // Its rows and numbers are gone with the link: the next start begins with an empty directory. A directory that is kept would be taken
        // for the account's whole past, and hide the gap.
        let (pool, held) = (&self.shared.services.pool, self.shared.lease.held());
        if until_known(&self.shared, || store::profiles::forget(pool, held)).await.is_err() {
            return After::End(Ending::Fence);
        }
        self.give_up(Signal::LoggedOut(reason)).await
    }

    /// Deletes the directory of a page that was unlinked, once its browser is closed.
    pub(super) async fn remove_if_forgotten(&self, browser: Browser, profile: Arc<ProfileDir>) {
        let named = match load(&self.shared).await {
            Some(owned) => owned.profile,
            None => return,
        };
        let (id, data_dir) = (profile.id().to_owned(), self.shared.services.browsers.config().data_dir.clone());
        if named.is_some_and(|named| named.to_string() == id) {
            return;
        }
        drop((browser, profile));
        let removed = tokio::task::spawn_blocking(move || browser::remove_profile(&data_dir, &id)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(session = %self.shared.session(), ?removed, "the directory of an unlinked account stays for now");
        }
    }

    /// Another browser has taken the account over. If the session is ours, that was no host of ours: it is taken back once, after a time in
    /// which a host that lost it unnoticed would have ended its browser.
    pub(super) async fn replaced(&mut self) -> Option<After> {
        self.set_working(false);
        self.shared.set_stage(Stage::Away);
        match self.takeover {
            Takeover::Due(_) | Takeover::Refused => None,
            Takeover::Tried(_) => Some(self.give_up(Signal::Conflict).await),
            Takeover::No if load(&self.shared).await.is_none() => Some(After::End(Ending::Fence)),
            Takeover::No if self.visit => Some(self.give_up(Signal::Conflict).await),
            Takeover::No => {
                self.takeover = Takeover::Due(Instant::now() + self.shared.services.timings.lease_ttl());
                self.signal(Signal::Replaced).await;
                None
            }
        }
    }

    /// The time has come to take the account back, or to see that it did not help.
    pub(super) async fn takeover_due(&mut self, browser: &Browser) -> Option<After> {
        if let Takeover::Tried(_) = self.takeover {
            return Some(self.give_up(Signal::Conflict).await);
        }
        let (services, held) = (&self.shared.services, self.shared.lease.held());
        match store::owned::may_take_over(&services.pool, held, services.timings.takeover_every()).await {
            Ok(true) => {}
            Ok(false) => {
                let ours = load(&self.shared).await.is_some();
                return Some(if ours { self.give_up(Signal::Conflict).await } else { After::End(Ending::Fence) });
            }
            Err(error) => {
                tracing::warn!(session = %self.shared.session(), %error, "not taken back yet");
                self.takeover = Takeover::Due(Instant::now() + Duration::from_secs(1));
                return None;
            }
        }
        self.takeover = Takeover::Tried(Instant::now() + services.timings.page_ready_within());
        let call_id = format!("takeover-{}", contract::EventId::new());
        if let Err(error) = browser.call(&browser::TakeOver {}, &call_id, CALL_WITHIN).await {
            tracing::warn!(session = %self.shared.session(), %error, "the page does not take the account back");
            return Some(self.give_up(Signal::Conflict).await);
        }
        tracing::info!(session = %self.shared.session(), "took the account back");
        None
    }
}
