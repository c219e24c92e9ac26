//! What a page can be asked, as types. The page's side of each is in `page/src/calls.ts`.
use super::events::{PageMessage, StreamState};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A call into the page: its arguments are the value itself.
pub trait PageCall: Serialize + Sync {
    /// The name that the page knows it by.
    const NAME: &'static str;
    /// What it answers.
    type Answer: DeserializeOwned;
}

/// Why a call has no answer. What may have happened in the page differs, so callers must tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No document takes calls now; this one was not handed over.
    #[error("the page takes no calls yet")]
    NotReady,
    /// The page answered that it did not do it, or did it in part.
    #[error("the page answered {code}: {message}")]
    Page {
        /// wa-js's code, or one of ours: `duplicate_id`, `chat_mismatch`, `unknown_call`, …
        code: String,
        /// For people.
        message: String,
    },
    /// No answer in time. The call goes on in the page; repeating it with the same call id joins it.
    #[error("no answer in time")]
    Deadline,
    /// The connection to the browser was lost, the document was not. Repeating it with the same call id joins it.
    #[error("the connection to the browser was lost")]
    LostSocket,
    /// The document went away, and with it the answer. What was done is unknown.
    #[error("the document went away")]
    DocumentGone,
    /// The renderer crashed. What was done is unknown.
    #[error("the renderer crashed")]
    Crashed,
    /// The browser ended. What was done is unknown.
    #[error("the browser ended")]
    BrowserGone,
    /// The answer is not what this host understands. What was done is unknown.
    #[error("the answer is not understood: {0}")]
    Malformed(String),
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:literal $type:ident { $($(#[$field_doc:meta])* $field:ident : $field_type:ty),* $(,)? } -> $answer:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Serialize)]
            #[serde(rename_all = "camelCase")]
            pub struct $type { $($(#[$field_doc])* pub $field: $field_type,)* }

            impl PageCall for $type {
                const NAME: &'static str = $name;
                type Answer = $answer;
            }
        )*
    };
}

calls! {
    /// The page's connection to its server, now.
    "state" State {} -> StreamState;

    /// The text of the QR code that the page shows, `None` when it shows none.
    "qr" QrCode {} -> Option<String>;

    /// After the list of codes is used up (`UNPAIRED_IDLE`): asks for a new list. The codes come as events.
    "qr.refresh" RefreshQr {} -> ();

    /// Links by a code typed on the phone: answers the code, 8 characters.
    "pairingCode" PairingCode {
        /// Digits only, with country code.
        phone: String,
    } -> String;

    /// Which chat the page means by this id; a phone-number chat may come back as a hidden one. Makes none on the server.
    "chat.resolve" ResolveChat {
        /// Any form.
        chat: String,
    } -> ResolvedChat;

    /// Looks for a message under every form of its key that may be known, then by its id part.
    "message.find" FindMessage {
        /// Whole keys, the stored one first.
        keys: Vec<String>,
        /// The id part.
        id: String,
    } -> Option<FoundMessage>;

    /// Sends a text under our own id and does not wait for the server's ack, which comes as an event. A known id is refused with `duplicate_id`.
    "send.text" SendText {
        /// As [`ResolveChat`] answered it.
        chat: String,
        /// The text.
        text: String,
        /// The whole key. Its chat must be `chat`; in a group it ends in our participant id.
        key: String,
        /// The key of a message to quote.
        quoted: Option<String>,
        /// Whether the chat is marked as read as well.
        mark_read: bool,
    } -> SentMessage;

    /// Marks a chat as read.
    "chat.read" MarkRead {
        /// Any form.
        chat: String,
    } -> ();

    /// The highest row number of the page's message store, 0 when it is empty.
    "rows.head" RowsHead {} -> u64;

    /// Messages whose row number is above `row_id`, ascending, at most `limit` (1..=500).
    "messages.above" MessagesAbove {
        /// Exclusive.
        row_id: u64,
        /// At most so many.
        limit: u32,
    } -> Rows;

    /// Whether a number has an account.
    "contact.exists" ContactExists {
        /// Digits only, with country code.
        phone: String,
    } -> Option<KnownContact>;

    /// After another browser took the account over: takes it back. The page refuses where it was not.
    "takeover" TakeOver {} -> ();

    /// Unlinks this device. The page loads anew; [`PageEvent::LoggedOut`](super::PageEvent::LoggedOut) says when it is done.
    "logout" Logout {} -> ();

    /// The chats that the page knows, newest first.
    "chats.list" ListChats {
        /// How many to leave out.
        offset: u32,
        /// At most so many (1..=200).
        limit: u32,
    } -> Vec<ChatInfo>;

    /// The people that the page knows.
    "contacts.list" ListContacts {
        /// How many to leave out.
        offset: u32,
        /// At most so many (1..=200).
        limit: u32,
    } -> People;
}

/// A chat as the page spells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedChat {
    /// The id that a key of this chat must carry.
    pub chat: String,
    /// Whether it is a group.
    pub group: bool,
    /// Its hidden id, where known.
    pub lid: Option<String>,
    /// Its phone-number id, where known.
    pub phone: Option<String>,
    /// What a key of ours must end in: our hidden id in a group, nothing elsewhere.
    pub participant: Option<String>,
    /// Every form of our own id that an older key of ours may end in.
    #[serde(default)]
    pub mine: Vec<String>,
}

/// A message that the page has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FoundMessage {
    /// The whole key under which it lies.
    pub id: String,
    /// See [`PageMessage::ack`].
    pub ack: i64,
    /// See [`PageMessage::kind`].
    #[serde(rename = "type")]
    pub kind: String,
}

/// A message that the page took over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SentMessage {
    /// The whole key.
    pub id: String,
    /// See [`PageMessage::ack`]; 0 unless the server was very quick.
    pub ack: i64,
}

