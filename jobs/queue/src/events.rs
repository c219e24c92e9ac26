//! Publishing: a tenant's events into its stream, in order, each once. The stream's ids are `seq`; no other code writes it.

use contract::{Event, TenantId};
use store::PgPool;

use crate::{QueueError, Redis, keys, scripts};

/// Entries that a tenant's stream keeps (about): older ones are read from Postgres.
const KEPT: i64 = 2_000;
/// Entries that a shard's firehose keeps (about).
const FIREHOSE_KEPT: i64 = 100_000;
const CHUNK: usize = 200;

pub use crate::readers::{Follow, Readers};

/// Appends events to the tenant's stream and wakes its readers. Where the stream lacks what comes before them, that is appended from
/// Postgres first; a stream too far behind begins anew.
///
/// # Errors
/// [`QueueError`]; what was not published is appended by the next publisher or the reconciler.
pub async fn publish(pool: &PgPool, redis: &Redis, tenant: TenantId, events: &[Event]) -> Result<(), QueueError> {
    let Some(last) = events.last().map(|e| e.seq) else { return Ok(()) };
    let mut tail = append(redis, tenant, events).await?;
    while tail < last {
        let from = if last - tail > KEPT { restart(pool, redis, tenant, tail, last - KEPT).await? } else { tail };
        let missing = store::counters::after(pool, tenant, from, CHUNK as i64).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let now = append(redis, tenant, &missing).await?;
        if now <= from {
            // Postgres has a hole there (its retention passed): begin after it.
            restart(pool, redis, tenant, now, missing.first().map_or(from, |e| e.seq - 1)).await?;
        }
        tail = now;
    }
    Ok(())
}

/// Appends what follows the stream's tail; answers the tail.
async fn append(redis: &Redis, tenant: TenantId, events: &[Event]) -> Result<i64, QueueError> {
    let mut tail = 0;
    for chunk in events.chunks(CHUNK) {
        let mut call = scripts::PUBLISH.key(keys::events(tenant));
        call.key(keys::firehose(tenant)).arg(KEPT).arg(keys::new_events(tenant)).arg(FIREHOSE_KEPT);
        for event in chunk {
            call.arg(event.seq).arg(event.id.to_string()).arg(serde_json::to_string(event).unwrap_or_default());
        }
        tail = call.invoke_async(&mut redis.commands()).await?;
    }
    Ok(tail)
}

/// Begins the stream anew with the first event after `after`, where its tail is still the one that was seen. Answers the tail.
async fn restart(pool: &PgPool, redis: &Redis, tenant: TenantId, seen: i64, after: i64) -> Result<i64, QueueError> {
    let Some(first) = store::counters::after(pool, tenant, after, 1).await?.pop() else { return Ok(seen) };
    let body = serde_json::to_string(&first).unwrap_or_default();
    let mut call = scripts::RESTART.key(keys::events(tenant));
    call.arg(seen).arg(first.seq).arg(first.id.to_string()).arg(body);
    Ok(call.invoke_async(&mut redis.commands()).await?)
}

/// Appends what Postgres has beyond the stream's tail, up to `head`.
pub(crate) async fn backfill(pool: &PgPool, redis: &Redis, tenant: TenantId, head: i64) -> Result<(), QueueError> {
    let last = store::counters::after(pool, tenant, head - 1, 1).await?;
    publish(pool, redis, tenant, &last).await
}

/// Events in the stream after `after`, in order; those that do not parse end the list.
pub(crate) async fn read(redis: &Redis, tenant: TenantId, after: i64, limit: usize) -> Result<Vec<Event>, QueueError> {
    let rows: ::redis::streams::StreamRangeReply = ::redis::cmd("XRANGE")
        .arg(keys::events(tenant))
        .arg(format!("({after}-0"))
        .arg("+")
        .arg("COUNT")
        .arg(limit)
        .query_async(&mut redis.commands())
        .await?;
    let event = |entry: &::redis::streams::StreamId| serde_json::from_str(&entry.get::<String>("event")?).ok();
    Ok(rows.ids.iter().map_while(event).collect())
}
