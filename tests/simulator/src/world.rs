//! Accounts, their phones and linked devices, and what they send one another. In memory, behind one lock; nothing here waits.

mod account;
mod history;
mod lid;
mod routing;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
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
    /// The pairing code it shows, and for which number.
    pairing: Option<(String, String)>,
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
        self.sockets.insert(id, Socket { out, owner: None, code: None, pairing: None });
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

    /// Tells one socket.
    pub fn tell(&self, id: SocketId, frame: Value) {
        if let Some(socket) = self.sockets.get(&id) {
            let _ = socket.out.send(Out::Frame(frame));
        }
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

    /// Issues the next code to an unlinked page. `false`: it is gone or linked by now.
    pub fn issue_code(&mut self, id: SocketId, ttl_ms: u64) -> bool {
        if self.sockets.get(&id).is_none_or(|s| s.owner.is_some()) {
            return false;
        }
        self.stats.refs += 1;
        let code = format!("2@{}{}", self.number(), "x".repeat(60));
        self.tell(id, json!({"ev": "ref", "ref": code, "ttl": ttl_ms}));
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.code = Some(code);
        }
        true
    }

    /// The page's list of codes is used up.
    pub fn no_code(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id).filter(|s| s.owner.is_none()) {
            socket.code = None;
            let _ = socket.out.send(Out::Frame(json!({"ev": "idle"})));
        }
    }

    /// A phone scans what a page shows.
    pub fn scan(&mut self, phone: &str, qr: &str) -> Result<(SocketId, Value), Refusal> {
        let phone = self.account(phone)?.phone.clone();
        let shown = qr.split(',').next().unwrap_or(qr);
        let socket = self.sockets.iter().find(|(_, s)| s.owner.is_none() && s.code.as_deref() == Some(shown)).map(|(id, _)| *id);
        self.link(phone, socket.ok_or(Refusal::Conflict("the code is not shown (any more)"))?)
    }

    /// A phone enters the pairing code that a page shows.
    pub fn enter_code(&mut self, phone: &str, code: &str) -> Result<(SocketId, Value), Refusal> {
        let phone = self.account(phone)?.phone.clone();
        let plain = code.replace('-', "");
        let fits = |s: &Socket| s.owner.is_none() && s.pairing.as_ref().is_some_and(|(p, c)| *p == phone && *c == plain);
        let socket = self.sockets.iter().find(|(_, s)| fits(s)).map(|(id, _)| *id);
        self.link(phone, socket.ok_or(Refusal::Conflict("no page shows this code for this number"))?)
    }

    /// A pairing code for a page and a number.
    pub fn pairing_code(&mut self, id: SocketId, phone: &str) -> String {
        let code: String =
            format!("{:0>8}", self.number() * 7_919 % 100_000_000).chars().map(|c| char::from(b'A' + (c as u8 - b'0'))).collect();
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.pairing = Some((digits(phone), code.clone()));
        }
        code
    }

    fn link(&mut self, phone: String, id: SocketId) -> Result<(SocketId, Value), Refusal> {
        let mut linked = account::Device::new(format!("dev{}", self.number()));
        let device = linked.id.clone();
        linked.history = self.history_of(&phone);
        let account = self.account(&phone)?;
        account.devices.push(linked);
        let creds = json!({"device": device, "me": account.wid(), "lid": account.lid_wid(), "pushname": account.name});
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.owner = Some((phone, device));
            (socket.code, socket.pairing) = (None, None);
        }
        self.tell(id, json!({"ev": "paired", "creds": creds}));
        Ok((id, creds))
    }

    fn account_of(&self, device: &str) -> Option<String> {
        self.accounts.values().find(|a| a.devices.iter().any(|d| d.id == device)).map(|a| a.phone.clone())
    }

    /// Whether a fault keeps this device out. One for all accounts acts before the hello, where nobody knows yet who comes.
    pub fn refuses(&mut self, device: &str) -> bool {
        self.account_of(device).is_some_and(|phone| self.faults.take(Kind::RefuseConnect, &phone).is_some())
    }

    /// A page that kept its credentials. `false`: the device is not linked any more.
    pub fn resume(&mut self, id: SocketId, device: &str) -> bool {
        self.stats.hellos += 1;
        let Some(phone) = self.account_of(device) else { return false };
        for other in self.sockets_of(&phone, Some(device)) {
            self.tell(other, json!({"ev": "conflict"}));
            if let Some(socket) = self.sockets.get_mut(&other) {
                socket.owner = None;
            }
        }
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.owner = Some((phone, device.to_owned()));
        }
        true
    }

    /// Unlinks a device: its page is told.
    pub fn remove_device(&mut self, phone: &str, device: &str, reason: &str) -> Result<(), Refusal> {
        let account = self.account(phone)?;
        let before = account.devices.len();
        account.devices.retain(|d| d.id != device);
        if account.devices.len() == before {
            return Err(Refusal::NotFound("device"));
        }
        let phone = account.phone.clone();
        for id in self.sockets_of(&phone, Some(device)) {
            self.tell(id, json!({"ev": "loggedout", "reason": reason}));
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.owner = None;
            }
        }
        Ok(())
    }

    /// Arms a fault; those that act at once do so.
    pub fn fault(&mut self, fault: Fault) -> u64 {
        let frame = match fault.kind {
            Kind::Conflict => Some(json!({"ev": "conflict"})),
            Kind::Ban => Some(json!({"ev": "ban", "minutes": 60})),
            Kind::Hang => Some(json!({"ev": "hang", "ms": fault.ms.unwrap_or(5_000)})),
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
}
