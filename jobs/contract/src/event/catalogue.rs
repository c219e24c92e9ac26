//! What is said of each type beside its body: who sees it, whether it is kept, and what others call it.

use chrono::DateTime;
use utoipa::openapi::{RefOr, schema::Schema};
use uuid::Uuid;

use super::{Ephemeral, Event, EventType, Fact};
use crate::{ChatId, EventId, SessionId, TenantId, Timestamp};

/// Who sees an event. Keys see what their scopes, sessions and grants allow, and nothing more than the person who made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// ADMINs only.
    Admins,
    /// ADMINs; an EMPLEADO where the envelope's chat is granted to it at that moment, and the event is not older than the grant reaches.
    Chat,
    /// ADMINs; every EMPLEADO. A key that is limited to sessions: of those.
    Session,
    /// ADMINs; the user or key that the grant is for.
    Holder,
    /// Whoever reads that stream.
    Reader,
}

impl Audience {
    /// In words.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Admins => "ADMIN",
            Self::Chat => "ADMIN; EMPLEADO while the chat is granted",
            Self::Session => "ADMIN; EMPLEADO",
            Self::Holder => "ADMIN; the grant's holder",
            Self::Reader => "the reader of that stream",
        }
    }
}

/// What others call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elsewhere {
    /// WAHA.
    pub waha: &'static [&'static str],
    /// Evolution API.
    pub evolution: &'static [&'static str],
    /// whatsapp-web.js.
    pub whatsapp_web_js: &'static [&'static str],
}

/// A line of the catalogue.
pub struct Entry {
    /// The type.
    pub kind: EventType,
    /// A value as a reader may meet it.
    pub example: Fact,
    /// The name of its body's schema.
    pub schema: String,
    /// That schema and all that it refers to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
    /// Who sees it.
    pub audience: Audience,
    /// Whether it is in the log: it has a `seq` and can be asked for again.
    pub kept: bool,
    /// What others call it.
    pub elsewhere: Elsewhere,
}

impl Entry {
    /// The catalogue.
    pub fn all() -> impl Iterator<Item = Self> {
        EventType::ALL.iter().filter_map(Self::of)
    }

    /// Of one type. `None`: no type of this build.
    pub fn of(kind: &EventType) -> Option<Self> {
        let (audience, kept, elsewhere) = facts(kind)?;
        let (schema, schemas) = Fact::schemas(kind)?;
        Some(Self { kind: kind.clone(), example: Fact::example(kind)?, schema, schemas, audience, kept, elsewhere })
    }

    /// The example in its envelope.
    pub fn envelope(&self) -> serde_json::Value {
        let (id, tenant, at) = (EventId::from_uuid(EVENT), TenantId::from_uuid(TENANT), at(0).0);
        let session = (!matches!(self.kind, EventType::LogRestored | EventType::WebhookStatus | EventType::StreamGap))
            .then(|| SessionId::from_uuid(SESSION));
        let chat = (self.audience == Audience::Chat).then(|| ChatId::from_uuid(CHAT));
        let (kind, data) = (self.kind.clone(), self.example.data());
        if self.kept {
            serde_json::json!(Event { id, seq: 5822, kind, timestamp: at, tenant, session, chat, data })
        } else {
            serde_json::json!(Ephemeral { id, seq: (), kind, timestamp: at, tenant, session, chat, data })
        }
    }
}

type Names = &'static [&'static str];

const fn called(waha: Names, evolution: Names, whatsapp_web_js: Names) -> Elsewhere {
    Elsewhere { waha, evolution, whatsapp_web_js }
}

const KEPT: bool = true;
const TOLD: bool = false;

const fn facts(kind: &EventType) -> Option<(Audience, bool, Elsewhere)> {
    Some(match kind {
        EventType::SessionStatus => (
            Audience::Session,
            KEPT,
            called(
                &["session.status", "state.change"],
                &["connection.update", "status.instance", "logout.instance"],
                &["authenticated", "auth_failure", "ready", "disconnected", "change_state"],
            ),
        ),
        EventType::Message => (
            Audience::Chat,
            KEPT,
            called(&["message", "message.any"], &["messages.upsert", "send.message"], &["message", "message_create"]),
        ),
        EventType::MessageAck => {
            (Audience::Chat, KEPT, called(&["message.ack", "message.ack.group"], &["messages.update"], &["message_ack"]))
        }
        EventType::JobUpdated => (Audience::Chat, KEPT, called(&[], &["send.message.update"], &[])),
        EventType::HistorySynced => (Audience::Admins, KEPT, called(&[], &["messaging-history.set", "messages.set"], &["loading_screen"])),
        EventType::ChatMerged | EventType::ChatIdentityChanged => (Audience::Chat, KEPT, called(&[], &[], &[])),
        EventType::GrantCreated | EventType::GrantDeleted => (Audience::Holder, KEPT, called(&[], &[], &[])),
        EventType::JobLost | EventType::SessionGap | EventType::LogRestored | EventType::WebhookStatus | EventType::ContactErased => {
            (Audience::Admins, KEPT, called(&[], &[], &[]))
        }
        EventType::SessionQr => (Audience::Admins, TOLD, called(&["session.status"], &["qrcode.updated"], &["qr"])),
        EventType::StreamGap => (Audience::Reader, TOLD, called(&[], &[], &[])),
        EventType::Other(_) => return None,
    })
}

/// The moment of the examples, and this many milliseconds later.
pub(super) fn at(ms: i64) -> Timestamp {
    const NOON: i64 = 1_795_521_600_000;
    Timestamp(DateTime::from_timestamp_millis(NOON + ms).unwrap_or_default())
}

// The ids of the examples.
pub(super) const CHAT: Uuid = id(0xc4a7);
pub(super) const EVENT: Uuid = id(0xe7e7);
pub(super) const GRANT: Uuid = id(0x9747);
pub(super) const JOB: Uuid = id(0x10b0);
pub(super) const MESSAGE: Uuid = id(0x3e55);
pub(super) const OTHER_CHAT: Uuid = id(0xc4a8);
pub(super) const SESSION: Uuid = id(0x5e55);
pub(super) const TENANT: Uuid = id(0x7e0a);
pub(super) const USER: Uuid = id(0x05e7);
pub(super) const WEBHOOK: Uuid = id(0x4eb0);

const fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x019a_b5c1_7d40_7000_8000_0000_0000_0000 | n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_every_type_once_and_its_example_stands_in_an_envelope() {
        assert_eq!(Entry::all().map(|e| e.kind).collect::<Vec<_>>(), EventType::ALL);
        for entry in Entry::all() {
            let envelope = entry.envelope();
            assert_eq!((envelope["type"].as_str(), envelope["seq"].is_i64()), (Some(entry.kind.as_str()), entry.kept));
            assert_eq!(envelope["data"], entry.example.data());
            if entry.kept {
                let event: Event = serde_json::from_value(envelope).unwrap();
                assert_eq!(event.fact().unwrap(), Some(entry.example));
            }
        }
    }

    #[test]
    fn every_type_that_rivals_and_we_have_is_found_under_its_name() {
        let known = |name: &str| {
            let lists = |e: &Elsewhere| [e.waha, e.evolution, e.whatsapp_web_js].concat();
            Entry::all().any(|e| lists(&e.elsewhere).contains(&name))
        };
        for name in ["qr", "ready", "message", "message_ack", "disconnected", "messages.upsert", "connection.update", "session.status"] {
            assert!(known(name), "{name}");
        }
    }
}
