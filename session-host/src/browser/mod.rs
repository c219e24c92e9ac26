//! The only room that knows browsers: starts one, puts our driver into its page, carries calls in and events out, closes it cleanly.
//!
//! Calls and events ride on one DevTools socket, WebDriver beside it does what it is good at. What can be healed by loading the page
//! anew is healed here and reported; what needs another browser is reported and left to the session.
mod calls;
mod cdp;
mod chromium;
mod driver;
mod events;
mod handle;
mod keeper;
mod marker;
mod page;
pub mod process;
mod profile;
mod shared;
mod spawn;

pub use calls::{
    CallError, ChatInfo, ContactExists, FindMessage, FoundMessage, KnownContact, ListChats, ListContacts, Logout, MarkRead, MemberInfo,
    MessagesAbove, PageCall, PairingCode, People, Person, QrCode, RefreshQr, ResolveChat, ResolvedChat, Row, Rows, RowsHead, SendText,
    SentMessage, State, TakeOver,
};
pub use chromium::{EnvError, LaunchError};
pub use events::{PageAck, PageEvent, PageMessage, StreamState};
pub use handle::{Browser, Closed, StartError, start};
pub(crate) use profile::mark_closed;
pub use profile::{ProfileDir, ProfileError, end_leftovers, profiles, remove_profile, remove_stale, sweep_profile};
pub(crate) use shared::ended_by_itself;

use spawn::Spawner;
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long things in a browser may take.
#[derive(Debug, Clone)]
pub struct BrowserTimings {
    /// How often the page says that it lives; half as long again without it and the page is asked.
    pub beat: Duration,
    /// From a navigation to the page's core modules.
    pub gate_within: Duration,
    /// From our driver's arrival to its passed self-test.
    pub ready_within: Duration,
    /// For calls without a deadline of their own.
    pub call_default: Duration,
    /// For a clean close, before signals.
    pub close_within: Duration,
}

impl Default for BrowserTimings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { beat: s(30), gate_within: s(45), ready_within: s(30), call_default: s(30), close_within: s(5) }
    }
}

/// Which programs to use, and where.
#[derive(Debug, Clone)]
pub struct BrowserConfig {
    /// The browser's own binary: headless-shell or Chromium, no wrapper script.
    pub chromium: PathBuf,
    /// chromedriver of the same version.
    pub chromedriver: PathBuf,
    /// Switches after ours; of two equal ones Chromium takes the last.
    pub extra_args: Vec<String>,
    /// Profiles live in `profiles` below it.
    pub data_dir: PathBuf,
    /// Deadlines.
    pub timings: BrowserTimings,
}

/// A configuration that was checked once, and the thread that all programs are started from.
#[derive(Debug)]
pub struct BrowserEnv {
    config: BrowserConfig,
    version: String,
    major: u32,
    spawner: Spawner,
    temp: PathBuf,
}

impl BrowserEnv {
    /// Checks user, programs and directory, and asks the browser for its version.
    pub async fn check(config: BrowserConfig) -> Result<Arc<Self>, EnvError> {
        if rustix::process::getuid().is_root() {
            return Err(EnvError::Root);
        }
        if !page::has_bundle() {
            return Err(EnvError::NoBundle);
        }
        chromium::refuse_script(&config.chromium)?;
        chromium::refuse_script(&config.chromedriver)?;
        let io = |what| {
            let path = config.data_dir.display().to_string();
            move |source| EnvError::Io { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(io("cannot make"))?;
        let version = chromium::version(&config.chromium, &config.data_dir).await?;
        let major = version.split('.').next().and_then(|m| m.parse().ok());
        let major = major.ok_or_else(|| EnvError::NoVersion { path: config.chromium.display().to_string(), answer: version.clone() })?;
        let spawner = Spawner::new().map_err(io("cannot start a thread for"))?;
        let temp = spawn::temp_dir(&config.data_dir).map_err(io("cannot use"))?;
        Ok(Arc::new(Self { config, version, major, spawner, temp }))
    }

    /// The browser's version, such as `156.0.8078.79`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its major version. A profile must not be opened by an older one than it was last used with.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// As it was given.
    pub fn config(&self) -> &BrowserConfig {
        &self.config
    }

    /// Where browsers put what they need only while they run.
    pub(crate) fn temp(&self) -> &Path {
        &self.temp
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }
}
