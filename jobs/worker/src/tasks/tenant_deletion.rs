//! `tenants.delete`.

use contract::{Command, JobId, TenantId};
use store::{
    accept::NewJob,
    deletion::UNLINK_WITHIN,
    tenants::deletion::{self, Leaving},
};

use super::{BATCH, Failed, Tools};

/// Each goes as far as it can: the hosts unlink its devices and let its sessions go, and whoever runs the next round goes on. One that fails
/// keeps no other waiting. Answers how many are gone.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let (mut gone, mut failed) = (0, None);
    for tenant in deletion::marked(&tools.pool).await? {
        match of_tenant(tools, tenant).await {
            Ok(true) => {
                tracing::info!(%tenant, "a deleted tenant is gone");
                gone += 1;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%tenant, %error, "a deleted tenant stays for now");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(gone), Err)
}

/// `false`: hosts are still at it.
async fn of_tenant(tools: &Tools, tenant: TenantId) -> Result<bool, Failed> {
    let sessions = deletion::sessions(&tools.pool, tenant).await?;
    for leaving in sessions.iter().filter(|leaving| !leaving.marked) {
        close(tools, tenant, leaving).await?;
    }
    if !sessions.is_empty() {
        return Ok(false);
    }
    while !deletion::rows(&tools.pool, tenant, BATCH).await? {}
    let _ = contract::fault_point!("worker.tenant.rows_gone", "tenant" => tenant);
    queue::erasure::forget_tenant(&tools.redis, tenant).await?;
    Ok(deletion::end(&tools.pool, tenant).await?)
}

/// First the logout: whoever closes the session's browser finds it.
async fn close(tools: &Tools, tenant: TenantId, leaving: &Leaving) -> Result<(), Failed> {
    let session = leaving.session;
    if leaving.linked {
        let logout = NewJob {
            id: JobId::new(),
            tenant,
            session,
            command: Command::Logout,
            chat: None,
            message: None,
            resend_of: None,
            reference: None,
            // The founding ADMIN, for whom the operator acts.
            created_by: tenant.uuid(),
            expires_in: UNLINK_WITHIN,
            queue_when_down: false,
        };
        queue::accept_and_push(&tools.pool, &tools.redis, &logout, None).await?;
    }
    store::deletion::mark(&tools.pool, tenant, session).await?;
    queue::hosts::wanted(&tools.redis, session).await;
    Ok(())
}
