//! Chats by their WhatsApp names. Whoever meets a name first inserts it, in a statement of its own: no lock is held across it.
//!
//! A caller knows one name of a chat ([`named`]). The page knows which names are one person ([`observe`]): what it tells is added to a chat,
//! merges two chats, or parts a number from the chat that had it.

mod merge;
mod plan;

use contract::{ChatId, Event, Jid, Server, SessionId, TenantId};
use sqlx::PgPool;

use crate::{Held, Result};
use plan::{Known, Plan};

pub use merge::finish as finish_merges;

/// The chat of one name, made where nobody has met it, in the account that the session has when the statement runs: what a request read
/// before may be old.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn named(pool: &PgPool, tenant: TenantId, session: SessionId, name: &Jid) -> Result<ChatId> {
    let alias = name.to_string();
    // A name that another process inserted at the same moment makes ours insert nothing, and is found in the next round.
    for _ in 0..3 {
        let known = sqlx::query_scalar!(
            "select a.chat from chat_alias a join session s on s.id = a.session and s.tenant = $1 and a.account = coalesce(s.account, '')
              where a.session = $2 and a.alias = $3",
            tenant.uuid(),
            session.uuid(),
            alias
        )
        .fetch_optional(pool)
        .await?;
        if let Some(chat) = known {
            return Ok(ChatId::from_uuid(chat));
        }
        sqlx::query!(
            r#"with a as (
                   insert into chat_alias (session, account, alias, chat)
                   select s.id, coalesce(s.account, ''), $4, $3 from session s where s.id = $2 and s.tenant = $1
                   on conflict do nothing returning account)
               insert into chat (id, tenant, session, account, kind, wa_id, lid, phone)
               select $3, $1, $2, a.account, $5, $4, $6, $7 from a"#,
            tenant.uuid(),
            session.uuid(),
            ChatId::new().uuid(),
            alias,
            name.kind().as_str(),
            (name.server() == Server::Lid).then_some(alias.as_str()),
            name.phone(),
        )
        .execute(pool)
        .await?;
    }
    Err(sqlx::Error::RowNotFound.into())
}

/// A chat as the page's names lead to it.
#[derive(Debug)]
pub struct Observed {
    /// The chat that goes on.
    pub chat: ChatId,
    /// What the names proved.
    pub events: Vec<Event>,
}

/// How often names may be taken by others between a look and a statement.
const ROUNDS: usize = 8;

/// The chat of names that the page holds for one: first the one it uses, at most one phone number and one LID. `title` is a name to show
/// where none is known. `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn observe(pool: &PgPool, held: &Held, names: &[Jid], title: Option<&str>) -> Result<Option<Observed>> {
    let mut events = Vec::new();
    for _ in 0..ROUNDS {
        let Some(known) = known(pool, held, names).await? else { return Ok(None) };
        match plan::plan(names, &known) {
            Plan::Use(chat) => return Ok(Some(Observed { chat, events })),
            Plan::Make => make(pool, held, names, title).await?,
            Plan::Learn(chat) => learn(pool, held, chat, names, title).await?,
            Plan::Merge { into, from } => {
                let Some(told) = merge::merge(pool, held, into, from, names).await? else { return Ok(None) };
                events.extend(told);
            }
            Plan::Part { from, to } => {
                let Some(told) = merge::part(pool, held, from, to, names).await? else { return Ok(None) };
                events.extend(told);
            }
        }
    }
    Err(sqlx::Error::RowNotFound.into())
}

/// What is known of these names. `None`: no longer ours.
async fn known(pool: &PgPool, held: &Held, names: &[Jid]) -> Result<Option<Vec<Known>>> {
    let aliases: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"select a.alias as "alias?", c.id as "chat?", c.lid, c.phone
             from session s
             left join (chat_alias a join chat c on c.id = a.chat)
                    on a.session = s.id and a.account = coalesce(s.account, '') and a.alias = any($5)
            where s.id = $1 and s.tenant = $4 and s.epoch = $2 and s.owner = $3"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid(),
        &aliases
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let known = |alias: String, chat| Known { alias, chat: ChatId::from_uuid(chat), lid: None, phone: None };
    Ok(Some(rows.into_iter().filter_map(|r| Some(Known { lid: r.lid, phone: r.phone, ..known(r.alias?, r.chat?) })).collect()))
}

async fn make(pool: &PgPool, held: &Held, names: &[Jid], title: Option<&str>) -> Result<()> {
    let Some(first) = names.first() else { return Err(sqlx::Error::RowNotFound.into()) };
    sqlx::query!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                a as (
                    insert into chat_alias (session, account, alias, chat)
                    select $1, held.account, x.alias, $4 from held, unnest($5::text[]) as x (alias)
                    on conflict do nothing returning chat)
           insert into chat (id, tenant, session, account, kind, wa_id, lid, phone, name)
           select $4, held.tenant, $1, held.account, $6, $7, $8, $9, $10 from held where exists (select 1 from a)"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        ChatId::new().uuid(),
        &names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        first.kind().as_str(),
        first.to_string(),
        lid_of(names),
        phone_of(names),
        title
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Adds names to a chat.
async fn learn(pool: &PgPool, held: &Held, chat: ChatId, names: &[Jid], title: Option<&str>) -> Result<()> {
    sqlx::query!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                c as (
                    update chat set lid = coalesce($6, chat.lid), phone = coalesce($7, chat.phone), name = coalesce(chat.name, $8), wa_id = $9
                      from held
                     where chat.id = $4 and chat.tenant = held.tenant and chat.merged_into is null
                    returning chat.id)
           insert into chat_alias (session, account, alias, chat)
           select $1, held.account, x.alias, c.id from held, c, unnest($5::text[]) as x (alias) on conflict do nothing"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        chat.uuid(),
        &names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        lid_of(names),
        phone_of(names),
        title,
        names.first().map(ToString::to_string)
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn lid_of(names: &[Jid]) -> Option<String> {
    names.iter().find(|j| j.server() == Server::Lid).map(ToString::to_string)
}

fn phone_of(names: &[Jid]) -> Option<&str> {
    names.iter().find_map(Jid::phone)
}

/// The chat that an id leads to now. `None`: the tenant has none of this id.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn survivor(pool: &PgPool, tenant: TenantId, chat: ChatId) -> Result<Option<ChatId>> {
    let id = sqlx::query_scalar!(
        r#"select coalesce(merged_into, id) as "id!" from chat where tenant = $1 and id = $2"#,
        tenant.uuid(),
        chat.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(id.map(ChatId::from_uuid))
}
