//! `rows.retention`.

use contract::TenantId;
use store::retention::{self, Days};

use super::{BATCH, Failed, Tools, batches};

/// Tenant by tenant, so that a large one does not keep a statement long, nor one that fails the others waiting.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    retention::settings::limit(&tools.pool, tools.days).await?;
    let (mut gone, mut failed) = (0, None);
    for (tenant, days) in retention::tenants(&tools.pool, tools.days).await? {
        match of_tenant(tools, tenant, days).await {
            Ok(rows) => gone += rows,
            Err(error) => {
                tracing::error!(%tenant, %error, "rows of a tenant that are kept no longer stay for now");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(gone), Err)
}

async fn of_tenant(tools: &Tools, tenant: TenantId, days: Days) -> Result<u64, Failed> {
    let messages = batches(|| retention::messages(&tools.pool, tenant, days.messages, BATCH)).await?;
    let deliveries = batches(|| retention::deliveries(&tools.pool, tenant, days.deliveries, BATCH)).await?;
    Ok(messages + deliveries + batches(|| retention::audit(&tools.pool, tenant, days.audit, BATCH)).await?)
}
