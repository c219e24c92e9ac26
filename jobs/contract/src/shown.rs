//! Chats and messages as callers are shown them: the same in answers of the API and in exports.

use serde::Serialize;

use crate::{ChatId, JobId, MessageId, MessageStatus, Principal, SessionId, Timestamp};

/// A chat.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Chat)]
pub struct ChatView {
    /// Opaque and lasting, whatever WhatsApp calls the chat today.
    pub id: ChatId,
    /// In which session.
    pub session: SessionId,
    /// `private`, `group`, `channel`, `broadcast`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address under which WhatsApp Web was last seen to keep it.
    pub wa_id: String,
    /// Its LID form, where known.
    pub lid: Option<String>,
    /// Digits, where known.
    pub phone: Option<String>,
    /// As the account's owner or its group calls it.
    pub name: Option<String>,
    /// Unread messages.
    pub unread: i32,
    /// Whether the account put it away.
    pub archived: bool,
    /// When the last message was written.
    pub last_message_at: Option<Timestamp>,
}

/// A message.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
pub struct MessageView {
    /// Ours; lasting.
    pub id: MessageId,
    /// In which session.
    pub session: SessionId,
    /// In which chat.
    pub chat: ChatId,
    /// Whether the linked account sent it.
    pub from_me: bool,
    /// Who wrote it; null for our own.
    pub sender: Option<SenderView>,
    /// WhatsApp's id part.
    pub wa_id: String,
    /// `text`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The text, where it has one.
    pub text: Option<String>,
    /// Where it is.
    pub status: MessageStatus,
    /// WhatsApp's ack, -1 to 4.
    pub ack: Option<i16>,
    /// What it was written on: `api` (through us), `phone`, or `device` (a linked device).
    pub source: String,
    /// Who asked us to send it: a user or a key.
    pub sent_by: Option<Principal>,
    /// The caller's own reference.
    pub reference: Option<String>,
    /// The WhatsApp id part of the message it answers.
    pub reply_to: Option<String>,
    /// The job that sent it.
    pub job: Option<JobId>,
    /// WhatsApp's time; ours for what has not been sent yet.
    pub timestamp: Timestamp,
    /// Whether it came while we were away, and was found later.
    pub recovered: bool,
}

/// Who wrote a message.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sender)]
pub struct SenderView {
    /// The LID where one is known, else the phone address.
    pub wa_id: String,
    /// Its LID, where known.
    pub lid: Option<String>,
    /// Digits.
    pub phone: Option<String>,
    /// The name in the account's contacts, or the one that its owner uses.
    pub name: Option<String>,
}

/// The first line of an exported chat: what the other lines are. Each of those is a message, the oldest first.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportHead {
    /// What has been exported.
    pub export: ExportFact,
    /// The chat as it was then.
    pub chat: ChatView,
}

/// An export, in its own first line.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportFact {
    /// Which.
    pub id: crate::ExportId,
    /// How the lines are to be read. What is added to them later does not change it.
    pub format: &'static str,
    /// The moment that it shows: what came later is not in it.
    pub snapshot_at: Timestamp,
    /// Messages from before are not in it, because whoever asked does not see them; null: all that is kept is in it.
    pub since: Option<Timestamp>,
    /// The session's name.
    pub session: String,
    /// The linked account that the chat belongs to, in digits.
    pub account: String,
}

/// [`ExportFact::format`].
pub const EXPORT_FORMAT: &str = "zaguan.chat.v1";
