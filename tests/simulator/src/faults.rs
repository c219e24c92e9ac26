//! Misbehaviour on command.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A kind of misbehaviour, as the control API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acks of the server come `ms` late.
    AckDelay,
    /// Acks are not sent.
    AckDrop,
    /// Acks are sent twice.
    AckDuplicate,
    /// A send is answered with an error.
    SendError,
    /// The socket dies before the server has taken a send.
    LoseFrameBefore,
    /// The socket dies after the server has taken a send, before any answer.
    LoseFrameAfter,
    /// The sockets of the account are closed now.
    KillSocket,
    /// New sockets are refused.
    RefuseConnect,
    /// The page's scripts arrive `gapMs` apart.
    SlowModules,
    /// Another browser takes the account over, now.
    Conflict,
    /// WhatsApp restricts the account, now.
    Ban,
    /// QR codes live `ms`.
    QrFast,
    /// Syncing after linking takes `ms`, or until the fault is disarmed.
    SyncDelay,
    /// The next chunk of history comes `ms` after the one before.
    HistoryDelay,
    /// Messages are delivered twice.
    Redeliver,
    /// The page's main thread stalls for `ms`, now.
    Hang,
    /// Functions that the page only names throw.
    Strict,
    /// The next document lacks an export, or several: `export` names them, `Module.name`, with commas between.
    BreakExport,
    /// The next document says that it has synced `ms` after its version is known, at the earliest.
    SyncedAfter,
    /// Another browser has the account when a page comes back.
    ConflictOnConnect,
    /// The page is told that it is outdated, now.
    Update,
    /// The server says 503, now.
    Unavailable,
    /// The page's databases and storage are erased under its hands, now, and it loads anew.
    Wipe,
    /// Pairing codes live `ms`.
    PairingFast,
    /// No pairing code is given.
    PairingRefused,
    /// A pairing code that ends is not followed by another without the user.
    PairingManual,
    /// A frame is lost. `frame` names it: what the server says (`msg`, `ack`, `res`, `sync`, `history`, …) or the page asks (`send`, `got`, `read`, …).
    FrameDrop,
    /// A frame comes `ms` late; those after it do not wait.
    FrameDelay,
    /// A frame comes twice.
    FrameDuplicate,
    /// A frame of the server comes after the next one of its name.
    FrameReorder,
    /// The document is empty.
    BlankPage,
    /// The document is a 503.
    PageError,
    /// The document comes `ms` late.
    SlowStart,
    /// Uploads are refused with a 503.
    UploadError,
    /// Uploads take `ms`.
    UploadStall,
    /// Downloads are refused with a 410.
    DownloadGone,
}

/// An armed fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Set by the simulator.
    #[serde(default)]
    pub id: u64,
    /// What.
    pub kind: Kind,
    /// Only for this account (phone digits).
    #[serde(default)]
    pub account: Option<String>,
    /// How often; always, where it is not given.
    #[serde(default)]
    pub times: Option<u32>,
    /// Milliseconds, for those that take some.
    #[serde(default, alias = "gapMs")]
    pub ms: Option<u64>,
    /// The name of the frames that it befalls; all, where it is not given.
    #[serde(default)]
    pub frame: Option<String>,
    /// What `break_export` takes away.
    #[serde(default)]
    pub export: Option<String>,
    /// Anything else is refused by name.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// All that is armed.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Vec<Fault>,
    next: u64,
}

impl Faults {
    /// Arms one and answers its id.
    pub fn arm(&mut self, mut fault: Fault) -> u64 {
        self.next += 1;
        fault.id = self.next;
        fault.account = fault.account.map(|phone| phone.trim_start_matches('+').to_owned());
        self.armed.push(fault);
        self.next
    }

    /// Disarms one. `false`: not armed (any more).
    pub fn disarm(&mut self, id: u64) -> bool {
        let before = self.armed.len();
        self.armed.retain(|f| f.id != id);
        self.armed.len() < before
    }

    /// Whether one is still armed.
    pub fn is_armed(&self, id: u64) -> bool {
        self.armed.iter().any(|f| f.id == id)
    }

    /// Uses one of the kind, where it is armed for the account.
    pub fn take(&mut self, kind: Kind, account: &str) -> Option<Fault> {
        self.take_frame(kind, account, "")
    }

    /// Uses one of the kind, where it is armed for the account and the frame.
    pub fn take_frame(&mut self, kind: Kind, account: &str, frame: &str) -> Option<Fault> {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let at = self.armed.iter().position(|f| f.kind == kind && fits(&f.account, account) && fits(&f.frame, frame))?;
        let fault = self.armed[at].clone();
        if let Some(times) = &mut self.armed[at].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.armed.remove(at);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_as_often_as_it_was_armed_for_and_only_by_its_account() {
        let mut faults = Faults::default();
        faults.arm(serde_json::from_value(serde_json::json!({"kind": "ack_drop", "account": "+551", "times": 2})).unwrap());
        assert!(faults.take(Kind::AckDrop, "552").is_none());
        assert!(faults.take(Kind::AckDrop, "551").is_some() && faults.take(Kind::AckDrop, "551").is_some());
        assert!(faults.take(Kind::AckDrop, "551").is_none());
    }
}
