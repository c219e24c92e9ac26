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
    /// Messages whose receipt waits for the phone to come online: sender's phone, chat as the sender names it, id.
    pub(super) undelivered: Vec<(String, String, String)>,
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
            undelivered: Vec::new(),
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
