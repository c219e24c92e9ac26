//! Facts about a session, the same on every transport.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{ChatId, EventId, SessionId, TenantId, job::names};

names! {
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
        /// Messages may be missing from the log: a profile was restored or lost.
        SessionGap = "session.gap",
        /// A code to scan. Not in the log; for ADMINs only.
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
