//! How messages and receipts travel.

use serde_json::{Value, json};

use super::{Group, Refusal, Shown, SocketId, State, digits, now};
use crate::faults::Kind;

/// A message on its way.
struct Letter<'a> {
    id: &'a str,
    kind: &'a str,
    body: Option<&'a str>,
    at: u64,
    whole: &'a Value,
}

/// A message that the server took.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The server's time, seconds since 1970.
    pub at: u64,
    sender: String,
    chat: String,
    id: String,
    /// Phones that have it: the participant in a group.
    delivered: Vec<Option<String>>,
}

impl Letter<'_> {
    fn shown(&self, from: &str, from_me: bool, ack: u8) -> Shown {
        Shown {
            id: self.id.to_owned(),
            from: from.to_owned(),
            kind: self.kind.to_owned(),
            body: self.body.map(str::to_owned),
            ack,
            duplicates: 0,
            at: self.at,
            from_me,
            whole: self.whole.clone(),
        }
    }

    /// The frame for a page: `chat` as that page names it.
    fn frame(&self, chat: &str, from: &str, name: &str, from_me: bool, author: Option<&str>) -> Value {
        let mut m = self.whole.clone();
        m["id"] = json!(self.id);
        m["chat"] = json!(chat);
        m["from"] = json!(from);
        m["name"] = json!(name);
        m["fromMe"] = json!(from_me);
        m["ack"] = json!(1);
        m["t"] = json!(self.at);
        if let Some(author) = author {
            m["author"] = json!(author);
        }
        json!({"ev": "msg", "m": m})
    }
}

impl State {
    /// What a page needs after its hello or its link: who it is, whom it knows, then what it missed.
    pub fn sync(&mut self, id: SocketId) {
        let Some((phone, device)) = self.owner(id) else { return };
        let Some(account) = self.accounts.get(&phone) else { return };
        let contacts: Vec<Value> = self.accounts.values().filter(|a| a.phone != phone).map(|a| account.contact(a)).collect();
        let groups: Vec<Value> =
            self.groups.iter().filter(|(_, g)| g.members.contains(&phone)).map(|(id, g)| self.group_json(id, g)).collect();
        let frame = json!({
            "ev": "sync", "me": account.wid(), "lid": account.lid_wid(), "pushname": account.name, "contacts": contacts, "groups": groups,
            "lidMigrated": account.lid_migrated, "lidChats": self.lid_chats(account),
        });
        self.tell(id, frame);
        self.deliver(&phone, &device);
    }

    /// Sends a device what waits for it, where its page is there.
    fn deliver(&mut self, phone: &str, device: &str) {
        let sockets = self.sockets_of(phone, Some(device));
        let Some(socket) = sockets.first().copied() else { return };
        let Some(device) = self.accounts.get_mut(phone).and_then(|a| a.devices.iter_mut().find(|d| d.id == device)) else { return };
        let frames: Vec<Value> = device.pending.iter().filter(|f| f["sent"].as_u64() != Some(socket)).cloned().collect();
        device.pending.retain(|f| f["ev"] == "msg");
        for frame in &mut device.pending {
            frame["sent"] = json!(socket);
        }
        for mut frame in frames {
            if let Some(fields) = frame.as_object_mut() {
                fields.remove("sent");
            }
            self.tell(socket, frame);
        }
    }

    /// Queues a frame for the devices of an account, but for one, and sends it to those that are there.
    pub(super) fn fan_out(&mut self, phone: &str, frame: &Value, but: Option<&str>) {
        let twice = frame["ev"] == "msg" && self.faults.take(Kind::Redeliver, phone).is_some();
        let Some(account) = self.accounts.get_mut(phone) else { return };
        let devices: Vec<String> = account.devices.iter().map(|d| d.id.clone()).filter(|d| Some(d.as_str()) != but).collect();
        for device in account.devices.iter_mut().filter(|d| devices.contains(&d.id)) {
            device.pending.push_back(frame.clone());
            if twice {
                device.pending.push_back(frame.clone());
            }
        }
        for device in devices {
            self.deliver(phone, &device);
        }
    }

    /// A page has stored these messages.
    pub fn got(&mut self, id: SocketId, ids: &[Value]) {
        let Some((phone, device)) = self.owner(id) else { return };
        if let Some(device) = self.accounts.get_mut(&phone).and_then(|a| a.devices.iter_mut().find(|d| d.id == device)) {
            device.pending.retain(|f| f["ev"] != "msg" || !ids.contains(&f["m"]["id"]));
        }
    }

