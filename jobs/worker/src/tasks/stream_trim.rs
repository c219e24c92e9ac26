//! `streams.trim`.

use super::{Failed, Tools};

/// Redis bounds the number of entries when they are written; here their age is, and streams of tenants that are gone go.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    Ok(queue::streams::trim(&tools.pool, &tools.redis, tools.streams_kept).await?)
}
