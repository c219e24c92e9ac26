//! What Redis still says of events that were erased, and of a tenant that is gone. Readers find a gap and read it from Postgres.

use std::collections::HashSet;

use contract::{Event, TenantId, event::Erased};
use redis::streams::{StreamId, StreamRangeReply};
use store::{PgPool, erasures::sweep};

use crate::{
    events, keys,
    redis::{QueueError, Redis},
};

/// Entries that are looked at at once.
const PAGE: usize = 500;

/// Removes the entries of erased events from the tenant's stream and its shard's firehose. Answers how many.
///
/// Before that the stream is brought up to `head`: a publisher that still holds an event as it was finds its place taken.
///
/// # Errors
/// [`QueueError`]; to be done again as a whole.
pub async fn forget(pool: &PgPool, redis: &Redis, tenant: TenantId, head: i64) -> Result<u64, QueueError> {
    events::catch_up(pool, redis, tenant, head).await?;
    let stream = scan(pool, redis, tenant, &keys::events(tenant), seq_of_id).await?;
    Ok(stream + scan(pool, redis, tenant, &keys::firehose(tenant), |entry| seq_of_field(entry, tenant)).await?)
}

/// Removes whatever names a tenant: its entries in its shard's firehose, its stream, limits, codes and pictures. To be done once Postgres has
/// nothing of it any more, or it comes back from there. Answers how many entries and keys.
///
/// # Errors
/// [`QueueError`]; to be done again as a whole.
pub async fn forget_tenant(redis: &Redis, tenant: TenantId) -> Result<u64, QueueError> {
    let (firehose, named) = (keys::firehose(tenant), tenant.to_string());
    let (mut from, mut gone) = ("-".to_owned(), 0);
    loop {
        let mut ask = redis::cmd("XRANGE");
        ask.arg(&firehose).arg(&from).arg("+").arg("COUNT").arg(PAGE);
        let page: StreamRangeReply = ask.query_async(&mut redis.shared()).await?;
        let own: Vec<&str> =
            page.ids.iter().filter(|e| e.get::<String>("tenant").as_ref() == Some(&named)).map(|e| e.id.as_str()).collect();
        if !own.is_empty() {
            gone += redis::cmd("XDEL").arg(&firehose).arg(own).query_async::<u64>(&mut redis.shared()).await?;
        }
        match page.ids.last() {
            Some(last) if page.ids.len() == PAGE => from = format!("({}", last.id),
            Some(_) | None => break,
        }
    }
    let keys: Vec<String> = keys::found(redis, &keys::any_of(tenant), None).await?.into_iter().collect();
    for some in keys.chunks(PAGE) {
        gone += redis::cmd("UNLINK").arg(some).query_async::<u64>(&mut redis.shared()).await?;
    }
    Ok(gone)
}

async fn scan(
    pool: &PgPool,
    redis: &Redis,
    tenant: TenantId,
    key: &str,
    seq: impl Fn(&StreamId) -> Option<i64>,
) -> Result<u64, QueueError> {
    let (mut from, mut gone) = ("-".to_owned(), 0);
    loop {
        let mut ask = redis::cmd("XRANGE");
        ask.arg(key).arg(&from).arg("+").arg("COUNT").arg(PAGE);
        let page: StreamRangeReply = ask.query_async(&mut redis.shared()).await?;
        let told: Vec<(i64, &str)> =
            page.ids.iter().filter(|entry| says_something(entry)).filter_map(|entry| Some((seq(entry)?, entry.id.as_str()))).collect();
        let seqs: Vec<i64> = told.iter().map(|(seq, _)| *seq).collect();
        let empty: HashSet<i64> = sweep::emptied(pool, tenant, &seqs).await?.into_iter().collect();
        let ids: Vec<&str> = told.iter().filter(|(seq, _)| empty.contains(seq)).map(|(_, id)| *id).collect();
        if !ids.is_empty() {
            gone += redis::cmd("XDEL").arg(key).arg(ids).query_async::<u64>(&mut redis.shared()).await?;
        }
        match page.ids.last() {
            Some(last) if page.ids.len() == PAGE => from = format!("({}", last.id),
            Some(_) | None => return Ok(gone),
        }
    }
}

/// Whether an entry has a body, and one that was not written after the erasure.
fn says_something(entry: &StreamId) -> bool {
    let Some(json) = entry.get::<String>("e") else { return false };
    serde_json::from_str::<Event>(&json).map_or(true, |event| !Erased::is(&event.data))
}

fn seq_of_id(entry: &StreamId) -> Option<i64> {
    entry.id.split('-').next()?.parse().ok()
}

fn seq_of_field(entry: &StreamId, tenant: TenantId) -> Option<i64> {
    (entry.get::<String>("tenant")? == tenant.to_string()).then(|| entry.get::<String>("seq")?.parse().ok())?
}
