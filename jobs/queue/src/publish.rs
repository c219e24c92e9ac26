//! Writing a tenant's stream: in order, without a hole, each event once, whoever publishes.

use contract::{Event, TenantId};
use store::PgPool;

use crate::{
    keys,
    redis::{QueueError, Redis},
    restored::{self, Told},
    scripts,
};

/// Entries that a stream keeps, roughly; older ones are read from Postgres.
pub const KEPT: i64 = 2000;
/// Events of one script call.
const CHUNK: i64 = 500;
/// Times that a publisher tries to catch up with a stream that others move.
const ATTEMPTS: usize = 20;

/// What a stream made of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appended {
    /// It has all of them now.
    All,
    /// It lacks earlier ones.
    Some,
    /// It has another event under one of their numbers.
    Another,
}

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
    match append(redis, tenant, &links, None).await? {
        (Appended::Another, _) => {
            let told: Vec<Told> = events.iter().map(|event| (event.seq, Some(event.id))).collect();
            restored::mend_told(pool, redis, tenant, &told, 0).await.map(drop)
        }
        (Appended::All | Appended::Some, tail) => fill(pool, redis, tenant, tail, last, false).await,
    }
}

/// Publishes what the stream lacks up to `head`.
///
/// # Errors
/// As [`publish`].
pub async fn catch_up(pool: &PgPool, redis: &Redis, tenant: TenantId, head: i64) -> Result<(), QueueError> {
    let (_, tail) = append(redis, tenant, &[], None).await?;
    fill(pool, redis, tenant, tail, head, false).await
}

/// Makes the stream anew of what Postgres has up to `head`: what it says is not in the log.
pub(crate) async fn start_over(pool: &PgPool, redis: &Redis, tenant: TenantId, head: i64) -> Result<(), QueueError> {
    let (_, tail) = append(redis, tenant, &[], None).await?;
    fill(pool, redis, tenant, tail, head, true).await
}

async fn fill(pool: &PgPool, redis: &Redis, tenant: TenantId, mut tail: i64, head: i64, mut anew: bool) -> Result<(), QueueError> {
    let (mut failures, mut silent) = (0, 0);
    while anew || tail < head {
        // So far behind, most would be trimmed at once: start over with what a stream keeps.
        let start_over = (anew || head - tail > KEPT).then_some(tail);
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
        let (appended, now) = append(redis, tenant, &links, start_over).await?;
        anew &= appended != Appended::All;
        failures += usize::from(appended != Appended::All);
        if failures > ATTEMPTS {
            return Err(QueueError::Contended);
        }
        tail = now;
    }
    Ok(())
}

/// Answers what became of them, and the stream's tail.
async fn append(redis: &Redis, tenant: TenantId, links: &[Link], start_over: Option<i64>) -> Result<(Appended, i64), QueueError> {
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
    let appended = match whole {
        1 => Appended::All,
        0 => Appended::Some,
        _ => Appended::Another,
    };
    Ok((appended, tail))
}
