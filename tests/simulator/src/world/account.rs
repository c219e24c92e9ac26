//! One WhatsApp account: its phone and the devices linked to it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::Serialize;
use serde_json::{Value, json};

/// A message as a phone shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The id part of its key.
    pub id: String,
    /// Who wrote it (address).
    pub from: String,
    /// WhatsApp's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub body: Option<String>,
    /// 1 sent, 2 delivered, 3 read.
    pub ack: u8,
    /// How often a message with this id arrived again.
    pub duplicates: u32,
    /// Seconds since 1970.
    pub at: u64,
    #[serde(skip)]
    pub(super) from_me: bool,
    /// What a page sent beside the above: media, quotes, mentions.
    #[serde(skip)]
    pub(super) whole: Value,
}

/// A linked device, and what it has not got yet.
#[derive(Debug)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Frames in order: messages stay until the page says that it has them, the rest until it is sent.
    pub pending: VecDeque<Value>,
    /// Chunks of the phone's past in order, until the page says that it has stored them.
    pub history: VecDeque<Value>,
}

impl Device {
    /// A device that has missed nothing.
    pub fn new(id: String) -> Self {
        Self { id, pending: VecDeque::new(), history: VecDeque::new() }
    }
}

/// An account.
#[derive(Debug)]
pub struct Account {
    /// Digits.
    pub phone: String,
    /// Digits of its hidden id.
    pub lid: String,
    /// The name it gave itself.
    pub name: String,
    /// Whether its phone is connected.
    pub online: bool,
    /// Linked devices.
    pub devices: Vec<Device>,
    /// What the phone shows, by chat.
    pub chats: HashMap<String, Vec<Shown>>,
    /// Names in its address book, by phone. `None`: a number that it talks to and has not saved.
    pub(super) book: HashMap<String, Option<String>>,
    /// Whether its pages keep every private chat under the hidden id.
    pub(super) lid_migrated: bool,
    /// Phones whose chats alone are kept under the hidden id.
    pub(super) lid_chats: BTreeSet<String>,
    /// Messages a chunk of history holds.
    pub(super) chunk: usize,
    /// Until when WhatsApp keeps it out, seconds since 1970.
    pub(super) banned_until: Option<u64>,
    /// Messages that wait for the phone to come online.
    pub(super) waiting: Vec<Waiting>,
}

/// A message that a phone without a connection does not show yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Whom its receipt goes to.
    pub(super) sender: String,
    /// The chat as the sender names it.
    pub(super) chat: String,
    /// The chat that it will be shown in.
    pub(super) shown_in: String,
    pub(super) message: Shown,
}

impl Account {
    /// A new account, online, with nothing linked.
    pub fn new(phone: String, lid: String) -> Self {
        let name = format!("User {}", phone.get(phone.len().saturating_sub(4)..).unwrap_or(&phone));
        Self {
            phone,
            lid,
            name,
            online: true,
            devices: Vec::new(),
            chats: HashMap::new(),
            book: HashMap::new(),
            lid_migrated: false,
            lid_chats: BTreeSet::new(),
            chunk: super::history::CHUNK,
            banned_until: None,
            waiting: Vec::new(),
        }
    }

    /// Its phone-number address.
    pub fn wid(&self) -> String {
        format!("{}@c.us", self.phone)
    }

    /// Its hidden address.
    pub fn lid_wid(&self) -> String {
        format!("{}@lid", self.lid)
    }

    /// `other` as this account's pages know it: the saved name, and the one that `other` gave itself.
    pub fn contact(&self, other: &Self) -> Value {
        let name = self.book.get(&other.phone).map_or_else(|| Some(other.name.clone()), Clone::clone);
        json!({"id": other.wid(), "lid": other.lid_wid(), "name": name, "pushname": other.name})
    }

    /// A message arrives at the phone, which shows it once it has a connection. `false`: it was there already, and is counted.
    pub(super) fn receive(&mut self, sender: &str, chat: &str, shown_in: &str, message: Shown) -> bool {
        if self.online {
            return self.show(shown_in, message);
        }
        let known = self.chats.get(shown_in).is_some_and(|shown| shown.iter().any(|m| m.id == message.id));
        if let Some(waiting) = self.waiting.iter_mut().find(|w| w.shown_in == shown_in && w.message.id == message.id) {
            waiting.message.duplicates += 1;
            return false;
        }
        if known {
            return self.show(shown_in, message);
        }
        let (sender, chat, shown_in) = (sender.to_owned(), chat.to_owned(), shown_in.to_owned());
        self.waiting.push(Waiting { sender, chat, shown_in, message });
        true
    }

    /// Shows a message on the phone. `false`: it was there already, and is counted.
    pub(super) fn show(&mut self, chat: &str, message: Shown) -> bool {
        let shown = self.chats.entry(chat.to_owned()).or_default();
        if let Some(known) = shown.iter_mut().find(|m| m.id == message.id) {
            known.duplicates += 1;
            return false;
        }
        shown.push(message);
        true
    }
}
