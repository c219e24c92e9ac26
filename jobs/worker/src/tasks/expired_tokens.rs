//! `tokens.expired`.

use store::retention;

use super::{BATCH, Failed, Tools, batches};

/// Refresh tokens, links and tickets that nobody can use any more.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let tokens = batches(|| retention::refresh_tokens(&tools.pool, BATCH)).await?;
    Ok(tokens + batches(|| retention::one_time_links(&tools.pool, BATCH)).await?)
}
