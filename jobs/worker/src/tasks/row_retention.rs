//! `rows.retention`.

use store::retention;

use super::{BATCH, Failed, Tools, batches};

/// Tenant by tenant, so that a large one does not keep a statement long.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    retention::settings::limit(&tools.pool, tools.days).await?;
    let mut gone = 0;
    for (tenant, days) in retention::tenants(&tools.pool, tools.days).await? {
        gone += batches(|| retention::messages(&tools.pool, tenant, days.messages, BATCH)).await?;
        gone += batches(|| retention::deliveries(&tools.pool, tenant, days.deliveries, BATCH)).await?;
        gone += batches(|| retention::audit(&tools.pool, tenant, days.audit, BATCH)).await?;
    }
    Ok(gone)
}
