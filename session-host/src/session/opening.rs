//! In which directory a session's browser starts: the one that the row names where it is here, else one made of a snapshot, the newest first.
//! A storage that does not hold its marker is passed over. A known account gets an empty directory only after everybody was told that its
//! link is gone.

use std::{sync::Arc, time::SystemTime};

use contract::{ProfileId, Reason, Signal};
use store::{
    owned::Owned,
    profiles::{self, Refused, Snapshot, SnapshotId, Source},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Ending,
    actor::{Actor, After},
    browsing::Failed,
    recorder::{self, until_known},
    snapshots::{self, NotRestored},
};
use crate::browser::{self, Browser, PageEvent, ProfileDir, StartError};

/// What is known of the profile of now.
#[derive(Debug, Default)]
pub(super) struct Safe {
    /// What its storage holds, in both places.
    pub(super) marker: Option<String>,
    /// The snapshot that it began as, until a browser has worked in it.
    pub(super) began_as: Option<SnapshotId>,
    /// When the newest snapshot of the link was taken, if there is one.
    pub(super) taken_at: Option<Instant>,
    /// How often in a row none could be taken.
    pub(super) failed: u32,
}

/// What starting led to.
pub(super) enum Opened {
    /// A browser, in this directory.
    Browser(Browser, Arc<ProfileDir>),
    /// The session goes on, or ends, without one.
    Ends(After),
}

/// Where a browser may start.
enum Place {
    Kept(Arc<ProfileDir>),
    Empty(Arc<ProfileDir>),
    /// And whether it is what the last browser closed.
    Restored(Arc<ProfileDir>, Snapshot, bool),
}

enum Tried {
    Browser(Browser),
    Erased,
    Unreadable(String),
    Ends(After),
}

impl Actor {
    /// Starts a browser in the first place that will do.
    pub(super) async fn open_browser(&mut self, owned: &Owned, events: mpsc::Sender<PageEvent>) -> Result<Opened, Failed> {
        if *self.shared.ending.borrow() != Ending::None {
            return Ok(Opened::Ends(After::End(*self.shared.ending.borrow())));
        }
        let shared = self.shared.clone();
        let mut snapshots = profiles::snapshots(&shared.services.pool, shared.lease.held()).await?.ok_or("no longer the owner")?;
        let age = |s: &Snapshot| SystemTime::from(s.taken_at).elapsed().unwrap_or_default();
        let taken_at = snapshots.first().map(|s| Instant::now().checked_sub(age(s)).unwrap_or_else(Instant::now));
        self.safe = Safe { marker: None, began_as: None, taken_at, failed: self.safe.failed };
        let unchanged = snapshots.first().map(|s| s.id).filter(|_| !owned.changed);
        let mut place = self.kept(owned).await?;
        snapshots.reverse();
        let mut elsewhere = false;
        loop {
            if let Some(found) = place.take() {
                let (marker, began_as) = match &found {
                    Place::Kept(_) => (owned.marker.clone(), unchanged),
                    Place::Empty(_) => (None, None),
                    Place::Restored(_, snapshot, _) => (Some(snapshot.marker.clone()), Some(snapshot.id)),
                };
                (self.safe.marker, self.safe.began_as) = (marker, began_as);
                match self.start_in(&found, events.clone()).await? {
                    Tried::Browser(browser) => return Ok(Opened::Browser(browser, found.into_directory())),
                    Tried::Ends(after) => return Ok(Opened::Ends(after)),
                    Tried::Erased => self.pass_over(found).await,
                    Tried::Unreadable(why) => {
                        elsewhere = true;
                        self.put_aside(found, &why).await;
                    }
                }
            }
            let Some(snapshot) = snapshots.pop() else { break };
            // It may take long, and the session must not seem to work meanwhile.
            self.signal(Signal::BrowserStarting).await;
            match self.unless_told_to_end(snapshots::restore(&shared, &snapshot)).await {
                Err(ending) => return Ok(Opened::Ends(After::End(ending))),
                Ok(Ok(directory)) => {
                    let whole = unchanged == Some(snapshot.id);
                    place = Some(Place::Restored(directory, snapshot, whole));
                }
                Ok(Err(NotRestored::Refused(why))) => self.refuse(&snapshot, why).await,
                Ok(Err(NotRestored::Here(why))) => {
                    elsewhere = true;
                    tracing::error!(session = %shared.session(), error = %why, "a snapshot cannot be restored here");
                }
            }
        }
        self.lost(owned, elsewhere || owned.unrestored).await
    }

    /// The directory that the row names, if it is here; an empty one where no link can be lost with it.
    async fn kept(&self, owned: &Owned) -> Result<Option<Place>, Failed> {
        let data = &self.shared.services.browsers.config().data_dir;
        let named = match owned.profile.map(|id| id.to_string()) {
            Some(name) if ProfileDir::exists(data, &name)? => return Ok(Some(Place::Kept(ProfileDir::open(data, &name).await?))),
            named => named,
        };
        if named.is_some() && owned.account.is_some() {
            return Ok(None);
        }
        Ok(Some(Place::Empty(ProfileDir::open(data, &ProfileId::new().to_string()).await?)))
    }

