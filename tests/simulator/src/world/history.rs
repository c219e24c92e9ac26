//! What a phone has from before a device was linked, and how it hands it over: in chunks, each kept until the page has stored it.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refusal, Shown, SocketId, State, digits, now};

/// Messages a chunk holds where nobody says otherwise.
pub const CHUNK: usize = 100;
/// Types that change another message: history shows what became of it.
const CHANGES: [&str; 3] = ["reaction", "edit", "revoke"];

/// A past to make up: so many chats of so many messages, or what `items` says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Past {
    /// Private chats, with phones that are made for it.
    pub chats: u32,
    /// Messages in each, by turns from the other side and from us.
    pub messages: u32,
    /// How many of the newest from the other side are unread, in each.
    pub unread: u32,
    /// Messages a chunk holds when the phone hands them over.
    pub chunk: Option<usize>,
    /// Seconds since 1970 of the newest message; an hour ago where it is not given. Each before it is a minute older.
    pub until: Option<u64>,
    /// Single messages.
    pub items: Vec<Item>,
}

/// A single message of the past.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// Phone, or id of a group.
    pub chat: String,
    /// Who wrote it in a group.
    pub author: Option<String>,
    /// Whether we wrote it.
    #[serde(default)]
    pub from_me: bool,
    /// The text.
    pub text: String,
    /// Seconds since 1970.
    pub at: u64,
    /// The id part of its key; made where it is not given.
    pub id: Option<String>,
    /// 1 sent, 2 delivered, 3 read.
    pub ack: Option<u8>,
}

/// An entry of an address book.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Digits; the account is made if there is none.
    pub phone: String,
    /// Under which name it is saved; not saved without one.
    pub name: Option<String>,
    /// The name it gave itself.
    pub pushname: Option<String>,
    /// Its hidden id, for a new account.
    pub lid: Option<String>,
}

impl State {
    /// Writes into an account's address book; pages that are linked are told.
    pub fn save_contacts(&mut self, phone: &str, book: Vec<Contact>) -> Result<Vec<Value>, Refusal> {
        let phone = self.account(phone)?.phone.clone();
        let mut saved = Vec::new();
        for entry in book {
            saved.push(self.make_account(&entry.phone, entry.pushname, entry.lid));
            let other = digits(&entry.phone);
            self.account(&phone)?.book.insert(other.clone(), entry.name);
            self.announce(&phone, &other);
        }
        Ok(saved)
    }

    /// Gives a phone a past. Answers its new chats.
    pub fn make_history(&mut self, phone: &str, past: Past) -> Result<Vec<Value>, Refusal> {
        let me = self.account(phone)?.phone.clone();
        if let Some(chunk) = past.chunk {
            self.account(&me)?.chunk = chunk.max(1);
        }
        let mut chats = Vec::new();
        for n in 0..past.chats {
            let peer = format!("5599{:0>9}", self.number());
            let made = self.make_account(&peer, Some(format!("History {}", n + 1)), None);
            let until = past.until.unwrap_or_else(|| now() - 3_600) - u64::from(n);
            let ids: Vec<String> = (0..past.messages).map(|m| self.remember(&me, &peer, m, &past, until)).collect();
            chats.push(json!({"phone": peer, "lid": made["lid"], "name": made["name"], "ids": ids}));
        }
        for item in past.items {
            self.place(&me, item)?;
        }
        Ok(chats)
    }

    /// One made-up message: the odd ones are ours.
    fn remember(&mut self, me: &str, peer: &str, n: u32, past: &Past, until: u64) -> String {
        let id = format!("3A{:0>18X}", self.number());
        let from_me = !n.is_multiple_of(2);
        let unread = !from_me && (past.messages - n).div_ceil(2) <= past.unread;
        let item = Item {
            chat: peer.to_owned(),
            author: None,
            from_me,
            text: format!("history {} of {peer}", n + 1),
            at: until - u64::from(past.messages - 1 - n) * 60,
            id: Some(id.clone()),
            ack: Some(if unread { 2 } else { 3 }),
        };
        // Both accounts are there.
        let _ = self.place(me, item);
        id
    }

    /// Puts a message where the phone would show it.
    fn place(&mut self, me: &str, item: Item) -> Result<(), Refusal> {
        let chat = if item.chat.contains('@') { self.canonical(&item.chat) } else { self.account(&item.chat)?.wid() };
        let id = item.id.unwrap_or_else(|| format!("3A{:0>18X}", self.number()));
        let author = match item.author {
            Some(author) => self.account(&author)?.wid(),
            None => chat.clone(),
        };
        let account = self.account(me)?;
        let from = if item.from_me { account.wid() } else { author };
        let message = Shown {
            id,
            from,
            kind: "chat".to_owned(),
            body: Some(item.text),
            ack: item.ack.unwrap_or(3),
            duplicates: 0,
            at: item.at,
            from_me: item.from_me,
            whole: json!({}),
        };
        account.show(&chat, message);
        Ok(())
    }

