//! What is told of people.

use serde::{Deserialize, Serialize};

use super::{
    catalogue::{CHAT, JOB, at},
    fact::Example,
};
use crate::{ChatId, JobId, Timestamp};

/// The body of `contact.erased`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContactErasedBody {
    /// What was erased.
    pub erasure: ErasureFact,
}

/// An erasure. It names nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErasureFact {
    /// The job that did it.
    pub job: JobId,
    /// Up to when what was said is gone.
    pub until: Timestamp,
    /// The private chats with the person in the envelope's session.
    pub chats: Vec<ChatId>,
}

impl Example for ContactErasedBody {
    fn example() -> Self {
        Self { erasure: ErasureFact { job: JobId::from_uuid(JOB), until: at(-5_000), chats: vec![ChatId::from_uuid(CHAT)] } }
    }
}
