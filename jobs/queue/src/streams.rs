//! What the streams in Redis keep no longer. Readers find all of it in Postgres.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use contract::{Event, TenantId};
use redis::streams::StreamRangeReply;
use store::PgPool;

use crate::{
    keys,
    redis::{QueueError, Redis},
};

/// Tenants that Postgres is asked about at once.
const STEP: usize = 500;
/// Entries that are looked at at once.
const PAGE: i64 = 500;

/// Trims what is older than `kept_for`, and removes the streams of tenants that are gone. Answers how many entries and streams went.
///
/// The number of entries is bounded when they are written; this bounds their age. A stream that loses all its entries stays: its last id says
/// what has been published.
///
/// # Errors
/// [`QueueError`]: the next round does what this one did not.
pub async fn trim(pool: &PgPool, redis: &Redis, kept_for: Duration) -> Result<u64, QueueError> {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut redis.shared()).await?;
    let now = DateTime::from_timestamp_micros(seconds * 1_000_000 + micros).unwrap_or_default();
    let since = now - kept_for;
    let mut gone = 0;
    for key in keys::found(redis, keys::ANY_FIREHOSE, Some("stream")).await? {
        gone += trimmed(redis, &key, &format!("{}-0", since.timestamp_millis())).await?;
    }
    let streams: Vec<String> = keys::found(redis, keys::ANY_EVENTS, Some("stream")).await?.into_iter().collect();
    for some in streams.chunks(STEP) {
        let tenants: Vec<TenantId> = some.iter().filter_map(|key| keys::last_part(key)).collect();
        let there: HashSet<TenantId> = store::tenants::there(pool, &tenants).await?.into_iter().collect();
        for tenant in tenants {
            let key = keys::events(tenant);
            gone += if there.contains(&tenant) {
                match first_kept(redis, &key, since).await? {
                    Some(from) => trimmed(redis, &key, &from).await?,
                    None => 0,
                }
            } else {
                redis::cmd("UNLINK").arg(&key).query_async::<u64>(&mut redis.shared()).await?
            };
        }
    }
    Ok(gone)
}

async fn trimmed(redis: &Redis, key: &str, from: &str) -> Result<u64, QueueError> {
    Ok(redis::cmd("XTRIM").arg(key).arg("MINID").arg("=").arg(from).query_async(&mut redis.shared()).await?)
}

/// Where a tenant's stream begins when it is trimmed, if anything of it is too old. Its ids are no times: the entries are looked at.
async fn first_kept(redis: &Redis, key: &str, since: DateTime<Utc>) -> Result<Option<String>, QueueError> {
    let (mut from, mut keep, mut count) = ("-".to_owned(), None, 1);
    loop {
        let mut ask = redis::cmd("XRANGE");
        ask.arg(key).arg(&from).arg("+").arg("COUNT").arg(count);
        let page: StreamRangeReply = ask.query_async(&mut redis.shared()).await?;
        let whole = i64::try_from(page.ids.len()).is_ok_and(|n| n == count);
        for entry in &page.ids {
            let event = entry.get::<String>("e").and_then(|json| serde_json::from_str::<Event>(&json).ok());
            // What cannot be read is of no use to readers either.
            if event.is_some_and(|event| event.timestamp >= since) {
                return Ok(keep);
            }
            let seq = entry.id.split('-').next().and_then(|seq| seq.parse::<i64>().ok()).unwrap_or(0);
            keep = Some(format!("{}-0", seq + 1));
        }
        if !whole {
            return Ok(keep);
        }
        (from, count) = (keep.clone().unwrap_or_default(), PAGE);
    }
}
