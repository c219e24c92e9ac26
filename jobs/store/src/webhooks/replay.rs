//! Turning a webhook's cursor back.

use chrono::{DateTime, Utc};
use contract::{TenantId, WebhookId};
use sqlx::PgPool;

use crate::{Result, audit::Act};

/// From where on a webhook is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// From this event on.
    Seq(i64),
    /// From the first event since then.
    Since(DateTime<Utc>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The cursor stands before that event, or stood before it already.
    Done,
    /// No such event has been issued.
    Ahead {
        /// The last that was.
        head: i64,
    },
    /// Events from there on have been dropped.
    Expired {
        /// The smallest `seq` still kept.
        oldest: i64,
    },
    /// The tenant has no such webhook.
    NotFound,
}

/// Turns the cursor back, never forward, in one statement. What waits to be sent from there on is read from the log again, so that the order
/// holds; where the cursor stood is remembered, so that what was sent before is marked as a replay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn replay(pool: &PgPool, tenant: TenantId, webhook: WebhookId, from: From, act: &Act) -> Result<Replayed> {
    let (seq, since) = match from {
        From::Seq(seq) => (Some(seq), None),
        From::Since(at) => (None, Some(at)),
    };
    // A time before the oldest event that is kept, where others have been dropped before it: nobody knows any more what happened since.
    let row = sqlx::query!(
        r#"with w as (select id from webhook where tenant = $1 and id = $2 for no key update),
               c as (select seq as head, floor_seq from tenant_counter where tenant = $1),
               first as (
               select case when $3::bigint is not null then $3
                           when floor_seq > 1 and $4 < (select e.at from event e where e.tenant = $1 and e.seq >= floor_seq order by e.seq limit 1)
                           then floor_seq - 1
                           else coalesce((select e.seq from event e
                                           where e.tenant = $1 and e.day >= ($4::timestamptz at time zone 'UTC')::date and e.at >= $4
                                           order by e.seq limit 1), head + 1) end as seq
                 from c),
               u as (
               update webhook set replay_until = greatest(replay_until, cursor_seq), cursor_seq = first.seq - 1
                 from w, c, first
                where webhook.id = w.id and first.seq >= c.floor_seq and first.seq <= webhook.cursor_seq
               returning webhook.id),
               d as (
               delete from webhook_delivery d using u, first
                where d.webhook = u.id and d.state = 'waiting' and d.kind in ('live', 'replay') and d.seq >= first.seq),
               a as (insert into audit (tenant, id, actor, action, target, detail)
                     select $1, $5, $6, $7, $8, $9::jsonb || jsonb_build_object('from', first.seq) from u, first)
           select c.head, c.floor_seq, first.seq as "seq!" from w, c, first"#,
        tenant.uuid(),
        webhook.uuid(),
        seq,
        since,
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .fetch_optional(pool)
    .await?;
    Ok(match (row, from) {
        (None, _) => Replayed::NotFound,
        (Some(row), _) if row.seq < row.floor_seq => Replayed::Expired { oldest: row.floor_seq },
        (Some(row), From::Seq(seq)) if seq > row.head => Replayed::Ahead { head: row.head },
        (Some(_), From::Seq(_) | From::Since(_)) => Replayed::Done,
    })
}