    async fn start_in(&mut self, place: &Place, events: mpsc::Sender<PageEvent>) -> Result<Tried, Failed> {
        let shared = self.shared.clone();
        let services = &shared.services;
        self.signal(Signal::BrowserStarting).await;
        let (directory, source) = place.parts();
        directory.belongs_to(&shared.session().to_string());
        let major = i32::try_from(services.browsers.major())?;
        let started = self
            .unless_told_to_end(async {
                shared.lease.opens().await;
                let _turn = services.starts.acquire().await?;
                // Before the page gets the network: whoever finds another directory deletes it.
                if !profiles::begin(&services.pool, shared.lease.held(), directory.id().parse()?, major, source).await? {
                    return Err("no longer the owner".into());
                }
                match browser::start(&services.browsers, directory, self.safe.marker.as_deref(), events).await {
                    Ok(browser) => Ok(Tried::Browser(browser)),
                    Err(StartError::Erased) => Ok(Tried::Erased),
                    Err(StartError::Unreadable(why)) => Ok(Tried::Unreadable(why)),
                    Err(other) => Err(Failed::from(other)),
                }
            })
            .await;
        match started {
            Ok(tried) => tried,
            Err(ending) => Ok(Tried::Ends(After::End(ending))),
        }
    }

    /// Its storage does not hold its marker. A kept directory stays until the session works in another one: this may be wrong.
    async fn pass_over(&self, place: Place) {
        tracing::error!(session = %self.shared.session(), profile = place.parts().0.id(), "a profile's storage is gone: it is not used");
        metrics::counter!("zaguan_profiles_erased_total").increment(1);
        if let Place::Restored(_, snapshot, _) = &place {
            self.refuse(snapshot, Refused::Erased).await;
            snapshots::remove(&self.shared.services, place.into_directory()).await;
        }
    }

    /// Its storage cannot be opened here. That says nothing of what it holds: on a full disk none can. What is older may be whole all the same.
    async fn put_aside(&self, place: Place, why: &str) {
        tracing::error!(session = %self.shared.session(), profile = place.parts().0.id(), error = why, "a profile's storage cannot be opened here");
        if let Place::Restored(..) = &place {
            snapshots::remove(&self.shared.services, place.into_directory()).await;
        }
    }

    async fn refuse(&self, snapshot: &Snapshot, why: Refused) {
        tracing::error!(session = %self.shared.session(), epoch = snapshot.id.epoch, n = snapshot.id.n, why = why.as_str(), "a snapshot is refused");
        metrics::counter!("zaguan_snapshots_refused_total", "why" => why.as_str()).increment(1);
        let (pool, held) = (&self.shared.services.pool, self.shared.lease.held());
        let _ = until_known(&self.shared, || profiles::refuse(pool, held, snapshot.id, why)).await;
    }

    /// Nothing that was kept of the link can be used. `elsewhere`: here, as things are, so it is kept, and left to another host, or to a later
    /// try of this one; after that an operator is asked. But who logs the account out wants to be rid of it.
    async fn lost(&mut self, owned: &Owned, elsewhere: bool) -> Result<Opened, Failed> {
        let (pool, held) = (&self.shared.services.pool, self.shared.lease.held());
        if elsewhere && !self.visit && !owned.logout {
            metrics::counter!("zaguan_profiles_not_restored_total").increment(1);
            let within = self.shared.services.timings.restore_within();
            let ends = match until_known(&self.shared, || profiles::not_restored(pool, held, within)).await {
                Ok(Some(true)) => self.give_up(Signal::GaveUp(Reason::ProfileLost)).await,
                Ok(Some(false)) => {
                    self.shared.decline();
                    After::End(Ending::Drain)
                }
                Ok(None) | Err(_) => After::End(Ending::Fence),
            };
            return Ok(Opened::Ends(ends));
        }
        // Before the row names no directory: after a death in between it is announced twice, never not at all.
        let events = store::owned::announce_gap(pool, held).await?.ok_or("no longer the owner")?;
        recorder::publish(&self.shared, events).await;
        profiles::forget(pool, held).await?;
        Ok(Opened::Ends(self.give_up(Signal::LoggedOut(Reason::ProfileLost)).await))
    }

    /// A browser works in the profile of now: what it began as is good, and what is older may go.
    pub(super) async fn profile_works(&mut self, browser: &Browser) {
        let shared = self.shared.clone();
        if let Some(id) = self.safe.began_as.take() {
            let (pool, held) = (&shared.services.pool, shared.lease.held());
            let _ = until_known(&shared, || profiles::opened(pool, held, id)).await;
            let (data, session) = (shared.services.browsers.config().data_dir.clone(), shared.session().to_string());
            let but = browser.profile().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            shared.services.tasks.spawn_blocking(move || match browser::remove_stale(&data, &session, &but) {
                Ok(0) => {}
                Ok(gone) => tracing::info!(session, gone, "directories that the session has left were deleted"),
                Err(error) => tracing::warn!(session, %error, "directories that the session has left stay for now"),
            });
        }
        if self.safe.marker.is_none() {
            let word = contract::EventId::new().to_string();
            // A browser that stands still must not keep a fence waiting.
            match self.unless_told_to_end(tokio::time::timeout(super::account::CALL_WITHIN, browser.mark(&word))).await {
                Ok(Ok(Ok(word))) => self.safe.marker = Some(word),
                Err(_) => return,
                other => {
                    self.safe.failed += 1;
                    tracing::warn!(session = %shared.session(), ?other, "the profile is not marked yet: no snapshot is taken of it");
                }
            }
        }
        self.recycle_at(Instant::now());
    }
}

impl Place {
    fn parts(&self) -> (&Arc<ProfileDir>, Source<'_>) {
        match self {
            Self::Kept(directory) => (directory, Source::Kept),
            Self::Empty(directory) => (directory, Source::Empty),
            Self::Restored(directory, snapshot, whole) => (directory, Source::Restored { snapshot, whole: *whole }),
        }
    }

    fn into_directory(self) -> Arc<ProfileDir> {
        match self {
            Self::Kept(directory) | Self::Empty(directory) | Self::Restored(directory, ..) => directory,
        }
    }
}
