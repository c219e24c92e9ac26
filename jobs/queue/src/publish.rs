//! Writing a tenant's stream: in order, without a hole, each event once, whoever publishes.

use contract::{Event, TenantId};
use store::PgPool;

use crate::{
    keys,
    redis::{QueueError, Redis},
    scripts,
};

/// Entries that a stream keeps, roughly; older ones are read from Postgres.
pub const KEPT: i64 = 2000;
/// Events of one script call.
const CHUNK: i64 = 500;
/// Times that a publisher tries to catch up with a stream that others move.
const ATTEMPTS: usize = 20;

/// An event and the `seq` it follows in the log.
struct Link {
    after: i64,
    event: Event,
}

/// Publishes events that are committed. Where the stream lacks earlier ones, those come first, from Postgres.
///
/// # Errors
/// [`QueueError`]; readers find the events in Postgres, and the reconciler publishes them.
pub async fn publish(pool: &PgPool, redis: &Redis, tenant: TenantId, events: &[Event]) -> Result<(), QueueError> {
    let Some(last) = events.iter().map(|e| e.seq).max() else { return Ok(()) };
    // Of several statements, perhaps: between two of them there may be others' events.
    let run = 1 + events.windows(2).take_while(|pair| pair[1].seq == pair[0].seq + 1).count();
    let links: Vec<Link> = events[..run].iter().map(|event| Link { after: event.seq - 1, event: event.clone() }).collect();
    let (_, tail) = append(redis, tenant, &links, None).await?;
    fill(pool, redis, tenant, tail, last).await
}

/// Publishes what the stream lacks up to `head`.
///
/// # Errors
/// As [`publish`].
pub async fn catch_up(pool: &PgPool, redis: &Redis, tenant: TenantId, head: i64) -> Result<(), QueueError> {
    let (_, tail) = append(redis, tenant, &[], None).await?;
    fill(pool, redis, tenant, tail, head).await
}

async fn fill(pool: &PgPool, redis: &Redis, tenant: TenantId, mut tail: i64, head: i64) -> Result<(), QueueError> {
    let (mut failures, mut silent) = (0, 0);
    while tail < head {
        // So far behind, most would be trimmed at once: start over with what a stream keeps.
        let start_over = (head - tail > KEPT).then_some(tail);
        let from = start_over.map_or(tail, |_| head - KEPT).max(silent);
        if from >= head {
            return Ok(());
        }
        let events = store::counters::after(pool, tenant, from, CHUNK).await?;
        if events.is_empty() {
            // At least so many numbers have been dropped by now.
            silent = from + CHUNK;
            continue;
        }
        // The log may skip numbers that were dropped: each follows the one that Postgres gave before it.
        let mut after = start_over.map_or(tail, |_| 0);
        let links: Vec<Link> = events.into_iter().map(|event| Link { after: std::mem::replace(&mut after, event.seq), event }).collect();
        let (whole, now) = append(redis, tenant, &links, start_over).await?;
        failures += usize::from(!whole);
        if failures > ATTEMPTS {
            return Err(QueueError::Contended);
        }
        tail = now;
    }
    Ok(())
}

/// Answers whether the stream has all of them now, and its tail.
async fn append(redis: &Redis, tenant: TenantId, links: &[Link], start_over: Option<i64>) -> Result<(bool, i64), QueueError> {
    let mut script = scripts::PUBLISH.key(keys::events(tenant));
    script.key(keys::firehose(tenant)).arg(keys::new_events(tenant)).arg(links.first().map_or(0, |l| l.after));
    script
        .arg(start_over.map(|tail| tail.to_string()).unwrap_or_default())
        .arg(tenant.to_string())
        .arg(KEPT)
        .arg(i32::from(redis.firehose_bodies));
    for link in links {
        let json = serde_json::to_string(&link.event).unwrap_or_default();
        script.arg(link.event.seq).arg(link.event.id.to_string()).arg(link.event.kind.as_str()).arg(json);
    }
    let (whole, tail): (i64, i64) = script.invoke_async(&mut redis.shared()).await?;
    Ok((whole == 1, tail))
}
