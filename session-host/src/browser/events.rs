//! What a page tells us, as types. The page's side of each is in `page/src/events.ts`.
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// What a browser reports, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum PageEvent {
    /// The driver is in a new document; calls made in an older one get no answer any more.
    Document(u64),
    /// The driver is complete and its listeners answered the self-test: calls are taken from here on.
    Ready {
        /// The document's number.
        document: u64,
    },
    /// The page's connection to its server. A session works when it is ready, registered and in mode `MAIN`.
    Stream(StreamState),
    /// The text of the QR code to show.
    Qr {
        /// `None`: there is none any more, because it was scanned or the list is used up.
        code: Option<String>,
        /// How long the page shows it, in ms, if the page says so.
        ttl_ms: Option<u64>,
    },
    /// A message, incoming or own. Once per message id and document; a ciphertext only after its decryption.
    Message(Box<PageMessage>),
    /// Receipts.
    Ack(PageAck),
    /// What the phone hands over from before the link is stored in the page; told again when there was more.
    History,
    /// The page lives. Every [`BrowserTimings::beat`](super::BrowserTimings::beat).
    Beat,
    /// `Socket.state` of the page: `CONNECTED`, `OPENING`, `CONFLICT`, `UNPAIRED`, `UNPAIRED_IDLE`, …
    Socket(String),
    /// An announcement of the page that wa-js has no event for: `account_temporarily_banned_from_bridge`,
    /// `service_unavailable_503_from_bridge`, `logout_from_bridge`, `starting_logout_from_bridge`, `needs_update`.
    Cmd(String),
    /// The account was unlinked; the page is about to load anew, without it.
    LoggedOut {
        /// WhatsApp's reason, as the page spells it.
        reason: Option<String>,
    },
    /// Events `from..=to` of the page's numbering could not be had again: compare with its stored rows.
    Lost {
        /// The first number missed.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The site cannot be reached. It is tried again every 5 s; said once until a page loads.
    Unreachable {
        /// Chromium's word for it, such as `net::ERR_INTERNET_DISCONNECTED`.
        reason: String,
    },
    /// No beat, and no answer when asked: the page hangs. It is being loaded anew.
    Silent,
    /// The renderer crashed. The page is being loaded anew.
    Crashed,
    /// Loading anew has not helped several times: only a new browser may.
    Unwell {
        /// What was seen last.
        reason: String,
    },
    /// The browser's process has ended. Nothing follows.
    Closed {
        /// It ended by itself, its data whole.
        clean: bool,
        /// Its exit status, `None` when a signal ended it.
        status: Option<i32>,
    },
}

/// The page's connection to its server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamState {
    /// Whether credentials of a linked account are stored.
    pub registered: bool,
    /// `QR`, `SYNCING`, `MAIN`, `CONFLICT`, …
    pub mode: String,
    /// `NORMAL`, `OPENING`, `PAIRING`, …
    pub info: Option<String>,
    /// `Socket.state`, see [`PageEvent::Socket`].
    pub socket: Option<String>,
    /// Our phone-number id, such as `5511999990000@c.us`.
    pub me: Option<String>,
    /// Our hidden id (`…@lid`).
    pub me_lid: Option<String>,
    /// The name that we show to others.
    pub pushname: Option<String>,
    /// The page demands a newer version of itself.
    pub needs_update: bool,
}

/// A message as the page holds it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageMessage {
    /// The whole key, `<fromMe>_<chat>_<id part>[_<participant>]`.
    pub id: String,
    /// The part of the key that all devices share.
    pub id_part: String,
    /// Whether this account sent it, here or on another device.
    pub from_me: bool,
    /// The chat, as the key spells it.
    pub chat: String,
    /// The chat's hidden id, where known.
    pub chat_lid: Option<String>,
    /// The chat's phone-number id, where known.
    pub chat_phone: Option<String>,
    /// Who wrote it.
    pub sender: Option<String>,
    /// The sender's hidden id, where known.
    pub sender_lid: Option<String>,
    /// The sender's phone-number id, where known.
    pub sender_phone: Option<String>,
    /// WhatsApp's type: `chat` is text.
    #[serde(rename = "type")]
    pub kind: String,
    /// WhatsApp's subtype.
    pub subtype: Option<String>,
    /// The text, or the caption of a medium.
    pub body: Option<String>,
    /// Whether the text was cut.
    #[serde(default)]
    pub truncated: bool,
    /// WhatsApp's time, in seconds since 1970.
    pub t: i64,
    /// WhatsApp's ack: -1 failed, 0 pending, 1 server, 2 delivered, 3 read, 4 played.
    pub ack: i64,
    /// Arrived now, not by history sync.
    pub is_new: bool,
    /// The sender's own name for itself.
    pub notify_name: Option<String>,
    /// The key of the quoted message.
    pub quoted: Option<String>,
    /// The number of its stored row, where known.
    pub row_id: Option<u64>,
}

