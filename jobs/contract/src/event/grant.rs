//! What is told of grants.

use serde::{Deserialize, Serialize};

use super::{
    catalogue::{CHAT, GRANT, SESSION, USER, at},
    fact::Example,
};
use crate::{AccessKind, ChatId, GrantId, History, Principal, SessionId, Timestamp, UserId};

/// The body of `grant.created` and `grant.deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantBody {
    /// The grant.
    pub grant: GrantFact,
}

/// What somebody may see or do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantFact {
    /// Which.
    pub id: GrantId,
    /// Whose.
    pub holder: Principal,
    /// In which session.
    pub session: SessionId,
    /// Which chat; null for all of the session's.
    #[schema(required)]
    pub chat: Option<ChatId>,
    /// Whether it is for all chats of the session.
    pub all: bool,
    /// Reading, or writing too.
    pub access: AccessKind,
    /// How far back.
    pub history: History,
    /// Until when; null for no end.
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
}

impl Example for GrantBody {
    fn example() -> Self {
        Self {
            grant: GrantFact {
                id: GrantId::from_uuid(GRANT),
                holder: Principal::User(UserId::from_uuid(USER)),
                session: SessionId::from_uuid(SESSION),
                chat: Some(ChatId::from_uuid(CHAT)),
                all: false,
                access: AccessKind::Write,
                history: History::FromNow,
                expires_at: Some(at(2_592_000_000)),
            },
        }
    }
}
