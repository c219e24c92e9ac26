//! The names that users of whatsapp-web.js know, as far as we have the facts. Each event carries its arguments of there, and behind them our
//! envelope.

use chrono::{DateTime, Utc};
use contract::{ChatId, EventType};
use serde_json::{Value, json};

use super::packet::Writer;

/// Where things have these names.
pub const NAMESPACE: &str = "/whatsapp-web.js";

/// What is known of an event.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What it says.
    pub kind: &'a EventType,
    /// When it was recorded.
    pub timestamp: DateTime<Utc>,
    /// The chat, where it concerns one.
    pub chat: Option<ChatId>,
    /// The body.
    pub data: &'a Value,
}

/// A name, and the arguments that its handlers get.
type Alias = (&'static str, Vec<Value>);

/// The same event as packets, each with the envelope as its last argument.
pub fn packets(writer: Writer, facts: Facts<'_>, envelope: &str) -> Vec<String> {
    let packet = |(name, arguments): Alias| {
        let arguments: Vec<String> = arguments.iter().map(Value::to_string).collect();
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain([envelope]).collect();
        writer.event(name, &all)
    };
    aliases(facts).into_iter().map(packet).collect()
}

fn aliases(facts: Facts<'_>) -> Vec<Alias> {
    match facts.kind {
        EventType::SessionStatus => status(&facts.data["session"]),
        EventType::SessionQr => vec![("qr", vec![facts.data["qr"].clone()])],
        EventType::Message => {
            let message = message(facts);
            let incoming = message["fromMe"] == false;
            let created = ("message_create", vec![message.clone()]);
            if incoming { vec![("message", vec![message]), created] } else { vec![created] }
        }
        EventType::MessageAck => {
            let said = &facts.data["message"];
            let message = json!({"id": id(facts, true), "fromMe": true, "to": facts.chat, "ack": said["ack"]});
            vec![("message_ack", vec![message, said["ack"].clone()])]
        }
        EventType::JobUpdated
        | EventType::JobLost
        | EventType::HistorySynced
        | EventType::ChatMerged
        | EventType::ChatIdentityChanged
        | EventType::ContactErased
        | EventType::GrantCreated
        | EventType::GrantDeleted
        | EventType::SessionGap
        | EventType::LogRestored
        | EventType::WebhookStatus
        | EventType::StreamGap
        | EventType::Other(_) => Vec::new(),
    }
}

/// What a state is there. Names that a newer service sends are none.
fn status(session: &Value) -> Vec<Alias> {
    let reason = session["reason"].as_str();
    let changes = |state: &str| ("change_state", vec![json!(state)]);
    let disconnected = |why: &str| ("disconnected", vec![json!(why)]);
    match session["state"].as_str().unwrap_or_default() {
        "starting" => vec![changes("OPENING")],
        "linking" => vec![changes("UNPAIRED")],
        "syncing" => vec![("authenticated", Vec::new()), changes("PAIRING")],
        "working" => vec![changes("CONNECTED"), ("ready", Vec::new())],
        "reconnecting" => vec![changes("TIMEOUT")],
        "conflict" => vec![changes("CONFLICT")],
        "logged_out" if reason == Some("wrong_account") => {
            vec![("auth_failure", vec![json!("another account was linked than the session's")]), changes("UNPAIRED")]
        }
        "logged_out" => vec![changes("UNPAIRED"), disconnected("LOGOUT")],
        "banned" => vec![changes("TOS_BLOCK"), disconnected("TOS_BLOCK")],
        state @ ("stopped" | "failed") => vec![disconnected(reason.unwrap_or(state))],
        _ => Vec::new(),
    }
}

/// A message with the fields that are read most.
fn message(facts: Facts<'_>) -> Value {
    let said = &facts.data["message"];
    let from_me = said["fromMe"] == true;
    let at = said["timestamp"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let at = at.map_or(facts.timestamp, |at| at.to_utc());
    let sender = &said["sender"]["waId"];
    let kind = said["type"].as_str().unwrap_or_default();
    json!({
        "id": id(facts, from_me),
        "fromMe": from_me,
        "from": sender,
        "author": sender,
        "to": if from_me { json!(facts.chat) } else { Value::Null },
        "body": said["text"].as_str().unwrap_or_default(),
        "type": if kind == "text" { "chat" } else { kind },
        "timestamp": at.timestamp(),
        "ack": said["ack"],
        "hasMedia": matches!(kind, "image" | "video" | "audio" | "ptt" | "document" | "sticker"),
        "hasQuotedMsg": !said["replyTo"].is_null(),
    })
}

/// The same for a message and its acks. `remote` is our id of the chat, which every operation takes for an address.
fn id(facts: Facts<'_>, from_me: bool) -> Value {
    let wa_id = &facts.data["message"]["waId"];
    let remote = facts.chat.map(|chat| chat.to_string()).unwrap_or_default();
    json!({"fromMe": from_me, "remote": remote, "id": wa_id, "_serialized": format!("{from_me}_{remote}_{}", wa_id.as_str().unwrap_or_default())})
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-24T10:00:00.500Z";

    fn of(kind: &EventType, chat: Option<ChatId>, data: &Value) -> Vec<Alias> {
        aliases(Facts { kind, timestamp: AT.parse().unwrap(), chat, data })
    }
    fn state(state: &str, reason: Option<&str>) -> Vec<(&'static str, Vec<Value>)> {
        of(&EventType::SessionStatus, None, &json!({"session": {"state": state, "reason": reason, "userAction": null, "me": null}}))
    }

    #[test]
    fn every_state_of_a_session_has_the_names_that_it_has_there() {
        let change = |to: &str| ("change_state", vec![json!(to)]);
        let table = [
            ("starting", None, vec![change("OPENING")]),
            ("linking", None, vec![change("UNPAIRED")]),
            ("syncing", None, vec![("authenticated", vec![]), change("PAIRING")]),
            ("working", None, vec![change("CONNECTED"), ("ready", vec![])]),
            ("reconnecting", None, vec![change("TIMEOUT")]),
            ("conflict", None, vec![change("CONFLICT")]),
            ("logged_out", None, vec![change("UNPAIRED"), ("disconnected", vec![json!("LOGOUT")])]),
            (
                "logged_out",
                Some("wrong_account"),
                vec![("auth_failure", vec![json!("another account was linked than the session's")]), change("UNPAIRED")],
            ),
            ("banned", None, vec![change("TOS_BLOCK"), ("disconnected", vec![json!("TOS_BLOCK")])]),
            ("stopped", Some("qr_timeout"), vec![("disconnected", vec![json!("qr_timeout")])]),
            ("failed", None, vec![("disconnected", vec![json!("failed")])]),
            ("on the moon", None, vec![]),
        ];
        for (name, reason, expected) in table {
            assert_eq!(state(name, reason), expected, "{name}");
        }
        for known in contract::SessionState::ALL {
            assert!(!state(known.as_str(), None).is_empty(), "{known:?} has no name");
        }
    }

    #[test]
    fn a_message_that_came_in_is_two_events_and_one_of_our_own_is_one() {
        let chat = ChatId::new();
        let data = json!({"message": {"id": "msg_1", "fromMe": false, "type": "text", "text": "hi", "status": "delivered", "ack": 2, "source": "phone",
            "waId": "3EB0", "sender": {"waId": "551@c.us", "lid": null, "phone": "551", "name": "P"}, "replyTo": "3EAF", "timestamp": AT}});
        let message = json!({"id": {"fromMe": false, "remote": chat, "id": "3EB0", "_serialized": format!("false_{chat}_3EB0")}, "fromMe": false,
            "from": "551@c.us", "author": "551@c.us", "to": null, "body": "hi", "type": "chat", "timestamp": 1_795_514_400, "ack": 2,
            "hasMedia": false, "hasQuotedMsg": true});
        assert_eq!(of(&EventType::Message, Some(chat), &data), [("message", vec![message.clone()]), ("message_create", vec![message])]);

        let own = json!({"message": {"id": "msg_2", "fromMe": true, "type": "image", "text": null, "ack": 1, "waId": "3EB1", "sender": null, "replyTo": null}});
        let aliases = of(&EventType::Message, Some(chat), &own);
        assert_eq!(aliases.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["message_create"]);
        let message = &aliases[0].1[0];
        assert_eq!((&message["to"], &message["hasMedia"], &message["body"]), (&json!(chat), &json!(true), &json!("")));
        assert_eq!(message["timestamp"], 1_795_514_400, "of its event, where it has none");

        let acked =
            of(&EventType::MessageAck, Some(chat), &json!({"message": {"id": "msg_2", "waId": "3EB1", "ack": 3, "status": "read"}}));
        let (name, arguments) = &acked[0];
        assert_eq!((*name, &arguments[1]), ("message_ack", &json!(3)));
        assert_eq!(arguments[0]["id"], message["id"], "the id by which it was announced");
    }

    #[test]
    fn a_code_is_shown_and_what_has_no_name_there_is_not() {
        assert_eq!(of(&EventType::SessionQr, None, &json!({"qr": "2@x", "expiresAt": AT})), [("qr", vec![json!("2@x")])]);
        for kind in EventType::ALL {
            let named = matches!(kind, EventType::SessionStatus | EventType::SessionQr | EventType::Message | EventType::MessageAck);
            assert!(named || of(kind, None, &json!({})).is_empty(), "{kind:?}");
        }
        let facts = Facts { kind: &EventType::SessionQr, timestamp: AT.parse().unwrap(), chat: None, data: &json!({"qr": "2@x"}) };
        assert_eq!(packets(Writer(NAMESPACE), facts, "{}"), [r#"42/whatsapp-web.js,["qr","2@x",{}]"#]);
    }
}
