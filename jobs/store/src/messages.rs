//! Messages as callers see them.

use chrono::{DateTime, Utc};
use contract::{ChatId, JobId, MessageId, MessageStatus, Principal, SessionId, TenantId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, cursor::Cursor, snapshot::Snapshot};

/// A row of `message`.
#[derive(Debug, Clone)]
pub struct Message {
    /// Our id.
    pub id: MessageId,
    /// In which session.
    pub session: SessionId,
    /// In which chat.
    pub chat: ChatId,
    /// Whether the linked account sent it.
    pub from_me: bool,
    /// Who sent it, as WhatsApp writes it; empty for our own.
    pub sender: String,
    /// WhatsApp's id part.
    pub wa_id: String,
    /// `text`, …
    pub kind: String,
    /// The text.
    pub body: Option<String>,
    /// Where it is.
    pub status: MessageStatus,
    /// WhatsApp's ack.
    pub ack: Option<i16>,
    /// `api`, `phone`, `device`.
    pub source: String,
    /// Who asked us to send it.
    pub sent_by: Option<Principal>,
    /// The caller's own reference.
    pub reference: Option<String>,
    /// The id part of the message it answers.
    pub reply_to: Option<String>,
    /// The job that sent it.
    pub job: Option<JobId>,
    /// WhatsApp's time; ours for what has not been sent yet.
    pub sent_at: DateTime<Utc>,
    /// Whether it was recorded late, after a restart.
    pub recovered: bool,
}

struct Row {
    id: Uuid,
    session: Uuid,
    chat: Uuid,
    from_me: bool,
    sender: String,
    wa_id: String,
    kind: String,
    body: Option<String>,
    status: String,
    ack: Option<i16>,
    source: String,
    sent_by: Option<Uuid>,
    by_key: bool,
    reference: Option<String>,
    reply_to: Option<String>,
    job: Option<Uuid>,
    sent_at: DateTime<Utc>,
    recovered: bool,
}

impl Row {
    fn message(self) -> Message {
        Message {
            id: MessageId::from_uuid(self.id),
            session: SessionId::from_uuid(self.session),
            chat: ChatId::from_uuid(self.chat),
            from_me: self.from_me,
            sender: self.sender,
            wa_id: self.wa_id,
            kind: self.kind,
            body: self.body,
            // The table's check allows no other name.
            status: MessageStatus::from_name(&self.status).unwrap_or(MessageStatus::Unknown),
            ack: self.ack,
            source: self.source,
            sent_by: self.sent_by.map(|id| Principal::of(id, self.by_key)),
            reference: self.reference,
            reply_to: self.reply_to,
            job: self.job.map(JobId::from_uuid),
            sent_at: self.sent_at,
            recovered: self.recovered,
        }
    }
}

/// The messages of a chat, newest first, those before `before`. `since` is [`crate::grants::Access::since`].
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(
    snapshot: &mut Snapshot,
    tenant: TenantId,
    chat: ChatId,
    since: Option<DateTime<Utc>>,
    before: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Message>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, session, chat, from_me, sender, wa_id, kind, body, status, ack, source, sent_by, reference, reply_to, job, sent_at, recovered,
                exists (select 1 from api_key k where k.id = sent_by) as "by_key!"
           from message
          where tenant = $1 and chat = $2 and ($3::timestamptz is null or sent_at >= $3)
            and ($4::timestamptz is null or (sent_at, id) < ($4, $5::uuid))
          order by sent_at desc, id desc limit $6"#,
        tenant.uuid(),
        chat.uuid(),
        since,
        before.map(|c| c.at),
        before.map(|c| c.id),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::message).collect())
}

/// One message of a chat.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId, chat: ChatId, since: Option<DateTime<Utc>>, id: MessageId) -> Result<Option<Message>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, session, chat, from_me, sender, wa_id, kind, body, status, ack, source, sent_by, reference, reply_to, job, sent_at, recovered,
                exists (select 1 from api_key k where k.id = sent_by) as "by_key!"
           from message where tenant = $1 and chat = $2 and id = $4 and ($3::timestamptz is null or sent_at >= $3)"#,
        tenant.uuid(),
        chat.uuid(),
        since,
        id.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::message))
}
