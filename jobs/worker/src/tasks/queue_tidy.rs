//! `queue.tidy`.

use super::{Failed, Tools};

/// The framework keeps every task it ever carried.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    tools.carrier.clone().tidy().await
}