    /// A message from an account: by one of its pages (`device`) or its phone. The receipts are the caller's to give, by [`State::confirm`].
    pub fn send(&mut self, phone: &str, device: Option<&str>, message: &Value) -> Result<Sent, Refusal> {
        let id = message["id"].as_str().filter(|id| !id.is_empty()).ok_or(Refusal::NotFound("id"))?.to_owned();
        let chat = message["chat"].as_str().ok_or(Refusal::NotFound("chat"))?.to_owned();
        let (from, name, lid) = {
            let account = self.account(phone)?;
            (account.wid(), account.name.clone(), account.lid_wid())
        };
        let at = now();
        let letter =
            Letter { id: &id, kind: message["type"].as_str().unwrap_or("chat"), body: message["body"].as_str(), at, whole: message };
        self.stats.sends += u64::from(device.is_some());
        // Our own phone and other devices.
        let own_chat = self.canonical(&chat);
        self.account(phone)?.show(&own_chat, letter.shown(&from, true, 1));
        let group = chat.ends_with("@g.us");
        let copy = letter.frame(&self.seen_by(phone, &chat), &from, &name, true, group.then_some(lid.as_str()));
        self.fan_out(phone, &copy, device);
        // The recipients.
        let recipients = match self.groups.get(&chat) {
            Some(group) => group.members.iter().filter(|m| *m != phone).cloned().collect(),
            None => vec![self.account(&chat).map(|a| a.phone.clone()).unwrap_or_default()],
        };
        let mut sent = Sent { at, sender: phone.to_owned(), chat: chat.clone(), id: id.clone(), delivered: Vec::new() };
        for to in recipients.iter().filter(|to| !to.is_empty()) {
            let theirs = if group { chat.clone() } else { from.clone() };
            let fresh = self.account(to)?.show(&theirs, letter.shown(&from, false, 2));
            if !fresh {
                self.stats.duplicates += 1;
                continue;
            }
            let theirs = self.seen_by(to, &theirs);
            let frame = letter.frame(&theirs, &theirs, &name, false, group.then_some(lid.as_str()));
            self.fan_out(to, &frame, None);
            if self.account(to)?.online {
                sent.delivered.push(group.then(|| to.clone()));
            } else {
                self.account(to)?.undelivered.push((phone.to_owned(), chat.clone(), id.clone()));
            }
        }
        Ok(sent)
    }

    /// Two ticks for a message that reached phones.
    pub fn confirm(&mut self, sent: &Sent) {
        for participant in &sent.delivered {
            self.receipt(&sent.sender, &sent.chat, &sent.id, 2, participant.as_deref());
        }
    }

    /// A chat by one name: an account's LID chat is its phone chat.
    pub(super) fn canonical(&mut self, chat: &str) -> String {
        if chat.ends_with("@g.us") { chat.to_owned() } else { self.account(chat).map_or_else(|_| chat.to_owned(), |a| a.wid()) }
    }

    /// Tells a sender how far its message has come.
    fn receipt(&mut self, sender: &str, chat: &str, id: &str, ack: u8, participant: Option<&str>) {
        let own = self.canonical(chat);
        if let Some(shown) =
            self.accounts.get_mut(sender).and_then(|a| a.chats.get_mut(&own)).and_then(|c| c.iter_mut().find(|m| m.id == id))
        {
            shown.ack = shown.ack.max(ack);
        }
        let times = if self.faults.take(Kind::AckDuplicate, sender).is_some() { 2 } else { 1 };
        let participant = participant.map(|p| format!("{p}@c.us"));
        let chat = self.seen_by(sender, chat);
        for _ in 0..times {
            let frame = json!({"ev": "ack", "id": id, "chat": chat, "ack": ack, "t": now(), "participant": participant});
            self.fan_out(sender, &frame, None);
        }
    }

    /// An account has read a chat: everything the other side wrote gets its blue ticks.
    pub fn read(&mut self, phone: &str, chat: &str) -> Result<usize, Refusal> {
        let chat = self.canonical(chat);
        let (me, unread) = {
            let account = self.account(phone)?;
            let shown = account.chats.get_mut(&chat).ok_or(Refusal::NotFound("chat"))?;
            let unread: Vec<(String, String)> = shown
                .iter_mut()
                .filter(|m| !m.from_me && m.ack < 3)
                .map(|m| {
                    m.ack = 3;
                    (m.from.clone(), m.id.clone())
                })
                .collect();
            (account.wid(), unread)
        };
        let count = unread.len();
        for (from, id) in unread {
            let group = chat.ends_with("@g.us");
            let theirs = if group { chat.clone() } else { me.clone() };
            self.receipt(&digits(&from), &theirs, &id, 3, group.then(|| digits(&me)).as_deref());
        }
        Ok(count)
    }

    /// The phone loses or regains its connection. Back online, its messages are delivered.
    pub fn set_online(&mut self, phone: &str, online: bool) -> Result<(), Refusal> {
        let account = self.account(phone)?;
        account.online = online;
        let me = account.phone.clone();
        let due = if online { std::mem::take(&mut account.undelivered) } else { Vec::new() };
        for (sender, chat, id) in due {
            let group = chat.ends_with("@g.us");
            self.receipt(&sender, &chat, &id, 2, group.then_some(me.as_str()));
        }
        Ok(())
    }

    /// Makes a group.
    pub fn make_group(&mut self, phone: &str, subject: &str, members: &[Value]) -> Value {
        let id = format!("1203630000{:0>8}@g.us", self.number());
        let mut all = vec![phone.to_owned()];
        for member in members.iter().filter_map(Value::as_str) {
            if let Ok(account) = self.account(member) {
                all.push(account.phone.clone());
            }
        }
        let group = Group { subject: subject.to_owned(), members: all };
        let json = self.group_json(&id, &group);
        self.groups.insert(id, group);
        json
    }

    fn group_json(&self, id: &str, group: &Group) -> Value {
        let participants: Vec<Value> = group
            .members
            .iter()
            .enumerate()
            .filter_map(|(n, phone)| self.accounts.get(phone).map(|a| json!({"id": a.wid(), "lid": a.lid_wid(), "admin": n == 0})))
            .collect();
        json!({"id": id, "subject": group.subject, "participants": participants})
    }
}
