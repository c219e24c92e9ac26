//! Facts about a session, the same on every transport. The bodies are types: a room each for those that belong together.

mod catalogue;
mod chat;
mod contact;
mod fact;
mod grant;
mod job;
mod message;
mod session;
mod stream;
mod webhook;

pub use catalogue::{Audience, Elsewhere, Entry};
pub use chat::{ChatIdentityChangedBody, ChatMergedBody, ChatRef, MergedChat};
pub use contact::{ContactErasedBody, ErasureFact};
pub use fact::{Erased, Fact};
pub use grant::{GrantBody, GrantFact};
pub use job::{JobBody, JobFact, JobLostBody, JobRef, MessageRef};
pub use message::{MessageAck, MessageAckBody, MessageBody, MessageFact, MessageSource, SenderFact};
pub use session::{Gap, HistoryRead, HistorySyncedBody, LinkedAccount, SessionFact, SessionGapBody, SessionQrBody, SessionStatusBody};
pub use stream::{LogRestoredBody, StreamGapBody};
pub use webhook::WebhookStatusBody;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{ChatId, EventId, SessionId, TenantId, job::open_names};

// The comments are the catalogue's prose: the first paragraph says when it is emitted, the second what to do about it.
open_names! {
    /// What an event says.
    EventType {
        /// The session's state, reason or account changed.
        ///
        /// Show `state`; where there is a `userAction`, somebody has to do it. Nothing is sent while a state needs a person.
        SessionStatus = "session.status",
        /// A message came in, was written on the account's phone or another of its devices, or one that a job sent was accepted by WhatsApp. Each
        /// message is announced once; what is older than the link is not.
        ///
        /// Keep it by `message.id`. `source` says where it was written; `recovered` that it came while the session was away. Media, edits and
        /// reactions will add fields.
        Message = "message",
        /// A message of ours was delivered, read or played.
        ///
        /// Raise the message's ack to this one if it is higher; acks may be skipped, and never go back.
        MessageAck = "message.ack",
        /// A job reached its end, or `unknown` turned `succeeded`. Acceptance and start are not announced.
        ///
        /// Settle what you asked for by `job.id` or `reference`. `failed` guarantees that WhatsApp did not accept it; `unknown` may still turn
        /// `succeeded`, and `POST /api/jobs/{id}/resend` repeats it under the same WhatsApp id.
        JobUpdated = "job.updated",
        /// The database lost this job after it was accepted: it went back to an older state (`log.restored`). The job is not done from now on.
        ///
        /// It may have been done already: look on the phone, or among the messages, before you ask for it again.
        JobLost = "job.lost",
        /// What WhatsApp had from before the link is in the read model. Once a link.
        ///
        /// Load chats and messages again: what is older than the link makes no `message` events.
        HistorySynced = "history.synced",
        /// Two chats proved to be one person: the older id goes on, the other one leads to it for ever.
        ///
        /// Put what you keep under `merged` under `chat.id`. Requests that name the old id are still answered.
        ChatMerged = "chat.merged",
        /// The chat's number belongs to another person now, in a chat of its own. Nobody is granted that one by it.
        ///
        /// Do not write to the number as to the person you knew: `movedTo` is the chat that the number names now.
        ChatIdentityChanged = "chat.identity_changed",
        /// What was kept of a person has been erased, on request. Bodies of events in the log are `{"erased": true}` now. Once for each session in
        /// which there was a chat with them.
        ///
        /// Erase what you keep of these chats up to `until`, and read again what you keep of groups.
        ContactErased = "contact.erased",
        /// A chat, or all of a session, was granted to a user or key.
        ///
        /// The holder sees more from now on: load the chats again.
        GrantCreated = "grant.created",
        /// A grant was taken back.
        ///
        /// The holder sees less from now on: drop what you show of the chat.
        GrantDeleted = "grant.deleted",
        /// Messages of the time between `from` and `to` may be missing from the log: a profile was restored or lost.
        ///
        /// Compare with the phone, or tell whoever relies on that time. Nothing is missing outside of announced gaps.
        SessionGap = "session.gap",
        /// The database went back to an older state. Events told with a `seq` from `from` to `to` may not be in the log any more, and others may
        /// be there in their place. No number that was told before is used again from here on. What an open stream had passed comes again before
        /// this.
        ///
        /// Read again what you took from `from` on (`GET /api/events?after=` one less): what the log has now is what counts. Jobs and messages
        /// accepted just before may be gone (`job.lost`).
        LogRestored = "log.restored",
        /// A webhook was paused, disabled or made active again: by somebody, by its receiver's word (410), or because it failed for too long.
        ///
        /// Mend the receiver, then set the webhook's state to `active`: it goes on from where it stopped.
        WebhookStatus = "webhook.status",
        /// A code to scan is shown, about every 20 seconds while a session links. Never to an EMPLEADO; to a key
        /// only with the scope `sessions:link`.
        ///
        /// Draw it as a QR code until `expiresAt` or the next one.
        SessionQr = "session.qr",
        /// A stream starts later than asked: the events between have been dropped by retention.
        ///
        /// Load what you show again, and go on with what follows.
        StreamGap = "stream.gap",
    }
}

impl EventType {
    /// When it is emitted.
    pub fn when(&self) -> String {
        self.paragraph(0)
    }
    /// What to do about it.
    pub fn advice(&self) -> String {
        self.paragraph(1)
    }
    fn paragraph(&self, n: usize) -> String {
        let lines = self.comment().split("\n\n").nth(n).unwrap_or_default().lines();
        lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// One event: the envelope that every transport carries unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Stable: the same event has the same id everywhere.
    pub id: EventId,
    /// The tenant's cursor: grows by one with each of its events, and jumps where `log.restored` says so.
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

impl Event {
    /// The body as its type says. `None`: it was erased, or the type is a newer service's.
    ///
    /// # Errors
    /// Where the body is not what its type says.
    pub fn fact(&self) -> Result<Option<Fact>, serde_json::Error> {
        if Erased::is(&self.data) { Ok(None) } else { Fact::read(&self.kind, &self.data) }
    }
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

    #[test]
    fn every_type_says_when_it_is_emitted_and_what_to_do_about_it() {
        for kind in EventType::ALL {
            assert!(kind.when().ends_with('.') && kind.advice().ends_with('.'), "{kind:?}: a paragraph is missing");
            assert_eq!(kind.paragraph(2), "", "{kind:?}: more than two paragraphs");
        }
    }
}
