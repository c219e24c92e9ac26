//! The vocabulary that every service shares. No I/O: nothing here opens a port, a file or a browser.
//!
//! (The one exception, [`fault`], exists only in builds made with the feature `fault-points`.)

mod command;
mod erasure;
pub mod event;
pub mod fault;
mod id;
mod jid;
mod job;
mod rights;
mod session_settings;
mod session_state;
mod shown;
mod timestamp;
mod timings;
mod wa_key;
mod webhook;

pub use command::{Command, CommandError, EraseContact, ExportChat, Lane, MarkRead, PairingCode, RetryClass, SendText};
pub use erasure::{ErasedCount, ErasedStore, NotErased, Remainder};
pub use event::{Ephemeral, Event, EventType, Fact};
pub use id::{
    AuditId, BadId, ChatId, DeliveryId, EventId, ExportId, GrantId, HostId, JobId, KeyId, MediaId, MessageId, OwnerId, ProfileId,
    SessionId, TenantId, UserId, WebhookId, string_schema,
};
pub use jid::{BadJid, ChatKind, Jid, Server};
pub use job::{Evidence, Failure, FailureCode, JobResult, JobState, Media, MediaState, MessageStatus, Outcome, Progress};
pub use rights::{AccessKind, AuditAction, History, Principal, Scope};
pub use session_settings::SessionSettings;
pub use session_state::{Reason, SessionState, Signal, UserAction};
pub use shown::{ChatView, EXPORT_FORMAT, ExportFact, ExportHead, MessageView, SenderView};
pub use timestamp::Timestamp;
pub use timings::{BadTimings, Timings};
pub use wa_key::{WaKey, wa_id_of};
pub use webhook::{DeliveryKind, DeliveryState, WEBHOOK_TEST, WebhookOrder, WebhookReason, WebhookState, is_logged};
