//! What the handles of a browser and its keeper both see.
use super::page::Link;
use tokio::sync::watch;

/// How a browser's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its status, `None` when a signal ended it.
    pub(crate) status: Option<i32>,
}

impl Exit {
    pub(crate) fn clean(self) -> bool {
        self.status == Some(0)
    }
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
