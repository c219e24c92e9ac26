//! Facts about a session, the same on every transport.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{ChatId, EventId, SessionId, TenantId, job::open_names};

open_names! {
    /// What an event says.
    EventType {
        /// The session's state, reason or account changed.
        SessionStatus = "session.status",
        /// A message came in, or one of ours was accepted by WhatsApp.
        Message = "message",
        /// A message of ours was delivered, read or played.
        MessageAck = "message.ack",
        /// A job reached its end, or `unknown` turned `succeeded`.
        JobUpdated = "job.updated",
        /// What WhatsApp had from before the link is in the read model.
        HistorySynced = "history.synced",
        /// Two chats proved to be one person: the older id goes on, the other one leads to it.
        ChatMerged = "chat.merged",
        /// The chat's number belongs to another person now, in a chat of its own.
        ChatIdentityChanged = "chat.identity_changed",
        /// A chat was granted to a user or key.
        GrantCreated = "grant.created",
        /// A grant was taken back.
        GrantDeleted = "grant.deleted",
        /// Messages may be missing from the log: a profile was restored or lost.
        SessionGap = "session.gap",
        /// A webhook was paused, disabled or made active again: by somebody, by its receiver's word, or because it failed for too long.
        WebhookStatus = "webhook.status",
        /// A code to scan. Not in the log, and for an ADMIN only.
        SessionQr = "session.qr",
        /// A stream starts later than asked: what is between has been dropped. Not in the log.
        StreamGap = "stream.gap",
    }
}

/// One event: the envelope that every transport carries unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Stable: the same event has the same id everywhere.
    pub id: EventId,
    /// The tenant's cursor: grows by one with each of its events.
    pub seq: i64,
    /// What it says. An unknown name is to be ignored by clients.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When it was recorded, UTC, milliseconds.
    #[serde(serialize_with = "millis")]
    pub timestamp: DateTime<Utc>,
    /// Whose.
    pub tenant: TenantId,
    /// The session, where it concerns one.
    pub session: Option<SessionId>,
    /// The chat, where it concerns one.
    pub chat: Option<ChatId>,
    /// The body, by type.
    pub data: Value,
}

/// What is told to whoever listens now, and is not in the log: it has no `seq` and cannot be asked for again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ephemeral {
    /// Its own id.
    pub id: EventId,
    /// Always null.
    pub seq: (),
    /// What it says.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When, UTC, milliseconds.
    #[serde(serialize_with = "millis")]
    pub timestamp: DateTime<Utc>,
    /// Whose.
    pub tenant: TenantId,
    /// The session, where it concerns one.
    pub session: Option<SessionId>,
    /// The chat, where it concerns one.
    pub chat: Option<ChatId>,
    /// The body, by type.
    pub data: Value,
}

fn millis<S: Serializer>(at: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_type_that_this_build_does_not_know_passes_through_unchanged() {
        let text = serde_json::json!({
            "id": EventId::new(), "seq": 7, "type": "moon.landed", "timestamp": "2026-11-24T10:00:00.000Z", "tenant": TenantId::new(),
            "session": null, "chat": null, "data": {"moon": 1},
        });
        let event: Event = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(event.kind, EventType::Other("moon.landed".into()));
        assert_eq!(serde_json::to_value(&event).unwrap(), text);
        for known in EventType::ALL {
            assert_eq!(EventType::from(known.as_str().to_owned()), *known);
        }
    }
}
