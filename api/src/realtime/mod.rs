//! What is pushed to callers while they stay connected: one fan-out, judged for each of them.

mod asked;
mod feed;
pub mod socketio;
mod sse;

pub use asked::{cursor, filter};
pub use feed::{Ending, Feed, Next};
pub use sse::respond;

use contract::TenantId;

use crate::state::AppState;

/// A cursor above the log's head may have been given out by a log that went back to an older state since. Answers whether the log was raised
/// above what it had told.
pub async fn restored(app: &AppState, tenant: TenantId, head: i64) -> bool {
    queue::restored::mend(&app.pool, &app.redis, tenant, head).await.unwrap_or_else(|error| {
        tracing::warn!(%error, %tenant, "not known whether the log went back");
        false
    })
}
