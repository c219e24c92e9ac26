//! What is looked at, and said, when this database may have gone back to an older state.

use std::collections::HashMap;

use contract::{Event, EventId, EventType, Fact, TenantId, event::LogRestoredBody};
use sqlx::PgPool;

use crate::{
    Result,
    log::{self, NewEvent},
};

/// What a tenant's log has under some numbers, and its ends, all of one moment.
#[derive(Debug)]
pub struct Stretch {
    /// The last `seq` issued.
    pub head: i64,
    /// The smallest `seq` still kept.
    pub floor: i64,
    /// What there is.
    pub events: HashMap<i64, EventId>,
}

/// Reads the numbers from one to another. `None`: there is no such tenant.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn stretch(pool: &PgPool, tenant: TenantId, from: i64, to: i64) -> Result<Option<Stretch>> {
    let rows = sqlx::query!(
        r#"select c.seq as head, c.floor_seq, e.seq as "seq?", e.id as "id?"
             from tenant_counter c left join event e on e.tenant = $1 and e.seq between $2 and $3 where c.tenant = $1"#,
        tenant.uuid(),
        from,
        to
    )
    .fetch_all(pool)
    .await?;
    let Some((head, floor)) = rows.first().map(|r| (r.head, r.floor_seq)) else { return Ok(None) };
    let events = rows.into_iter().filter_map(|r| Some((r.seq?, EventId::from_uuid(r.id?)))).collect();
    Ok(Some(Stretch { head, floor, events }))
}

/// What has been announced behind a `seq`.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn announced(pool: &PgPool, tenant: TenantId, after: i64) -> Result<Vec<LogRestoredBody>> {
    let bodies = sqlx::query_scalar!(
        "select data from event where tenant = $1 and seq > $2 and type = $3",
        tenant.uuid(),
        after,
        EventType::LogRestored.as_str()
    )
    .fetch_all(pool)
    .await?;
    Ok(bodies.into_iter().filter_map(|body| serde_json::from_value(body).ok()).collect())
}

/// Raises the counter from `head` to right behind what is announced. `None`: it stands at `head` no more, and nothing is decided: of several
/// that announce the same, one does. Webhooks that were told something of it are told what is there now: a courier that did not notice may
/// have moved its cursor over numbers that others took since.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn announce(pool: &PgPool, tenant: TenantId, head: i64, body: LogRestoredBody) -> Result<Option<Event>> {
    let event = NewEvent::of(None, &Fact::LogRestored(body));
    let row = sqlx::query_as!(
        log::Row,
        r#"with w as (update webhook set cursor_seq = $7 where tenant = $1 and cursor_seq > $7
                        and exists (select 1 from tenant_counter where tenant = $1 and seq = $2) returning 1),
                c as (
               update tenant_counter set seq = $3 where tenant = $1 and seq = $2 and $3 > seq and (select count(*) from w) >= 0
               returning clock_timestamp() as at),
                e as (
               insert into event (tenant, seq, day, id, type, at, data)
               select $1, $3, (c.at at time zone 'UTC')::date, $4, $5, c.at, $6 from c
               returning id, seq, type, at, session, chat, data)
           select id, seq, type as kind, at, session, chat, data from e"#,
        tenant.uuid(),
        head,
        body.to + 1,
        EventId::new().uuid(),
        event.kind.as_str(),
        event.data,
        body.from - 1
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| row.event(tenant)))
}
