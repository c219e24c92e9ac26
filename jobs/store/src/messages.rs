//! Messages as callers see them.

use chrono::{DateTime, Utc};
use contract::{ChatId, JobId, MessageId, MessageStatus, MessageView, Principal, SenderView, SessionId, TenantId};
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
    /// Who wrote it; none for our own.
    pub sender: Option<Sender>,
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

/// Who wrote a message, by every name we know.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The one spelling that we keep: the LID where one is known.
    pub wa_id: String,
    /// The LID.
    pub lid: Option<String>,
    /// The phone digits.
    pub phone: Option<String>,
    /// The name that the account's owner gave them, or the one they use.
    pub name: Option<String>,
}

impl From<Message> for MessageView {
    fn from(m: Message) -> Self {
        Self {
            id: m.id,
            session: m.session,
            chat: m.chat,
            from_me: m.from_me,
            sender: m.sender.map(|s| SenderView { wa_id: s.wa_id, lid: s.lid, phone: s.phone, name: s.name }),
            wa_id: m.wa_id,
            kind: m.kind,
            text: m.body,
            status: m.status,
            ack: m.ack,
            source: m.source,
            sent_by: m.sent_by,
            reference: m.reference,
            reply_to: m.reply_to,
            job: m.job,
            timestamp: m.sent_at.into(),
            recovered: m.recovered,
        }
    }
}

struct Row {
    id: Uuid,
    session: Uuid,
    chat: Uuid,
    from_me: bool,
    sender: Option<String>,
    sender_lid: Option<String>,
    sender_phone: Option<String>,
    sender_name: Option<String>,
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
            sender: self.sender.map(|wa_id| Sender { wa_id, lid: self.sender_lid, phone: self.sender_phone, name: self.sender_name }),
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
        r#"select m.id, m.session, m.chat, m.from_me,
                  case when not m.from_me then coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id) end as sender,
                  case when not m.from_me then coalesce(ct.lid, case when m.sender = '' then ch.lid when m.sender like '%@lid' then m.sender end) end as sender_lid,
                  case when not m.from_me then coalesce(ct.phone, case when m.sender = '' then ch.phone end) end as sender_phone,
                  case when not m.from_me then coalesce(ct.name, ct.push_name, case when m.sender = '' then ch.name end) end as sender_name,
                  m.wa_id, m.kind, m.body, m.status, m.ack, m.source, m.sent_by,
                  exists (select 1 from api_key k where k.id = m.sent_by and k.tenant = $1) as "by_key!", m.reference, m.reply_to, m.job, m.sent_at,
                  m.recovered
             from message m join chat ch on ch.id = m.chat
             left join contact ct on ct.session = m.session and ct.account = m.account
                   and ct.wa_id = coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id)
            where m.tenant = $1 and m.chat = $2 and ($3::timestamptz is null or m.sent_at >= $3)
              and ($4::timestamptz is null or (m.sent_at, m.id) < ($4, $5::uuid))
            order by m.sent_at desc, m.id desc limit $6"#,
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
        r#"select m.id, m.session, m.chat, m.from_me,
                  case when not m.from_me then coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id) end as sender,
                  case when not m.from_me then coalesce(ct.lid, case when m.sender = '' then ch.lid when m.sender like '%@lid' then m.sender end) end as sender_lid,
                  case when not m.from_me then coalesce(ct.phone, case when m.sender = '' then ch.phone end) end as sender_phone,
                  case when not m.from_me then coalesce(ct.name, ct.push_name, case when m.sender = '' then ch.name end) end as sender_name,
                  m.wa_id, m.kind, m.body, m.status, m.ack, m.source, m.sent_by,
                  exists (select 1 from api_key k where k.id = m.sent_by and k.tenant = $1) as "by_key!", m.reference, m.reply_to, m.job, m.sent_at,
                  m.recovered
             from message m join chat ch on ch.id = m.chat
             left join contact ct on ct.session = m.session and ct.account = m.account
                   and ct.wa_id = coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id)
            where m.tenant = $1 and m.chat = $2 and m.id = $4 and ($3::timestamptz is null or m.sent_at >= $3)"#,
        tenant.uuid(),
        chat.uuid(),
        since,
        id.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Row::message))
}

/// What an export shows of a chat: messages of that time, as they were known at that moment.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// None from before; none: all.
    pub since: Option<DateTime<Utc>>,
    /// None that was recorded later.
    pub recorded_by: DateTime<Utc>,
}

/// The messages of a chat, oldest first, those after `after`: [`list`] the other way round.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn oldest_first(
    pool: &PgPool,
    tenant: TenantId,
    chat: ChatId,
    span: Span,
    after: Option<Cursor>,
    limit: i64,
) -> Result<Vec<Message>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select m.id, m.session, m.chat, m.from_me,
                  case when not m.from_me then coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id) end as sender,
                  case when not m.from_me then coalesce(ct.lid, case when m.sender = '' then ch.lid when m.sender like '%@lid' then m.sender end) end as sender_lid,
                  case when not m.from_me then coalesce(ct.phone, case when m.sender = '' then ch.phone end) end as sender_phone,
                  case when not m.from_me then coalesce(ct.name, ct.push_name, case when m.sender = '' then ch.name end) end as sender_name,
                  m.wa_id, m.kind, m.body, m.status, m.ack, m.source, m.sent_by,
                  exists (select 1 from api_key k where k.id = m.sent_by and k.tenant = $1) as "by_key!", m.reference, m.reply_to, m.job, m.sent_at,
                  m.recovered
             from message m join chat ch on ch.id = m.chat
             left join contact ct on ct.session = m.session and ct.account = m.account
                   and ct.wa_id = coalesce(nullif(m.sender, ''), ch.lid, ch.wa_id)
            where m.tenant = $1 and m.chat = $2 and ($3::timestamptz is null or m.sent_at >= $3) and m.created_at <= $7
              and ($4::timestamptz is null or (m.sent_at, m.id) > ($4, $5::uuid))
            order by m.sent_at, m.id limit $6"#,
        tenant.uuid(),
        chat.uuid(),
        span.since,
        after.map(|c| c.at),
        after.map(|c| c.id),
        limit,
        span.recorded_by
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Row::message).collect())
}
