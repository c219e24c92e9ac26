//! `tenants.delete`.

use contract::{Command, JobId, TenantId};
use store::{
    accept::NewJob,
    deletion::UNLINK_WITHIN,
    tenants::deletion::{self, Leaving},
};

use super::{BATCH, Failed, Tools};

/// Each goes as far as it can: the hosts unlink its devices and let its sessions go, and whoever runs the next round goes on. One that fails
/// keeps no other waiting, nor do the rows of one the logouts of another. Answers how many are gone.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let (mut gone, mut failed) = (0, None);
    let marked = deletion::marked(&tools.pool).await?;
    let mut empty = Vec::new();
    for tenant in marked {
        match close(tools, tenant).await {
            Ok(true) => empty.push(tenant),
            Ok(false) => {}
            Err(error) => failed = Some(stays(tenant, error)),
        }
    }
    for tenant in empty {
        match remove(tools, tenant).await {
            Ok(()) => gone += 1,
            Err(error) => failed = Some(stays(tenant, error)),
        }
    }
    failed.map_or(Ok(gone), Err)
}

fn stays(tenant: TenantId, error: Failed) -> Failed {
    tracing::error!(%tenant, %error, "a deleted tenant stays for now");
    error
}

/// Whether it has no session any more.
async fn close(tools: &Tools, tenant: TenantId) -> Result<bool, Failed> {
    let sessions = deletion::sessions(&tools.pool, tenant).await?;
    for leaving in sessions.iter().filter(|leaving| !leaving.marked) {
        close_session(tools, tenant, leaving).await?;
    }
    Ok(sessions.is_empty())
}

async fn remove(tools: &Tools, tenant: TenantId) -> Result<(), Failed> {
    while !deletion::rows(&tools.pool, tenant, BATCH).await? {}
    let _ = contract::fault_point!("worker.tenant.rows_gone", "tenant" => tenant);
    queue::erasure::forget_tenant(&tools.redis, tenant).await?;
    deletion::end(&tools.pool, tenant).await?;
    tracing::info!(%tenant, "a deleted tenant is gone");
    Ok(())
}

/// First the logout: whoever closes the session's browser finds it.
async fn close_session(tools: &Tools, tenant: TenantId, leaving: &Leaving) -> Result<(), Failed> {
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
