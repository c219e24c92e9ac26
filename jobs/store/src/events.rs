//! The log as its readers see it.

use contract::{ChatId, Event, EventType, SessionId};
use sqlx::PgPool;

use crate::{Result, grants::Viewer, log};

/// What of the log a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these types only; empty: of all.
    pub types: Vec<EventType>,
    /// Of this session only.
    pub session: Option<SessionId>,
    /// Of this chat only, and of those that were merged into it.
    pub chat: Option<ChatId>,
}

/// What of the log a reader wants now.
#[derive(Debug, Clone)]
pub struct Query {
    /// Events above this `seq`; none: from the oldest kept.
    pub after: Option<i64>,
    /// Which of them.
    pub filter: Filter,
    /// At most so many.
    pub limit: i64,
}

/// What the log answers.
#[derive(Debug)]
pub enum Read {
    /// Events in order.
    Page {
        /// Those that the reader asked for and may see.
        items: Vec<Event>,
        /// Where to go on: everything up to it has been judged, shown or not.
        next: i64,
        /// The last event's `seq`.
        head: i64,
    },
    /// `after` has never been issued.
    Ahead {
        /// The last that was.
        head: i64,
    },
    /// Events above `after` have been dropped.
    Expired {
        /// The smallest `seq` still kept.
        oldest: i64,
    },
}

/// Reads the log after a cursor. The head is read first: whoever issued it committed everything below it before.
///
/// An EMPLEADO sees what happens in chats granted to it (by the grants of now), its own grants, and how sessions are.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn read(pool: &PgPool, viewer: Viewer, query: &Query) -> Result<Read> {
    let tenant = viewer.tenant();
    let counter = sqlx::query!("select seq, floor_seq from tenant_counter where tenant = $1", tenant.uuid()).fetch_one(pool).await?;
    let after = query.after.unwrap_or(counter.floor_seq - 1);
    if after > counter.seq {
        return Ok(Read::Ahead { head: counter.seq });
    }
    if after < counter.floor_seq - 1 {
        return Ok(Read::Expired { oldest: counter.floor_seq });
    }
    let rows = judged(pool, viewer, query, (after, counter.seq)).await?;
    // A full page says nothing about what lies behind its last event.
    let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= query.limit;
    let next = if full { rows.last().map_or(after, |r| r.seq) } else { counter.seq };
    Ok(Read::Page { items: log::events(rows, tenant), next, head: counter.seq })
}

/// The events above one `seq` and up to another that the viewer may see and asked for.
async fn judged(pool: &PgPool, viewer: Viewer, query: &Query, (after, up_to): (i64, i64)) -> Result<Vec<log::Row>> {
    let types: Vec<String> = query.filter.types.iter().map(|t| t.as_str().to_owned()).collect();
    let rows = sqlx::query_as!(
        log::Row,
        r#"select e.id, e.seq, e.type as kind, e.at, e.session, e.chat, e.data
             from event e
            where e.tenant = $1 and e.seq > $2 and e.seq <= $3
              and (cardinality($4::text[]) = 0 or e.type = any($4)) and ($5::uuid is null or e.session = $5)
               and ($8::uuid is null or exists (select 1 from chat m where m.id = e.chat and coalesce(m.merged_into, m.id) = $8))
               and ($6::uuid is null
                    or e.type in ('grant.created', 'grant.deleted') and e.data->'grant'->>'holder' = $9
                    or e.chat is null and e.type = 'session.status' and ($10::uuid is null or exists (
                       select 1 from api_key k where k.tenant = $1 and k.id = $10 and (k.sessions is null or e.session = any(k.sessions))))
                    or e.type not in ('grant.created', 'grant.deleted') and exists (
                       select 1 from live_grant g join chat c on c.id = e.chat join session s on s.id = e.session
                        where g.tenant = $1 and g.holder = $6 and g.session = e.session
                          and (g.chat = coalesce(c.merged_into, c.id) or g.all_chats) and c.account = coalesce(s.account, '')
                          and (g.from_at is null or e.at >= g.from_at)))
            order by e.seq limit $7"#,
        viewer.tenant().uuid(),
        after,
        up_to,
        &types,
        query.filter.session.map(SessionId::uuid),
        viewer.holder(),
        query.limit,
        query.filter.chat.map(ChatId::uuid),
        viewer.holder_name(),
        viewer.key()
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// The events above `after` and up to `up_to` that a reader may see and asked for, by the grants of now: [`read`]'s judgement, for one that
/// knows already that they are there.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn judge(pool: &PgPool, viewer: Viewer, filter: &Filter, after: i64, up_to: i64) -> Result<Vec<Event>> {
    let query = Query { after: Some(after), filter: filter.clone(), limit: up_to - after };
    let rows = judged(pool, viewer, &query, (after, up_to)).await?;
    Ok(log::events(rows, viewer.tenant()))
}

/// The session that a chat belongs to.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn session_of(pool: &PgPool, viewer: Viewer, chat: ChatId) -> Result<Option<SessionId>> {
    let session = sqlx::query_scalar!("select session from chat where tenant = $1 and id = $2", viewer.tenant().uuid(), chat.uuid())
        .fetch_optional(pool)
        .await?;
    Ok(session.map(SessionId::from_uuid))
}
