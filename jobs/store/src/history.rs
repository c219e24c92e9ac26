//! How far the read model is: what was there before the link, and whether the page has been read to its end.

use contract::{Event, EventType, SessionId, TenantId};
use sqlx::PgPool;

use crate::{
    Held, Result,
    log::{self, Columns, NewEvent, OwnedRow},
    snapshot::Snapshot,
};

/// The page's rows have been read to the end. `history`: WhatsApp has nothing more from before the link, which is announced once a link.
/// `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn reconciled(pool: &PgPool, held: &Held, history: bool) -> Result<Option<Vec<Event>>> {
    let columns = Columns::of(&[NewEvent::by_statement(EventType::HistorySynced)]);
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (
                    select tenant, coalesce(account, '') as account, linked_at, history_at from session
                     where id = $1 and epoch = $2 and owner = $3 for no key update),
                s as (
                    update session set reconciled_at = clock_timestamp(),
                           history_at = case when $4 then coalesce(held.history_at, clock_timestamp()) else held.history_at end
                      from held where session.id = $1 returning 1),
                h as (
                    select held.tenant, count(m.id) as messages, count(distinct m.chat) as chats, min(m.sent_at) as oldest, max(m.sent_at) as newest
                      from held left join message m on m.session = $1 and m.account = held.account and m.source <> 'api' and m.announced_seq is null
                           and m.sent_at < held.linked_at
                     where $4 and held.history_at is null
                     group by held.tenant),
                c as (
                    update tenant_counter set seq = seq + 1 from h where tenant_counter.tenant = h.tenant and (select count(*) from s) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, data)
                    select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $5, $6, c.at, $1, jsonb_build_object('history', jsonb_build_object(
                           'chats', h.chats, 'messages', h.messages,
                           'from', to_char(h.oldest at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                           'to', to_char(h.newest at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))
                      from c, h
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        history,
        columns.ids[0],
        columns.kinds[0],
    )
    .fetch_all(pool)
    .await?;
    Ok(log::owned_events(rows, held.tenant()))
}

/// Whether reads of a session miss nothing that is known to be missing: it is connected, the page was read to its end since, what was there
/// before the link is in, and no gap has been announced since then.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn complete(snapshot: &mut Snapshot, tenant: TenantId, session: SessionId) -> Result<bool> {
    let complete = sqlx::query_scalar!(
        r#"select state = 'working' and coalesce(reconciled_at >= state_at, false) and history_at is not null
                  and coalesce(gap_at < history_at, true) as "complete!"
             from session where tenant = $1 and id = $2"#,
        tenant.uuid(),
        session.uuid()
    )
    .fetch_optional(snapshot.connection())
    .await?;
    Ok(complete.unwrap_or(false))
}
