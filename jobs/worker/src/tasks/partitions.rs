//! `events.partitions`.

use super::{Failed, Tools};

/// Makes what is missing from today to a week ahead, and a place for days that the default partition had to take.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    store::schema::ensure_event_partitions(&tools.pool).await?;
    Ok(0)
}
