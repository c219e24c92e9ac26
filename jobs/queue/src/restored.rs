//! A Postgres that went back to an older state: a fail-over that lost commits, a backup. It would issue numbers again that stood for other events.
//!
//! What was told and is not in the log shows it: entries of the stream, events that a publisher holds, the last event that a reader has
//! seen. What was told had been committed before, so whoever looks at that first and at the log then is never deceived by a stream that lags,
//! is trimmed, deleted or older than the log.

use contract::{EventId, TenantId, event::LogRestoredBody};
use store::PgPool;

use crate::{
    keys, publish,
    redis::{QueueError, Redis},
    scripts,
};

/// Entries of one look into a stream.
const PAGE: usize = 500;
/// Times that a counter that others move is raised.
const ATTEMPTS: usize = 20;
/// Numbers that are passed over, besides those that are known to have been told: for events that were committed, and read from Postgres by
/// somebody, and not yet published.
const SPARE: i64 = 500;

/// A number that was told, and the event that it stood for where that is known.
pub(crate) type Told = (i64, Option<EventId>);

/// Compares the stream from `since` on with the log. Where the log lacks what was told, the counter is raised above it, `log.restored`
/// announced, and the stream made what the log is. Answers whether something had to be done.
///
/// # Errors
/// [`QueueError`]: the next who looks does what this one did not.
pub async fn mend(pool: &PgPool, redis: &Redis, tenant: TenantId, since: i64) -> Result<bool, QueueError> {
    mend_told(pool, redis, tenant, &[], since).await
}

/// The same, with what the caller knows to have been told.
pub(crate) async fn mend_told(pool: &PgPool, redis: &Redis, tenant: TenantId, told: &[Told], since: i64) -> Result<bool, QueueError> {
    if look(pool, redis, tenant, told, since).await?.is_none() {
        return Ok(false);
    }
    for _ in 0..ATTEMPTS {
        // From the stream's beginning: where do they part?
        let Some(found) = look(pool, redis, tenant, told, 0).await? else { return Ok(false) };
        let announced = store::restored::announced(pool, tenant, found.before()).await?;
        let mut new = found.lost.iter().filter(|seq| !announced.iter().any(|known| (known.from..=known.to).contains(seq)));
        let head = match new.next() {
            Some(first) => {
                let body = LogRestoredBody { from: (found.head + 1).min(*first), to: found.head.max(found.told) + SPARE };
                // Moved meanwhile, perhaps by somebody who announces the same.
                let Some(event) = store::restored::announce(pool, tenant, found.head, body).await? else { continue };
                tracing::error!(%tenant, body.from, body.to, "Postgres has lost events that were told: the log goes on above them");
                metrics::counter!("zaguan_logs_restored_total").increment(1);
                event.seq
            }
            None if found.in_stream => found.head,
            // Announced, and the stream is right: somebody came late with what was lost.
            None => return Ok(false),
        };
        publish::start_over(pool, redis, tenant, head).await?;
        return Ok(true);
    }
    Err(QueueError::Contended)
}

/// What was told and is not in the log.
struct Found {
    /// Its numbers, in order.
    lost: Vec<i64>,
    /// Whether the stream has something of it.
    in_stream: bool,
    /// The last number told.
    told: i64,
    /// The last that the log has issued.
    head: i64,
}

impl Found {
    /// Right before the first.
    fn before(&self) -> i64 {
        self.lost.first().map_or(0, |seq| seq - 1)
    }
}

/// `None`: the log has all that was told, or there is none.
async fn look(pool: &PgPool, redis: &Redis, tenant: TenantId, told: &[Told], since: i64) -> Result<Option<Found>, QueueError> {
    // What was told first, the log then.
    let mut stream = told_by_stream(redis, tenant, since).await?;
    let in_stream = stream.len();
    stream.extend_from_slice(told);
    let (Some(first), Some(last)) = (stream.iter().map(|told| told.0).min(), stream.iter().map(|told| told.0).max()) else {
        return Ok(None);
    };
    let Some(log) = store::restored::stretch(pool, tenant, first, last).await? else { return Ok(None) };
    let gone = |(seq, id): &Told| *seq >= log.floor && (*seq > log.head || id.is_some_and(|id| log.events.get(seq) != Some(&id)));
    let in_stream = stream[..in_stream].iter().any(gone);
    let mut lost: Vec<i64> = stream.iter().filter(|told| gone(told)).map(|told| told.0).collect();
    lost.sort_unstable();
    Ok((!lost.is_empty()).then_some(Found { lost, in_stream, told: last, head: log.head }))
}

/// The stream's tail, and its entries from `since` on.
async fn told_by_stream(redis: &Redis, tenant: TenantId, since: i64) -> Result<Vec<Told>, QueueError> {
    let (mut from, mut told) = (since, Vec::new());
    loop {
        let mut script = scripts::IDS.key(keys::events(tenant));
        script.arg(from).arg(PAGE);
        let (tail, entries): (i64, Vec<(i64, String)>) = script.invoke_async(&mut redis.shared()).await?;
        if told.is_empty() && tail > 0 {
            told.push((tail, None));
        }
        // What is no id was not written by us.
        told.extend(entries.iter().filter_map(|(seq, id)| Some((*seq, Some(id.parse().ok()?)))));
        match entries.last() {
            Some((last, _)) if entries.len() == PAGE => from = last + 1,
            Some(_) | None => return Ok(told),
        }
    }
}
