//! Chats as callers see them. How a new one is made: [`crate::aliases`].

use chrono::{DateTime, Utc};
use contract::{ChatId, ChatView, Jid, SessionId, Timestamp};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Held, Result,
    cursor::Cursor,
    grants::{Access, Viewer},
    sessions::Session,
    snapshot::Snapshot,
};

/// A row of `chat`.
#[derive(Debug, Clone)]
pub struct Chat {
    /// Opaque and lasting.
    pub id: ChatId,
    /// In which session.
    pub session: SessionId,
    /// `private`, `group`, `channel`, `broadcast`.
    pub kind: String,
    /// As WhatsApp Web writes it; `erased:…` after an erasure.
    pub wa_id: String,
    /// The LID form, where known.
    pub lid: Option<String>,
    /// The phone digits, where known.
    pub phone: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Unread messages.
    pub unread: i32,
    /// Whether it is archived.
    pub archived: bool,
    /// When its last message was sent; none: not listed.
    pub last_message_at: Option<DateTime<Utc>>,
}

impl From<Chat> for ChatView {
    fn from(c: Chat) -> Self {
        Self {
            id: c.id,
            session: c.session,
            kind: c.kind,
            wa_id: c.wa_id,
            lid: c.lid,
            phone: c.phone,
            name: c.name,
            unread: c.unread,
            archived: c.archived,
            last_message_at: c.last_message_at.map(Timestamp),
        }
    }
}

/// How a caller names a chat.
#[derive(Debug, Clone)]
pub enum Named {
    /// By our id.
    Id(ChatId),
    /// By any of its WhatsApp addresses.
    Address(Jid),
}

struct Row {
    id: Uuid,
    session: Uuid,
    kind: String,
    wa_id: String,
    lid: Option<String>,
    phone: Option<String>,
    name: Option<String>,
    unread: i32,
    archived: bool,
    last_message_at: Option<DateTime<Utc>>,
}

impl Row {
    fn chat(self) -> Chat {
        Chat {
            id: ChatId::from_uuid(self.id),
            session: SessionId::from_uuid(self.session),
            kind: self.kind,
            wa_id: self.wa_id,
            lid: self.lid,
            phone: self.phone,
            name: self.name,
            unread: self.unread,
            archived: self.archived,
            last_message_at: self.last_message_at,
        }
    }
}

/// A chat that the viewer sees, and what it may do there. An EMPLEADO sees granted chats of the account linked now.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, viewer: Viewer, session: &Session, named: &Named) -> Result<Option<(Chat, Access)>> {
    let (id, alias) = match named {
        Named::Id(id) => (Some(id.uuid()), None),
        Named::Address(address) => (None, Some(address.to_string())),
    };
    let row = sqlx::query!(
        r#"select c.id, c.session, c.kind, c.wa_id, c.lid, c.phone, c.name, c.unread, c.archived, c.last_message_at,
                  $6::uuid is null or coalesce(g.writes, false) as "writes!", g.since
             from chat named
             join chat c on c.id = coalesce(named.merged_into, named.id) and c.tenant = $1
             left join lateral (
                  select bool_or(writes) as writes, case when bool_or(from_at is null) then null else min(from_at) end as since, count(*) as n
                    from live_grant g
                   where g.tenant = $1 and g.holder = $6 and g.session = c.session and (g.chat = c.id or g.all_chats)) g on true
            where named.tenant = $1 and named.session = $2
              and (named.id = $3 or named.id = (select chat from chat_alias a where a.session = $2 and a.account = $4 and a.alias = $5))
              and ($6::uuid is null or g.n > 0 and c.account = $4)"#,
        viewer.tenant().uuid(),
        session.id.uuid(),
        id,
        session.account(),
        alias,
        viewer.holder()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| {
        let access = Access { write: r.writes, since: r.since };
        let row = Row {
            id: r.id,
            session: r.session,
            kind: r.kind,
            wa_id: r.wa_id,
            lid: r.lid,
            phone: r.phone,
            name: r.name,
            unread: r.unread,
            archived: r.archived,
            last_message_at: r.last_message_at,
        };
        (row.chat(), access)
    }))
}

/// Chats with messages that the viewer sees, the latest first, those before `before`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, viewer: Viewer, session: &Session, before: Option<Cursor>, limit: i64) -> Result<Vec<Chat>> {
    let rows = sqlx::query_as!(
        Row,
        "select c.id, c.session, c.kind, c.wa_id, c.lid, c.phone, c.name, c.unread, c.archived, c.last_message_at
           from chat c
          where c.tenant = $1 and c.session = $2 and c.last_message_at is not null and c.merged_into is null
            and ($4::timestamptz is null or (c.last_message_at, c.id) < ($4, $5::uuid))
            and ($6::uuid is null or c.account = $3 and exists (
                 select 1 from live_grant g
                  where g.tenant = $1 and g.holder = $6 and g.session = c.session and (g.chat = c.id or g.all_chats)))
          order by c.last_message_at desc, c.id desc limit $7",
        viewer.tenant().uuid(),
        session.id.uuid(),
        session.account(),
        before.map(|c| c.at),
        before.map(|c| c.id),
        viewer.holder(),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(Row::chat).collect())
}

/// What the page shows of a chat besides its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Which.
    pub chat: ChatId,
    /// Its name.
    pub name: Option<String>,
    /// Unread messages.
    pub unread: i32,
    /// Whether it is archived.
    pub archived: bool,
}

/// Writes down what the page shows of chats (at most 200 a call). `false`: no longer ours. A person who was erased gets no name by it.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn show(pool: &PgPool, held: &Held, shown: &[Shown]) -> Result<bool> {
    let ours = sqlx::query_scalar!(
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                c as (
                    update chat set name = case when chat.wa_id like 'erased:%' then chat.name else coalesce(i.name, chat.name) end, unread = i.unread, archived = i.archived
                      from held, (select distinct on (id) * from unnest($4::uuid[], $5::text[], $6::int[], $7::bool[]) as i (id, name, unread, archived)) i
                     where chat.id = i.id and chat.tenant = held.tenant and chat.session = $1
                       and (coalesce(i.name, chat.name), i.unread, i.archived) is distinct from (chat.name, chat.unread, chat.archived))
           select true as "ours!" from held"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &shown.iter().map(|c| c.chat.uuid()).collect::<Vec<_>>(),
        &shown.iter().map(|c| c.name.clone()).collect::<Vec<_>>() as &[Option<String>],
        &shown.iter().map(|c| c.unread).collect::<Vec<_>>(),
        &shown.iter().map(|c| c.archived).collect::<Vec<_>>()
    )
    .fetch_optional(pool)
    .await?;
    Ok(ours.is_some())
}
