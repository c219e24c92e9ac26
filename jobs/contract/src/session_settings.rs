//! What a tenant sets for one of its sessions.

use serde::{Deserialize, Serialize};

/// Every setting, at its default where nothing was said. Stored as JSON; a setting that a newer service wrote is ignored by an older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionSettings {
    /// Whether sending to a chat also marks it as read, as a person at the phone would.
    pub mark_read_on_send: bool,
}
