//! Devices: how a page is linked to a phone, comes back, and is let go.

use serde_json::{Value, json};

use super::{Out, Refusal, Socket, SocketId, State, account, digits, now};
use crate::faults::Kind;

/// How often a phone may enter a code for a page before the page must show another.
const ATTEMPTS: u32 = 3;

/// A pairing code that a page shows.
#[derive(Debug)]
pub struct Pairing {
    /// Told apart from the one before and after it.
    number: u64,
    phone: String,
    code: String,
    attempts: u32,
}

impl State {
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
        let phone = self.able_phone(phone)?;
        let shown = qr.split(',').next().unwrap_or(qr);
        let socket = self.sockets.iter().find(|(_, s)| s.owner.is_none() && s.code.as_deref() == Some(shown)).map(|(id, _)| *id);
        self.link(phone, socket.ok_or(Refusal::Conflict("the code is not shown (any more)"))?)
    }

    /// A phone that can link: connected and not banned.
    fn able_phone(&mut self, phone: &str) -> Result<String, Refusal> {
        let account = self.account(phone)?;
        if !account.online {
            return Err(Refusal::Conflict("the phone has no connection"));
        }
        if account.banned_until.is_some_and(|until| until > now()) {
            return Err(Refusal::Conflict("the account is banned"));
        }
        Ok(account.phone.clone())
    }

    /// A phone enters the pairing code that a page shows. Each try is seen by the page; the third wrong one ends the code.
    pub fn enter_code(&mut self, phone: &str, code: &str) -> Result<(SocketId, Value), Refusal> {
        let phone = self.able_phone(phone)?;
        let plain = code.replace('-', "");
        let pages: Vec<SocketId> =
            self.sockets.iter().filter(|(_, s)| s.owner.is_none() && s.pairs_with(&phone)).map(|(id, _)| *id).collect();
        if pages.is_empty() {
            return Err(Refusal::Conflict("no page shows a code for this number"));
        }
        for id in &pages {
            self.tell(*id, json!({"ev": "altlink", "what": "primary_hello"}));
        }
        if let Some(id) = pages.iter().find(|id| self.pairing(**id).is_some_and(|p| p.code == plain)) {
            return self.link(phone, *id);
        }
        let mut over = false;
        for id in pages {
            let Some(pairing) = self.sockets.get_mut(&id).and_then(|s| s.pairing.as_mut()) else { continue };
            pairing.attempts += 1;
            if pairing.attempts >= ATTEMPTS {
                let number = pairing.number;
                self.end_pairing(id, number);
                over = true;
            }
        }
        Err(Refusal::Conflict(if over { "the code is wrong, for the last time" } else { "the code is wrong" }))
    }

    fn pairing(&self, id: SocketId) -> Option<&Pairing> {
        self.sockets.get(&id)?.pairing.as_ref()
    }

    /// A pairing code for a page and a number, in place of the one before. `None`: the server gives no more.
    pub fn pairing_code(&mut self, id: SocketId, phone: &str) -> Option<(u64, String)> {
        let phone = digits(phone);
        if self.faults.take(Kind::PairingRefused, &phone).is_some() {
            return None;
        }
        let number = self.number();
        let code: String = format!("{:0>8}", number * 7_919 % 100_000_000).chars().map(|c| char::from(b'A' + (c as u8 - b'0'))).collect();
        self.sockets.get_mut(&id)?.pairing = Some(Pairing { number, phone, code: code.clone(), attempts: 0 });
        Some((number, code))
    }

    /// A pairing code is used up: its page asks for another by itself, or must ask the user first.
    pub fn end_pairing(&mut self, id: SocketId, number: u64) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Some(pairing) = socket.pairing.take_if(|p| p.number == number) else { return };
        let manual = self.faults.take(Kind::PairingManual, &pairing.phone).is_some();
        self.tell(id, json!({"ev": "altlink", "what": if manual { "manual" } else { "refresh" }}));
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

    /// For how many seconds the account of a device is banned yet.
    pub fn banned(&self, device: &str) -> Option<u64> {
        let until = self.accounts.get(&self.account_of(device)?)?.banned_until?;
        until.checked_sub(now()).filter(|left| *left > 0)
    }

    /// Restricts an account for so many seconds, or no more (0): its pages are told and cut, and refused until then.
    pub fn ban(&mut self, phone: &str, seconds: u64) -> Result<(), Refusal> {
        let account = self.account(phone)?;
        account.banned_until = (seconds > 0).then(|| now() + seconds);
        let phone = account.phone.clone();
        if seconds > 0 {
            for id in self.sockets_of(&phone, None) {
                self.tell(id, json!({"ev": "ban", "seconds": seconds}));
                self.cut(id);
            }
        }
        Ok(())
    }

    /// Whether a fault gives the account to another browser, now that this page comes. The page is told.
    pub fn conflicts(&mut self, id: SocketId, device: &str) -> bool {
        let Some(phone) = self.account_of(device) else { return false };
        let taken = self.faults.take(Kind::ConflictOnConnect, &phone).is_some();
        if taken {
            self.tell(id, json!({"ev": "conflict"}));
        }
        taken
    }

    /// Why a device is not linked any more, as far as its page is told.
    pub fn why_removed(&self, device: &str) -> &str {
        self.removed.get(device).map_or("unknown_companion", String::as_str)
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
        self.removed.insert(device.to_owned(), reason.to_owned());
        for id in self.sockets_of(&phone, Some(device)) {
            self.tell(id, json!({"ev": "loggedout", "reason": reason}));
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.owner = None;
            }
        }
        Ok(())
    }
}

impl Socket {
    fn pairs_with(&self, phone: &str) -> bool {
        self.pairing.as_ref().is_some_and(|p| p.phone == phone)
    }
}