/// A piece of the page's message store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// Ascending by number. Entries that nobody wrote (notifications) are left out.
    pub rows: Vec<Row>,
    /// The highest row number looked at: where the next call begins.
    pub up_to: u64,
    /// Whether there are rows above the last one.
    pub more: bool,
}

/// One stored row.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its number.
    pub row_id: u64,
    /// The whole key.
    pub id: String,
    /// The message; `None` when the page cannot produce it (not yet decrypted, or its chat is gone), or not so that we understand it.
    #[serde(deserialize_with = "understood")]
    pub message: Option<PageMessage>,
}

/// One row that is not understood takes no other with it.
fn understood<'de, D: Deserializer<'de>>(message: D) -> Result<Option<PageMessage>, D::Error> {
    Ok(Option::<Value>::deserialize(message)?.and_then(|message| match serde_json::from_value(message) {
        Ok(message) => Some(message),
        Err(error) => {
            // Not the error itself: it quotes what it met.
            tracing::error!(category = ?error.classify(), "a row of the page is not understood");
            None
        }
    }))
}

/// A number that has an account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KnownContact {
    /// Its id.
    pub wid: String,
    /// Its hidden id, where known.
    pub lid: Option<String>,
    /// Its phone-number id, where known.
    pub phone: Option<String>,
}

/// A chat of the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its hidden id, where known.
    pub lid: Option<String>,
    /// Its phone-number id, where known.
    pub phone: Option<String>,
    /// Unread messages; -1 when marked as unread by hand.
    pub unread: i64,
    /// Whether it is archived.
    pub archived: bool,
    /// Time of its last message, in seconds since 1970.
    pub t: Option<i64>,
    /// Of a group: all its members, where the page has them.
    pub members: Option<Vec<MemberInfo>>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberInfo {
    /// Its id.
    pub id: String,
    /// Its hidden id, where known.
    pub lid: Option<String>,
    /// Its phone-number id, where known.
    pub phone: Option<String>,
    /// Whether it administrates the group.
    pub admin: bool,
}

/// A piece of the list of people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct People {
    /// In the page's order.
    pub people: Vec<Person>,
    /// Whether there are more.
    pub more: bool,
}

/// A person that the page knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Person {
    /// Its id.
    pub id: String,
    /// Its hidden id, where known.
    pub lid: Option<String>,
    /// Its phone-number id, where known.
    pub phone: Option<String>,
    /// Its name in the address book.
    pub name: Option<String>,
    /// The name that it uses.
    pub pushname: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_that_is_not_understood_is_one_without_a_message_and_the_others_are_read() {
        let message = |t: Value| json!({"id": "false_1@lid_AB", "idPart": "AB", "fromMe": false, "chat": "1@lid", "type": "chat", "t": t, "ack": 1, "isNew": true});
        let rows = [(1, message(json!(1))), (2, message(json!(null))), (3, Value::Null), (4, message(json!(4)))];
        let rows: Vec<Value> = rows.into_iter().map(|(n, message)| json!({"rowId": n, "id": "x", "message": message})).collect();
        let rows: Rows = serde_json::from_value(json!({"rows": rows, "upTo": 4, "more": false})).unwrap();
        assert_eq!(rows.rows.iter().map(|row| row.message.as_ref().map(|m| m.t)).collect::<Vec<_>>(), [Some(1), None, None, Some(4)]);
    }
}
