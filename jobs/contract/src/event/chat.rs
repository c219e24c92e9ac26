//! What is told of chats.

use serde::{Deserialize, Serialize};

use super::{
    catalogue::{CHAT, OTHER_CHAT},
    fact::Example,
};
use crate::ChatId;

/// The body of `chat.merged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChatMergedBody {
    /// The chat that goes on.
    pub chat: MergedChat,
    /// The id that leads to it from now on.
    pub merged: ChatId,
}

/// A chat with the names that proved to be one person's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MergedChat {
    /// Ours; lasting.
    pub id: ChatId,
    /// The LID.
    #[schema(required)]
    pub lid: Option<String>,
    /// Digits.
    #[schema(required)]
    pub phone: Option<String>,
}

impl Example for ChatMergedBody {
    fn example() -> Self {
        let names = (Some("120984357612345@lid".into()), Some("5511888880000".into()));
        Self { chat: MergedChat { id: ChatId::from_uuid(CHAT), lid: names.0, phone: names.1 }, merged: ChatId::from_uuid(OTHER_CHAT) }
    }
}

/// The body of `chat.identity_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatIdentityChangedBody {
    /// The chat that lost its number, and keeps what was said in it.
    pub chat: ChatRef,
    /// The chat that the number names now.
    pub moved_to: ChatId,
}

/// A chat by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChatRef {
    /// Ours; lasting.
    pub id: ChatId,
}

impl Example for ChatIdentityChangedBody {
    fn example() -> Self {
        Self { chat: ChatRef { id: ChatId::from_uuid(CHAT) }, moved_to: ChatId::from_uuid(OTHER_CHAT) }
    }
}
