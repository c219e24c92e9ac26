//! `jobs.finished`.

use store::retention;

use super::{BATCH, Failed, Tools, batches};

/// A key is forgotten with its job; one whose request made no job, by its own age.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let jobs = batches(|| retention::finished_jobs(&tools.pool, BATCH)).await?;
    Ok(jobs + batches(|| retention::idempotency_keys(&tools.pool, BATCH)).await?)
}
