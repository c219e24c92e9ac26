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
/// before may be old. A person who was erased keeps its chat, which gets this name anew.
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
            r#"with before as (
                   select e.chat from chat_alias e join session s on s.id = e.session and s.tenant = $1 and e.account = coalesce(s.account, '')
                    where e.session = $2 and e.alias = erased_name($1, $4)),
               a as (
                   insert into chat_alias (session, account, alias, chat)
                   select s.id, coalesce(s.account, ''), $4, coalesce((select chat from before), $3) from session s where s.id = $2 and s.tenant = $1
                   on conflict do nothing returning account, chat),
               again as (
                   update chat set wa_id = $4, lid = coalesce($6, lid), phone = coalesce($7, phone) from a
                    where chat.id = a.chat and a.chat <> $3 and chat.wa_id like 'erased:%')
               insert into chat (id, tenant, session, account, kind, wa_id, lid, phone)
               select $3, $1, $2, a.account, $5, $4, $6, $7 from a where a.chat = $3"#,
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
/// where none is known. `None`: no longer ours. Of a person who was erased and not heard of since, no name is written down.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn observe(pool: &PgPool, held: &Held, names: &[Jid], title: Option<&str>) -> Result<Option<Observed>> {
    let mut events = Vec::new();
    for _ in 0..ROUNDS {
        let Some((known, erased)) = known(pool, held, names).await? else { return Ok(None) };
        let step = if erased { plan::veiled(names, &known) } else { plan::plan(names, &known) };
        match step {
            Plan::Use(chat) => return Ok(Some(Observed { chat, events })),
            Plan::Make => make(pool, held, names, title).await?,
            Plan::Learn(chat) => learn(pool, held, chat, names, title).await?,
            Plan::Veil(chat) => veil(pool, held, chat, names).await?,
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

/// What is known of these names, and whether they are an erased person's. `None`: no longer ours.
async fn known(pool: &PgPool, held: &Held, names: &[Jid]) -> Result<Option<(Vec<Known>, bool)>> {
    let aliases: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"select n.name as "alias?", c.id as "chat?", c.lid, c.phone, c.lid is null and c.erased_lid is null as "of_nobody?", veiled(s.tenant, s.id, $5) is not null as "erased!",
                  coalesce(c.lid, c.erased_lid) not in ($6, erased_name(s.tenant, $6)) as of_another
             from session s
             left join unnest($5::text[]) n (name) on true
             left join lateral (
                  select a.chat from chat_alias a
                   where a.session = s.id and a.account = coalesce(s.account, '') and a.alias in (n.name, erased_name(s.tenant, n.name))
                   order by a.alias = n.name desc limit 1) a on true
             left join chat c on c.id = a.chat
            where s.id = $1 and s.tenant = $4 and s.epoch = $2 and s.owner = $3"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid(),
        &aliases,
        lid_of(names)
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let erased = rows.iter().any(|r| r.erased);
    let known = rows.into_iter().filter_map(|r| {
        let (alias, chat) = (r.alias?, ChatId::from_uuid(r.chat?));
        Some(Known {
            alias,
            chat,
            lid: r.lid,
            phone: r.phone,
            of_another: r.of_another.unwrap_or(false),
            of_nobody: r.of_nobody.unwrap_or(false),
        })
    });
    Ok(Some((known.collect(), erased)))
}

async fn make(pool: &PgPool, held: &Held, names: &[Jid], title: Option<&str>) -> Result<()> {
    let Some(first) = names.first() else { return Err(sqlx::Error::RowNotFound.into()) };
    sqlx::query!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                v as (select veiled(held.tenant, $1, $5) as names from held),
                -- Who is erased is erased under every name: the others are known by from here on.
                e as (
                    insert into erasure (tenant, session, name, lid, job, until, hides)
                    select distinct on (2, 3) held.tenant, e.session, x.name, x.told like '%@lid', e.job, e.until, e.hides
                      from held, v, unnest(v.names, $5) as x (name, told)
                      join lateral (
                           select o.session, o.job, o.until, o.hides from erasure o
                            where o.tenant = held.tenant and (o.session is null or o.session = $1) and o.name = any(v.names) and o.hides
                            order by o.until desc limit 1) e on true
                    on conflict on constraint erasure_key do nothing),
                a as (
                    insert into chat_alias (session, account, alias, chat)
                    select $1, held.account, x.alias, $4 from held, v, unnest(coalesce(v.names, $5)) as x (alias)
                    on conflict do nothing returning chat)
           insert into chat (id, tenant, session, account, kind, wa_id, lid, erased_lid, phone, name)
           select $4, held.tenant, $1, held.account, $6, coalesce(v.names[1], $7), case when v.names is null then $8 end,
                  case when v.names is not null then erased_name(held.tenant, $8) end,
                  case when v.names is null then $9 end, case when v.names is null then $10 end
             from held, v where exists (select 1 from a)"#,
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
                    update chat set lid = coalesce($6, chat.lid), erased_lid = case when $6 is null then chat.erased_lid end,
                           phone = coalesce($7, chat.phone), name = coalesce(chat.name, $8), wa_id = $9
                      from held
                     where chat.id = $4 and chat.tenant = held.tenant and chat.merged_into is null and veiled(held.tenant, $1, $5) is null
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

/// What is told beside the name of a person who was erased is theirs too: its LID tells them from whoever has the number next.
async fn veil(pool: &PgPool, held: &Held, chat: ChatId, names: &[Jid]) -> Result<()> {
    sqlx::query!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                c as (
                    update chat set erased_lid = erased_name(held.tenant, $5) from held
                     where chat.id = $4 and chat.tenant = held.tenant and chat.lid is null and chat.erased_lid is null returning chat.id),
                e as (
                    insert into erasure (tenant, session, name, lid, job, until, hides)
                    select held.tenant, e.session, erased_name(held.tenant, $5), true, e.job, e.until, e.hides
                      from held, c, lateral (
                           select o.* from erased_as(held.tenant, $1, $6) o where o.hides order by o.until desc limit 1) e
                    on conflict on constraint erasure_key do nothing)
           insert into chat_alias (session, account, alias, chat)
           select $1, held.account, erased_name(held.tenant, $5), c.id from held, c on conflict do nothing"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        chat.uuid(),
        lid_of(names),
        &names.iter().map(ToString::to_string).collect::<Vec<_>>()
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
