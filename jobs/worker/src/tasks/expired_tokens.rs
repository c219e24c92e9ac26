//! `tokens.expired`.

use store::retention;

use super::{BATCH, Failed, Tools, batches};

/// Refresh tokens that nobody can use any more.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    batches(|| retention::refresh_tokens(&tools.pool, BATCH)).await
}