/// Receipts for messages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageAck {
    /// Whole keys, as one of the page's sources spells them: the chat may have its other form.
    pub ids: Vec<String>,
    /// Their id parts, in the same order.
    pub id_parts: Vec<String>,
    /// See [`PageMessage::ack`].
    pub ack: i64,
    /// The chat.
    pub chat: Option<String>,
    /// Who received or read, in a group.
    pub sender: Option<String>,
}

/// One entry of a batch. Read by itself: one that is not understood takes no other with it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) n: u64,
    pub(crate) name: String,
    pub(crate) heard: Result<Heard, serde_json::Error>,
}

#[derive(Deserialize)]
struct Head {
    n: u64,
    name: String,
}

#[derive(Deserialize)]
struct Numbered {
    name: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QrData {
    code: Option<String>,
    ttl_ms: Option<u64>,
}

/// What an entry means to the keeper of the page.
#[derive(Debug)]
pub(crate) enum Heard {
    /// For the session.
    Event(PageEvent),
    /// The verdict of the self-test: it listens.
    Ready,
    /// The verdict of the self-test: it does not, and why.
    Deaf(String),
}

impl Entry {
    /// Its number is read even where its data is not understood: that is how it can be told as lost.
    pub(crate) fn read(raw: &RawValue) -> Result<Self, serde_json::Error> {
        let Head { n, name } = serde_json::from_str(raw.get())?;
        Ok(Self { n, name, heard: serde_json::from_str(raw.get()).and_then(Numbered::parse) })
    }
}

impl Numbered {
    /// An entry that does not parse is an error of ours (page and host are built together), never dropped in silence.
    fn parse(self) -> Result<Heard, serde_json::Error> {
        let data = self.data;
        let event = match self.name.as_str() {
            "ready" => return Ok(Heard::Ready),
            "bad" => return Ok(Heard::Deaf(data.as_str().unwrap_or("no reason").to_owned())),
            "stream" => PageEvent::Stream(serde_json::from_value(data)?),
            "qr" => {
                let qr: QrData = serde_json::from_value(data)?;
                PageEvent::Qr { code: qr.code, ttl_ms: qr.ttl_ms }
            }
            "message" => PageEvent::Message(serde_json::from_value(data)?),
            "ack" => PageEvent::Ack(serde_json::from_value(data)?),
            "history" => PageEvent::History,
            "beat" => PageEvent::Beat,
            "socket" => PageEvent::Socket(serde_json::from_value(data)?),
            "cmd" => PageEvent::Cmd(serde_json::from_value(data)?),
            "logout" => PageEvent::LoggedOut { reason: serde_json::from_value(data)? },
            other => return Err(serde::de::Error::custom(format!("no event is called {other:?}"))),
        };
        Ok(Heard::Event(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(name: &str, data: Value) -> Result<Heard, serde_json::Error> {
        Numbered { name: name.into(), data }.parse()
    }

    #[test]
    fn a_message_event_is_read_whole_and_absent_fields_are_none() {
        let data = json!({"id": "false_1@lid_AB", "idPart": "AB", "fromMe": false, "chat": "1@lid", "chatLid": "1@lid", "chatPhone": "55@c.us",
            "sender": "1@lid", "type": "chat", "body": "hi", "t": 1700000000, "ack": 1, "isNew": true, "notifyName": "Ana"});
        let Heard::Event(PageEvent::Message(m)) = parse("message", data).unwrap() else { panic!("no message") };
        assert_eq!((m.chat_phone.as_deref(), m.kind.as_str(), m.quoted.as_deref(), m.truncated), (Some("55@c.us"), "chat", None, false));
    }

    #[test]
    fn the_verdicts_are_not_events_of_the_session() {
        assert!(matches!(parse("ready", json!({"ms": 3})).unwrap(), Heard::Ready));
        assert!(matches!(parse("bad", json!("deaf: acks")).unwrap(), Heard::Deaf(why) if why == "deaf: acks"));
    }

    #[test]
    fn an_unknown_or_misshapen_event_is_an_error_and_not_silence() {
        assert!(parse("gossip", json!(null)).is_err());
        assert!(parse("ack", json!({"ack": "two"})).is_err());
    }
    #[test]
    fn an_entry_that_is_not_understood_keeps_its_number() {
        for data in [r#""half a character: \ud83d""#, r#"{"ack": "two"}"#] {
            let text = format!(r#"{{"n": 7, "name": "ack", "data": {data}}}"#);
            let entry = Entry::read(&RawValue::from_string(text).unwrap()).unwrap();
            assert_eq!((entry.n, entry.name.as_str(), entry.heard.is_err()), (7, "ack", true));
        }
    }
}
