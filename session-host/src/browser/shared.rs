//! What the handles of a browser and its keeper both see.
use super::page::Link;
use std::process::ExitStatus;
use tokio::sync::watch;

/// How a browser's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its status, `None` when a signal ended it.
    pub(crate) status: Option<i32>,
    /// It ended by itself.
    pub(crate) clean: bool,
}

impl Exit {
    /// When nothing is known.
    pub(crate) const UNKNOWN: Self = Self { status: None, clean: false };
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { status: status.code(), clean: ended_by_itself(status.code()) }
    }
}

/// Told to end by `SIGTERM`, headless-shell closes in order and ends with status 143, Chromium with 0. A second `SIGTERM` meanwhile
/// ends either by the signal itself, which is no status (run).
pub(crate) fn ended_by_itself(code: Option<i32>) -> bool {
    matches!(code, Some(0 | 143))
}

/// The page, as a call needs to know it.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// `None` while the connection is lost.
    pub(crate) link: Option<Link>,
    /// The number of the current document; 0 before the first gate.
    pub(crate) document: u64,
    /// The driver's object. It dies with the document and with the connection.
    pub(crate) api: Option<String>,
    /// Whether the driver passed its self-test.
    pub(crate) ready: bool,
    /// Whether the browser is being closed: no more calls.
    pub(crate) closing: bool,
}

impl View {
    /// The document ended, or is about to.
    pub(crate) fn forget(&mut self) {
        self.api = None;
        self.ready = false;
    }
}

pub(crate) type Shared = watch::Sender<View>;
