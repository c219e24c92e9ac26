//! What an erasure answers: what is gone, and what is not.

use serde::{Deserialize, Serialize};

use crate::job::names;

names! {
    /// Where something of a person was.
    ErasedStore {
        /// Jobs that waited to write to the person: withdrawn.
        QueuedJobs = "queuedJobs",
        /// Messages of private chats with the person, and those that the person wrote in groups: removed.
        Messages = "messages",
        /// Jobs in those chats: what they were to do, what they answered and the caller's reference.
        Jobs = "jobs",
        /// Idempotency keys of those jobs: forgotten.
        IdempotencyKeys = "idempotencyKeys",
        /// Chats: names and addresses. Their ids and grants stay.
        Chats = "chats",
        /// Contacts: removed.
        Contacts = "contacts",
        /// The person's places in lists of groups' members: removed.
        Memberships = "memberships",
        /// Bodies in the event log. Id, seq and type stay.
        Events = "events",
        /// The same in the streams of Redis.
        StreamEntries = "streamEntries",
        /// What receivers answered to deliveries of those events.
        WebhookDeliveries = "webhookDeliveries",
        /// Exports of those chats, and of all groups: removed.
        Exports = "exports",
    }
}

names! {
    /// What an erasure does not reach.
    NotErased {
        /// The phone and its other devices, and WhatsApp's servers. Whoever has the phone deletes the chat there.
        Phone = "phone",
        /// The profile of the session's browser, which is a linked device: it follows what is deleted on the phone.
        BrowserProfile = "browserProfile",
        /// What webhooks, streams and readers of the firehose were told before. The event `contact.erased` names the chats.
        Receivers = "receivers",
        /// What others, and the account itself, wrote about the person elsewhere: in groups, or in other chats.
        WrittenByOthers = "writtenByOthers",
        /// Audit entries: they hold ids, and no text or number.
        Audit = "audit",
        /// Backups and archived logs of the databases, until they are overwritten.
        Backups = "backups",
        /// Hashes of the person's addresses, by which what the phone tells again of the time before is kept away.
        Hashes = "hashes",
    }
}

/// How much of something is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErasedCount {
    /// What.
    pub store: ErasedStore,
    /// How much.
    pub count: u64,
}

/// What is not gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Remainder {
    /// What.
    pub what: NotErased,
    /// In words.
    pub why: String,
}

impl Remainder {
    /// All that no erasure reaches.
    pub fn all() -> Vec<Self> {
        NotErased::ALL.iter().map(|what| Self { what: *what, why: what.about().to_owned() }).collect()
    }
}
