//! What is told of a session.

use serde::{Deserialize, Serialize};

use super::{catalogue::at, fact::Example};
use crate::{Reason, SessionState, Timestamp, UserAction};

/// The body of `session.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SessionStatusBody {
    /// How the session is now.
    pub session: SessionFact,
}

/// How a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFact {
    /// What it is doing.
    pub state: SessionState,
    /// Why, where there is more to say than the state does.
    #[schema(required)]
    pub reason: Option<Reason>,
    /// What a person has to do.
    #[schema(required)]
    pub user_action: Option<UserAction>,
    /// The linked account, where one is known.
    #[schema(required)]
    pub me: Option<LinkedAccount>,
}

/// The account that a session is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LinkedAccount {
    /// Its phone's digits.
    pub phone: String,
    /// Its LID, where the page knows it.
    #[schema(required)]
    pub lid: Option<String>,
    /// The name its owner gave it.
    #[schema(required)]
    pub name: Option<String>,
}

impl Example for SessionStatusBody {
    fn example() -> Self {
        let me = LinkedAccount { phone: "5511999990000".into(), lid: Some("83562910437741@lid".into()), name: Some("Padaria Sol".into()) };
        Self { session: SessionFact { state: SessionState::Working, reason: None, user_action: None, me: Some(me) } }
    }
}

/// The body of `session.gap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SessionGapBody {
    /// Of what time messages may be missing.
    pub gap: Gap,
}

/// A time of which nobody can say that nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Gap {
    /// When all was known to be there.
    pub from: Timestamp,
    /// When the session could read again.
    pub to: Timestamp,
}

impl Example for SessionGapBody {
    fn example() -> Self {
        Self { gap: Gap { from: at(-7_200_000), to: at(0) } }
    }
}

/// The body of `history.synced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistorySyncedBody {
    /// What was read.
    pub history: HistoryRead,
}

/// What WhatsApp had from before the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryRead {
    /// Chats with messages from before the link.
    pub chats: i64,
    /// Those messages.
    pub messages: i64,
    /// When the oldest of them was sent; null where there are none.
    #[schema(required)]
    pub from: Option<Timestamp>,
    /// When the newest of them was sent; null where there are none.
    #[schema(required)]
    pub to: Option<Timestamp>,
}

impl Example for HistorySyncedBody {
    fn example() -> Self {
        Self { history: HistoryRead { chats: 41, messages: 1873, from: Some(at(-7_776_000_000)), to: Some(at(-60_000)) } }
    }
}

/// The body of `session.qr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionQrBody {
    /// What the picture says.
    pub qr: String,
    /// Until when it can be scanned.
    pub expires_at: Timestamp,
}

impl Example for SessionQrBody {
    fn example() -> Self {
        Self { qr: "2@nJd0q1cVx,mXo2W4kYzA=,Yt7Zb1Rr0Ew=,3fQeVg8Lk5s=".into(), expires_at: at(20_000) }
    }
}
