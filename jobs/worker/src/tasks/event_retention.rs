//! `events.retention`.

use store::retention;

use super::{BATCH, Failed, Tools, batches};

/// Days that nobody keeps go whole; what a tenant keeps for a shorter time goes by rows.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let mut gone = 0;
    while retention::drop_event_day(&tools.pool, tools.days.events).await? {
        gone += 1;
    }
    for (tenant, days) in retention::tenants(&tools.pool, tools.days).await? {
        if days.events < tools.days.events {
            gone += batches(|| retention::events(&tools.pool, tenant, days.events, BATCH)).await?;
        }
    }
    Ok(gone)
}
