//! What is told of webhooks.

use serde::{Deserialize, Serialize};

use super::{catalogue::WEBHOOK, fact::Example};
use crate::{WebhookId, WebhookReason, WebhookState};

/// The body of `webhook.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WebhookStatusBody {
    /// Which.
    pub webhook: WebhookId,
    /// What it is doing from now on.
    pub state: WebhookState,
    /// Why it is not active.
    #[schema(required)]
    pub reason: Option<WebhookReason>,
}

impl Example for WebhookStatusBody {
    fn example() -> Self {
        Self { webhook: WebhookId::from_uuid(WEBHOOK), state: WebhookState::Paused, reason: Some(WebhookReason::Failing) }
    }
}
