//! Two chats that are one person, and a number that went to another.

use contract::{
    ChatId, Event, Fact, Jid, Server,
    event::{ChatIdentityChangedBody, ChatMergedBody, ChatRef, MergedChat},
};
use sqlx::PgPool;

use super::{lid_of, phone_of};
use crate::{
    Held, Result,
    log::{self, Columns, NewEvent, OwnedRow},
};

/// Rows that one statement moves.
const AT_ONCE: i64 = 500;

/// Makes `from` lead to `into`: names and grants go over at once, with the event; messages and jobs right after, in pieces. `None`: no
/// longer ours.
///
/// A job that is being accepted for `from` holds that row, so it is either there to be moved, or follows `merged_into` itself.
pub(super) async fn merge(pool: &PgPool, held: &Held, into: ChatId, from: ChatId, names: &[Jid]) -> Result<Option<Vec<Event>>> {
    let chat = MergedChat { id: into, lid: lid_of(names), phone: phone_of(names).map(str::to_owned) };
    let columns = Columns::of(&[NewEvent::of(Some(into), &Fact::ChatMerged(ChatMergedBody { chat, merged: from }))]);
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                pair as (
                    select chat.id, chat.name, chat.unread, chat.last_message_at, chat.archived from chat, held
                     where chat.id in ($4, $5) and chat.tenant = held.tenant and chat.session = $1 and chat.merged_into is null
                     order by chat.id for no key update of chat),
                ok as (
                    select held.tenant from held where (select count(*) from pair) = 2 and veiled(held.tenant, $1, array[$6, $7 || '@c.us']) is null),
                gone as (update chat set merged_into = $4 from ok where chat.id = $5 or chat.merged_into = $5 returning 1),
                goes_on as (
                    update chat set lid = coalesce($6, chat.lid), erased_lid = case when $6::text is null then chat.erased_lid end,
                           phone = coalesce($7, chat.phone), name = coalesce(chat.name, gone.name),
                           unread = chat.unread + gone.unread, archived = chat.archived and gone.archived,
                           last_message_at = greatest(chat.last_message_at, gone.last_message_at)
                      from ok, pair gone where chat.id = $4 and gone.id = $5 returning 1),
                names as (update chat_alias set chat = $4 from ok where chat_alias.chat = $5 returning 1),
                grants as (update access_grant set chat = $4 from ok where access_grant.chat = $5 returning 1),
                c as (
                    update tenant_counter set seq = seq + 1 from ok
                     where tenant_counter.tenant = ok.tenant
                       and (select count(*) from gone) + (select count(*) from goes_on) + (select count(*) from names) + (select count(*) from grants) > 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $8, $9, c.at, $1, $4, $10 from c
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        into.uuid(),
        from.uuid(),
        lid_of(names),
        phone_of(names),
        columns.ids[0],
        columns.kinds[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    let Some(events) = log::owned_events(rows, held.tenant()) else { return Ok(None) };
    move_rows(pool, held, into, from).await?;
    Ok(Some(events))
}

/// Moves what merged chats still have: for an owner that takes a session on, because the one before may have died half-way.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn finish(pool: &PgPool, held: &Held) -> Result<()> {
    let rows = sqlx::query!(
        r#"select c.id, c.merged_into as "into!" from chat c
            where c.tenant = $1 and c.session = $2 and c.merged_into is not null
              and (exists (select 1 from message m where m.chat = c.id) or exists (select 1 from job j where j.chat = c.id))"#,
        held.tenant().uuid(),
        held.session().uuid()
    )
    .fetch_all(pool)
    .await?;
    for row in rows {
        move_rows(pool, held, ChatId::from_uuid(row.into), ChatId::from_uuid(row.id)).await?;
    }
    Ok(())
}

/// A message that both chats had was told under two names: the one of the chat that goes on stays.
async fn move_rows(pool: &PgPool, held: &Held, into: ChatId, from: ChatId) -> Result<()> {
    loop {
        let moved = sqlx::query_scalar!(
            r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                    -- A merge that an erasure was faster than did not happen.
                    gone as (select chat.id from chat, held where chat.id = $5 and chat.merged_into = $4 and chat.tenant = held.tenant),
                    piece as (
                        select message.id, exists (
                                   select 1 from message k where k.session = $1 and k.from_me = message.from_me and k.chat = $4
                                      and k.sender = message.sender and k.wa_id = message.wa_id) as twice
                          from message, held, gone where message.chat = gone.id and message.tenant = held.tenant limit $6),
                    twice as (delete from message using piece where message.id = piece.id and piece.twice returning 1),
                    messages as (update message set chat = $4 from piece where message.id = piece.id and not piece.twice returning 1),
                    jobs as (
                        update job set chat = $4 where job.id in (
                            select job.id from job, held, gone where job.chat = gone.id and job.tenant = held.tenant limit $6) returning 1)
               select (select count(*) from twice) + (select count(*) from messages) + (select count(*) from jobs) as "moved!""#,
            held.session().uuid(),
            held.epoch(),
            held.owner().uuid(),
            into.uuid(),
            from.uuid(),
            AT_ONCE
        )
        .fetch_one(pool)
        .await?;
        if moved == 0 {
            return Ok(());
        }
    }
}

/// Parts a number from the chat that had it: it names the chat of the LID from now on, a new one without grants where nobody has met that
/// LID. The chat that loses it keeps its own LID, its grants and what was said in it. `None`: no longer ours.
pub(super) async fn part(pool: &PgPool, held: &Held, from: ChatId, to: Option<ChatId>, names: &[Jid]) -> Result<Option<Vec<Event>>> {
    let fresh = to.unwrap_or_default();
    let body = ChatIdentityChangedBody { chat: ChatRef { id: from }, moved_to: fresh };
    let columns = Columns::of(&[NewEvent::of(Some(from), &Fact::ChatIdentityChanged(body))]);
    let phone = names.iter().find(|j| j.server() == Server::Phone).map(ToString::to_string);
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                loses as (
                    select chat.id, coalesce(chat.lid, chat.erased_lid) as lid, erased_name(held.tenant, $6) as erased_number from chat, held
                     where veiled(held.tenant, $1, array[$6, $7]) is null and chat.id = $4 and chat.tenant = held.tenant
                       and chat.merged_into is null and coalesce(chat.lid, chat.erased_lid) not in ($7, erased_name(held.tenant, $7))
                       for no key update of chat),
                -- The number of a person who was erased may be there as it is, as its hash, or as both.
                number as (
                    update chat_alias set chat = $5 from held, loses
                     where chat_alias.session = $1 and chat_alias.account = held.account and chat_alias.alias in ($6, loses.erased_number)
                       and chat_alias.chat = loses.id
                    returning 1),
                ok as (select held.tenant, held.account from held where exists (select 1 from number)),
                names as (
                    insert into chat_alias (session, account, alias, chat)
                    select $1, ok.account, n.alias, $5 from ok, unnest(array[$6, $7]) n (alias) on conflict do nothing),
                made as (
                    insert into chat (id, tenant, session, account, kind, wa_id, lid, phone)
                    select $5, ok.tenant, $1, ok.account, 'private', $12, $7, $8 from ok where not $13),
                old as (
                    update chat set phone = nullif(chat.phone, $8),
                           wa_id = case when chat.wa_id in ($6, loses.erased_number) then loses.lid else chat.wa_id end
                      from ok, loses where chat.id = loses.id returning 1),
                c as (
                    update tenant_counter set seq = seq + 1 from ok where tenant_counter.tenant = ok.tenant and exists (select 1 from old)
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $9, $10, c.at, $1, $4, $11 from c
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        from.uuid(),
        fresh.uuid(),
        phone,
        lid_of(names),
        phone_of(names),
        columns.ids[0],
        columns.kinds[0],
        columns.data[0],
        names.first().map(ToString::to_string),
        to.is_some(),
    )
    .fetch_all(pool)
    .await?;
    Ok(log::owned_events(rows, held.tenant()))
}
