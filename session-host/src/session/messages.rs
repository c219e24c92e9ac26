//! What the page calls a message, in our words.

use contract::{ChatKind, Jid, Server, WaKey, event::MessageSource};
use store::{erasures::Heard, incoming::Incoming};

use crate::browser::PageMessage;

/// Types that are part of the protocol and not content.
const PROTOCOL_KINDS: [&str; 5] = ["protocol", "e2e_notification", "notification_template", "gp2", "notification"];

/// The last second of the year 9999, which everything that reads our times can write.
const LATEST: i64 = 253_402_300_799;

/// Whether the page's message is somebody's content at all.
pub fn is_content(message: &PageMessage) -> bool {
    !PROTOCOL_KINDS.contains(&message.kind.as_str()) && message.chat.parse::<Jid>().is_ok()
}

/// Every name of the message's chat: first the one the page uses.
pub fn chat_names(message: &PageMessage) -> Vec<Jid> {
    names([Some(&message.chat), message.chat_lid.as_ref(), message.chat_phone.as_ref()])
}

/// Addresses without repeats, in order; what is not an address of a chat is left out.
pub fn names<'a>(texts: impl IntoIterator<Item = Option<&'a String>>) -> Vec<Jid> {
    texts.into_iter().flatten().filter_map(|text| text.parse::<Jid>().ok()).fold(Vec::new(), |mut names, jid| {
        if !names.contains(&jid) {
            names.push(jid);
        }
        names
    })
}

/// What a chat that has no name yet may be called: a person's is called as that person calls itself. A group is not called as whoever wrote
/// in it first.
pub fn title<'a>(message: &'a PageMessage, names: &[Jid]) -> Option<&'a str> {
    let of_a_person = !message.from_me && names.iter().all(|name| name.kind() == ChatKind::Private);
    message.notify_name.as_deref().filter(|_| of_a_person)
}

/// The one spelling of a group message's sender: the LID where the page knows it, because a phone number may be unknown to others.
fn sender(message: &PageMessage) -> String {
    let in_group = message.chat.parse::<Jid>().is_ok_and(|jid| jid.server() == Server::Group);
    if message.from_me || !in_group {
        return String::new();
    }
    names([message.sender_lid.as_ref(), message.sender.as_ref(), message.sender_phone.as_ref()])
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// What it was written on: linked devices make ids as the page makes its own.
fn source(id_part: &str) -> MessageSource {
    if id_part.starts_with("3EB0") { MessageSource::Device } else { MessageSource::Phone }
}

/// A person of these names. `phone` are digits.
pub fn person<'a>(names: impl IntoIterator<Item = Option<&'a String>>) -> (Option<String>, Option<String>) {
    let names = self::names(names);
    let lid = names.iter().find(|j| j.server() == Server::Lid).map(ToString::to_string);
    (lid, names.iter().find_map(Jid::phone).map(str::to_owned))
}

/// The row that records it. `recovered`: found in the page's rows after we were away.
pub fn incoming(chat: contract::ChatId, message: &PageMessage, recovered: bool) -> Incoming {
    let decrypted = message.kind != "ciphertext";
    let (sender_lid, sender_phone) = person([message.sender.as_ref(), message.sender_lid.as_ref(), message.sender_phone.as_ref()]);
    Incoming {
        chat,
        from_me: message.from_me,
        sender: sender(message),
        sender_lid,
        sender_phone,
        source: source(&message.id_part),
        wa_id: message.id_part.clone(),
        // WhatsApp calls a text `chat`; callers never see that name.
        kind: if message.kind == "chat" { "text".to_owned() } else { message.kind.clone() },
        body: message.body.clone(),
        ack: i16::try_from(message.ack).unwrap_or(0),
        at: message.t,
        reply_to: message.quoted.as_deref().and_then(WaKey::parse).map(|key| key.id),
        announce: decrypted && (message.is_new || recovered),
        recovered,
        row_id: message.row_id.and_then(|row| i64::try_from(row).ok()),
        sender_name: message.notify_name.clone(),
    }
}

/// Who wrote these messages, and with whom, by every name; and when.
pub fn people(messages: &[&PageMessage]) -> Vec<Heard> {
    let of =
        |m: &PageMessage| [names([m.sender.as_ref(), m.sender_lid.as_ref(), m.sender_phone.as_ref()]), chat_names(m).into_iter().collect()];
    let heard = |m: &PageMessage, names: Vec<Jid>| Heard { names: names.iter().map(Jid::to_string).collect(), at: m.t.clamp(0, LATEST) };
    messages.iter().flat_map(|m| of(m).into_iter().filter(|names| !names.is_empty()).map(|names| heard(m, names))).collect()
}

/// All of it that this process made or checked itself: what WhatsApp's side wrote is left out.
pub fn without_content(message: &Incoming) -> Incoming {
    Incoming { body: None, reply_to: None, sender_name: None, at: message.at.clamp(0, LATEST), ..message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_called_as_it_calls_itself_and_a_group_not_as_whoever_wrote_first() {
        let message = |chat: &str, from_me: bool| -> PageMessage {
            serde_json::from_value(serde_json::json!({
                "id": format!("{from_me}_{chat}_3A01"), "idPart": "3A01", "fromMe": from_me, "chat": chat, "type": "chat", "t": 1, "ack": 0,
                "isNew": true, "notifyName": "Bea",
            }))
            .unwrap()
        };
        for (chat, from_me, called) in [
            ("5511999990000@c.us", false, Some("Bea")),
            ("100@lid", false, Some("Bea")),
            ("100@lid", true, None),
            ("12036304@g.us", false, None),
            ("12036304@newsletter", false, None),
        ] {
            let message = message(chat, from_me);
            assert_eq!(title(&message, &chat_names(&message)), called, "{chat}");
        }
    }
}