    /// All that a phone shows, newest chats first, in chunks. The last one says 100 percent; where nothing is, it is the only one.
    pub(super) fn history_of(&mut self, phone: &str) -> VecDeque<Value> {
        let Some(account) = self.accounts.get(phone) else { return VecDeque::new() };
        let size = account.chunk;
        let mut chats: Vec<(String, Vec<Shown>)> = account.chats.iter().map(|(id, shown)| (id.clone(), settled(shown))).collect();
        chats.sort_by_key(|(id, shown)| (std::cmp::Reverse(shown.iter().map(|m| m.at).max()), id.clone()));
        let mut metas = VecDeque::new();
        let mut messages = Vec::new();
        for (chat, mut shown) in chats {
            shown.sort_by_key(|m| m.at);
            let unread = shown.iter().filter(|m| !m.from_me && m.ack < 3).count();
            let seen = self.seen_by(phone, &chat);
            metas.push_back(json!({"id": seen, "unread": unread, "t": shown.last().map(|m| m.at)}));
            for m in &shown {
                messages.push(self.past_frame(&seen, &chat, m));
            }
        }
        let total = messages.len().div_ceil(size).max(1);
        let part = |n: usize| messages.iter().skip(n * size).take(size).cloned().collect::<Vec<Value>>();
        (0..total)
            .map(|n| {
                let msgs = part(n);
                // A chat comes with the chunk that has its first message, so that it is never there without one.
                let mut with = Vec::new();
                while metas.front().is_some_and(|c| n + 1 == total || msgs.iter().any(|m| m["chat"] == c["id"])) {
                    with.extend(metas.pop_front());
                }
                json!({"ev": "history", "chunk": n + 1, "progress": (n + 1) * 100 / total, "chats": with, "msgs": msgs})
            })
            .collect()
    }

    /// A stored message as a page takes it, its chat as that page names it.
    fn past_frame(&mut self, seen: &str, chat: &str, m: &Shown) -> Value {
        let (name, lid) = self.account(&m.from).map(|a| (a.name.clone(), a.lid_wid())).unwrap_or_default();
        let mut frame = if m.whole.is_object() { m.whole.clone() } else { json!({}) };
        let group = chat.ends_with("@g.us");
        let from = if group || m.from_me { m.from.as_str() } else { seen };
        for (key, value) in [
            ("id", json!(m.id)),
            ("chat", json!(seen)),
            ("from", json!(from)),
            ("name", json!(name)),
            ("fromMe", json!(m.from_me)),
            ("type", json!(m.kind)),
            ("body", json!(m.body)),
            ("ack", json!(m.ack)),
            ("t", json!(m.at)),
        ] {
            frame[key] = value;
        }
        if group {
            frame["author"] = json!(lid);
        }
        frame
    }

    /// Sends the chunk after `last` to a page; `None`: there is none, or the page is gone.
    pub fn send_history(&mut self, id: SocketId, last: Option<u64>) -> Option<u64> {
        let (phone, device) = self.owner(id)?;
        let device = self.accounts.get(&phone)?.devices.iter().find(|d| d.id == device)?;
        let frame = device.history.iter().find(|f| last.is_none_or(|last| f["chunk"].as_u64() > Some(last)))?.clone();
        let chunk = frame["chunk"].as_u64()?;
        self.tell(id, frame);
        Some(chunk)
    }

    /// A page has stored a chunk.
    pub fn got_history(&mut self, id: SocketId, chunk: u64) {
        let Some((phone, device)) = self.owner(id) else { return };
        if let Some(device) = self.accounts.get_mut(&phone).and_then(|a| a.devices.iter_mut().find(|d| d.id == device)) {
            device.history.retain(|f| f["chunk"].as_u64() != Some(chunk));
        }
    }
}

/// Messages as they are now: edited, revoked, without the entries that say so.
fn settled(shown: &[Shown]) -> Vec<Shown> {
    let target = |m: &Shown| m.whole["target"].as_str().map(str::to_owned);
    let mut now: Vec<Shown> = shown.iter().filter(|m| !CHANGES.contains(&m.kind.as_str())).cloned().collect();
    for change in shown.iter().filter(|m| CHANGES.contains(&m.kind.as_str())) {
        let Some(about) = now.iter_mut().find(|m| Some(&m.id) == target(change).as_ref()) else { continue };
        match change.kind.as_str() {
            "edit" => about.body.clone_from(&change.body),
            "revoke" => (about.kind, about.body) = ("revoked".to_owned(), None),
            _ => {}
        }
    }
    now
}
