//! WhatsApp's message keys.

use std::fmt;

use ring::digest::{SHA256, digest};

use crate::MessageId;

/// The id part that a message of ours gets: `3EB0` and 18 hex digits, as the page makes its own, but derived from our id, so that every
/// attempt of a job names the same WhatsApp message.
pub fn wa_id_of(message: MessageId) -> String {
    let hash = digest(&SHA256, message.to_string().as_bytes());
    hash.as_ref()[..9].iter().fold(String::from("3EB0"), |mut id, byte| {
        id.push_str(&format!("{byte:02X}"));
        id
    })
}

/// A full key: `<fromMe>_<chat>_<id>[_<participant>]`, the form that the page prints and that is stored with a started job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaKey {
    /// Whether the linked account is the sender.
    pub from_me: bool,
    /// The chat as the page resolved it.
    pub chat: String,
    /// The id part.
    pub id: String,
    /// The sender within a group.
    pub participant: Option<String>,
}

impl WaKey {
    /// The key under which a message of ours is sent. `participant` is our own address in the chat, for groups.
    pub fn ours(chat: impl Into<String>, message: MessageId, participant: Option<String>) -> Self {
        Self { from_me: true, chat: chat.into(), id: wa_id_of(message), participant }
    }
    /// Reads what the page prints; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '_');
        let from_me = match parts.next()? {
            "true" => true,
            "false" => false,
            _ => return None,
        };
        let (chat, id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self { from_me, chat, id, participant: parts.next().map(str::to_owned) })
    }
}

impl fmt::Display for WaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.from_me, self.chat, self.id)?;
        self.participant.as_ref().map_or(Ok(()), |p| write!(f, "_{p}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_whatsapp_id_for_ever() {
        let message = MessageId::new();
        let id = wa_id_of(message);
        assert_eq!(id, wa_id_of(message));
        assert_ne!(id, wa_id_of(MessageId::new()));
        assert!(id.len() == 22 && id.starts_with("3EB0") && id.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn a_key_reads_back_with_and_without_participant() {
        for text in ["true_5511999990000@c.us_3EB0AA", "false_1203@g.us_3A00_100@lid"] {
            assert_eq!(WaKey::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(WaKey::parse("maybe_x_y"), None);
    }
}
