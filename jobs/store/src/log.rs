//! What a statement writes into the event log, and what comes back of it.

use chrono::{DateTime, Utc};
use contract::{ChatId, Event, EventId, EventType, Fact, SessionId, TenantId};
use serde_json::Value;
use uuid::Uuid;

/// An event before it has a `seq`.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What it says.
    pub kind: EventType,
    /// The chat it concerns.
    pub chat: Option<ChatId>,
    /// The body.
    pub data: Value,
}

impl NewEvent {
    /// What is told of a chat, or of none.
    pub fn of(chat: Option<ChatId>, fact: &Fact) -> Self {
        Self { kind: fact.kind(), chat, data: fact.data() }
    }
    /// Its body is built by the statement, of what only the statement knows.
    pub(crate) const fn by_statement(kind: EventType) -> Self {
        Self { kind, chat: None, data: Value::Null }
    }
}

/// The columns of [`NewEvent`]s, as a statement takes them.
pub(crate) struct Columns {
    pub ids: Vec<Uuid>,
    pub kinds: Vec<String>,
    pub chats: Vec<Option<Uuid>>,
    pub data: Vec<Value>,
}

impl Columns {
    pub(crate) fn of(events: &[NewEvent]) -> Self {
        Self {
            ids: events.iter().map(|_| EventId::new().uuid()).collect(),
            kinds: events.iter().map(|e| e.kind.as_str().to_owned()).collect(),
            chats: events.iter().map(|e| e.chat.map(ChatId::uuid)).collect(),
            data: events.iter().map(|e| e.data.clone()).collect(),
        }
    }
}

/// A row of the log, as every statement that writes or reads it returns it.
pub(crate) struct Row {
    pub id: Uuid,
    pub seq: i64,
    pub kind: String,
    pub at: DateTime<Utc>,
    pub session: Option<Uuid>,
    pub chat: Option<Uuid>,
    pub data: Value,
}

impl Row {
    pub(crate) fn event(self, tenant: TenantId) -> Event {
        Event {
            id: EventId::from_uuid(self.id),
            seq: self.seq,
            kind: EventType::from(self.kind),
            timestamp: self.at,
            tenant,
            session: self.session.map(SessionId::from_uuid),
            chat: self.chat.map(ChatId::from_uuid),
            data: self.data,
        }
    }
}

pub(crate) fn events(rows: Vec<Row>, tenant: TenantId) -> Vec<Event> {
    rows.into_iter().map(|r| r.event(tenant)).collect()
}

/// A row of an owner's statement, which answers one row without an event where it had nothing to tell, and none where it is fenced.
pub(crate) struct OwnedRow {
    pub ours: bool,
    pub id: Option<Uuid>,
    pub seq: Option<i64>,
    pub kind: Option<String>,
    pub at: Option<DateTime<Utc>>,
    pub session: Option<Uuid>,
    pub chat: Option<Uuid>,
    pub data: Option<Value>,
}

impl OwnedRow {
    fn row(self) -> Option<Row> {
        let (session, chat) = (self.session, self.chat);
        Some(Row { id: self.id?, seq: self.seq?, kind: self.kind?, at: self.at?, session, chat, data: self.data? })
    }
}

/// The events of an owner's statement. `None`: it is not the owner any more.
pub(crate) fn owned_events(rows: Vec<OwnedRow>, tenant: TenantId) -> Option<Vec<Event>> {
    rows.iter().any(|r| r.ours).then(|| rows.into_iter().filter_map(|r| r.row()).map(|r| r.event(tenant)).collect())
}
