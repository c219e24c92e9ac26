//! What the log says, told to whoever listens now. Best effort: the reconciler finds what was missed.

use contract::{Event, SessionId, TenantId};

use crate::state::AppState;

/// Tells readers of events that have been committed.
pub async fn events(app: &AppState, tenant: TenantId, events: Vec<Event>) {
    if let Err(why) = queue::events::publish(&app.pool, &app.redis, tenant, &events).await {
        tracing::warn!(cause = %why, "events not published: the reconciler will");
    }
}

/// Wakes the hosts after a change of what is wanted.
pub async fn wanted(app: &AppState, tenant: TenantId, session: SessionId, changed: Option<Event>) {
    queue::hosts::wanted(&app.redis, session).await;
    events(app, tenant, changed.into_iter().collect()).await;
}
