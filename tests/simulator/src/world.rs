//! Accounts, their phones and linked devices, and what they send one another. In memory, behind one lock; nothing here waits.

mod account;
mod history;
mod lid;
mod linking;
mod routing;
mod shaping;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use account::{Account, Shown};
pub use history::{Contact, Past};

use crate::faults::{Fault, Faults, Kind};

/// What a page's socket is told.
#[derive(Debug, Clone)]
pub enum Out {
    /// A frame.
    Frame(Value),
    /// A frame that comes late, by so many milliseconds; those after it do not wait.
    Later(u64, Value),
    /// Close without a word.
    Close,
}

/// A page's socket, by number.
pub type SocketId = u64;

struct Socket {
    out: mpsc::UnboundedSender<Out>,
    /// Whose it is, once linked: account and device.
    owner: Option<(String, String)>,
    /// The code it shows now.
    code: Option<String>,
    /// The pairing code it shows.
    pairing: Option<linking::Pairing>,
    /// Frames that wait until another of their kind has passed.
    held: Vec<Value>,
}

/// Counts that tests assert on.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Frames that pages sent.
    pub frames: u64,
    /// Messages that pages sent and the server took.
    pub sends: u64,
    /// Messages whose id a recipient already had.
    pub duplicates: u64,
    /// QR codes issued.
    pub refs: u64,
    /// Sockets that said hello.
    pub hellos: u64,
    /// Pages that took their account back after a conflict.
    pub takeovers: u64,
    /// Names that pages asked for and the real page does not have, requests to other hosts, paths that are not served: see `/strict`.
    pub strays: u64,
}

/// What a page did that it could not do on the real site. Each once, in order.
#[derive(Debug, Default, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Strays {
    /// Modules and exports that the real page does not have: `Module` or `Module.export`.
    pub names: BTreeSet<String>,
    /// Addresses outside web.whatsapp.com that were asked for.
    pub requests: BTreeSet<String>,
    /// Paths and wire operations that nobody serves.
    pub unserved: BTreeSet<String>,
    /// Functions that the real page has, the simulator does not act out, and somebody called. No stray by itself.
    pub stubs: BTreeSet<String>,
}

/// Everything behind the lock.
#[derive(Default)]
pub struct State {
    accounts: HashMap<String, Account>,
    groups: HashMap<String, Group>,
    sockets: HashMap<SocketId, Socket>,
    /// Armed faults.
    pub faults: Faults,
    /// Counters.
    pub stats: Stats,
    /// What pages did beside the real page.
    pub strays: Strays,
    /// Why devices were removed that may come again.
    removed: HashMap<String, String>,
    /// Uploaded media by hash.
    pub blobs: HashMap<String, bytes::Bytes>,
    next: u64,
}

/// A group: subject and the phones of its members.
#[derive(Debug, Clone)]
pub struct Group {
    subject: String,
    members: Vec<String>,
}

/// The world of one simulator.
#[derive(Default)]
pub struct World(Mutex<State>);

/// Why the control API refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such account, device, fault or message.
    NotFound(&'static str),
    /// Not now: a code that is not shown (any more).
    Conflict(&'static str),
}

impl World {
    /// The state, to look at or change.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digits of a phone number or the user part of an address.
pub fn digits(text: &str) -> String {
    text.split(['@', ':']).next().unwrap_or(text).trim_start_matches('+').to_owned()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Makes an account, or renames it.
    pub fn make_account(&mut self, phone: &str, name: Option<String>, lid: Option<String>) -> Value {
        let phone = digits(phone);
        let lid = lid.map_or_else(|| format!("1{:0>14}", phone.get(phone.len().saturating_sub(11)..).unwrap_or(&phone)), |l| digits(&l));
        let account = self.accounts.entry(phone.clone()).or_insert_with(|| Account::new(phone, lid));
        if let Some(name) = name {
            account.name = name;
        }
        json!({"phone": account.phone, "lid": account.lid_wid(), "name": account.name})
    }

    /// The account of a phone number, phone address or LID.
    pub fn account(&mut self, who: &str) -> Result<&mut Account, Refusal> {
        let user = digits(who);
        let phone =
            if who.ends_with("@lid") { self.accounts.values().find(|a| a.lid == user).map(|a| a.phone.clone()) } else { Some(user) };
        phone.and_then(|p| self.accounts.get_mut(&p)).ok_or(Refusal::NotFound("account"))
    }

    /// Everything as at the start, sockets closed.
    pub fn reset(&mut self) {
        for socket in self.sockets.values() {
            let _ = socket.out.send(Out::Close);
        }
        *self = Self { next: self.next, ..Self::default() };
    }

    /// A page has connected. `None`: refused.
    pub fn connect(&mut self, out: mpsc::UnboundedSender<Out>) -> SocketId {
        let id = self.number();
        self.sockets.insert(id, Socket { out, owner: None, code: None, pairing: None, held: Vec::new() });
        id
    }

    /// A page is gone.
    pub fn disconnect(&mut self, id: SocketId) {
        self.sockets.remove(&id);
    }

    /// Whose the socket is.
    pub fn owner(&self, id: SocketId) -> Option<(String, String)> {
        self.sockets.get(&id)?.owner.clone()
    }

    /// Cuts one socket.
    pub fn cut(&self, id: SocketId) {
        if let Some(socket) = self.sockets.get(&id) {
            let _ = socket.out.send(Out::Close);
        }
    }

    fn sockets_of(&self, phone: &str, device: Option<&str>) -> Vec<SocketId> {
        let ours = |s: &Socket| s.owner.as_ref().is_some_and(|(p, d)| p == phone && device.is_none_or(|device| device == d));
        self.sockets.iter().filter(|(_, s)| ours(s)).map(|(id, _)| *id).collect()
    }

    /// Arms a fault; those that act at once do so.
    pub fn fault(&mut self, fault: Fault) -> u64 {
        let frame = match fault.kind {
            Kind::Conflict => Some(json!({"ev": "conflict"})),
            Kind::Ban => Some(json!({"ev": "ban", "seconds": 3_600})),
            Kind::Hang => Some(json!({"ev": "hang", "ms": fault.ms.unwrap_or(5_000)})),
            Kind::Update => Some(json!({"ev": "update"})),
            Kind::Unavailable => Some(json!({"ev": "unavailable"})),
            Kind::Wipe => Some(json!({"ev": "wipe"})),
            Kind::KillSocket => None,
            _ => return self.faults.arm(fault),
        };
        let account = fault.account.as_deref().map(digits);
        let concerned: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, s)| account.is_none() || s.owner.as_ref().map(|(p, _)| p) == account.as_ref())
            .map(|(id, _)| *id)
            .collect();
        for id in concerned {
            match &frame {
                Some(frame) => self.tell(id, frame.clone()),
                None => self.cut(id),
            }
        }
        self.number()
    }

    /// Remembers what a page did beside the real page.
    pub fn stray(&mut self, what: &str, text: &str) {
        let strays = &mut self.strays;
        let list = match what {
            "name" => &mut strays.names,
            "request" => &mut strays.requests,
            "unserved" => &mut strays.unserved,
            _ => &mut strays.stubs,
        };
        if list.insert(text.to_owned()) && what != "stub" {
            self.stats.strays += 1;
        }
    }
}
