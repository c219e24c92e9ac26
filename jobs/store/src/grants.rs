//! Who sees which chats.
//!
//! Every query that shows a chat, or what hangs on one, takes a [`Viewer`] and judges by the grants of now, in SQL:
//! `($user::uuid is null or exists (… access_grant …))`. Nothing of it is cached.

use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};

use crate::users::Rol;

/// In whose eyes a query looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    tenant: TenantId,
    limited_to: Option<UserId>,
}

impl Viewer {
    /// A user of a tenant: an ADMIN sees all of it, an EMPLEADO what it was granted.
    pub const fn new(tenant: TenantId, user: UserId, rol: Rol) -> Self {
        Self {
            tenant,
            limited_to: match rol {
                Rol::Admin => None,
                Rol::Empleado => Some(user),
            },
        }
    }
    /// Whose data.
    pub const fn tenant(self) -> TenantId {
        self.tenant
    }
    /// Whether it sees all of its tenant's.
    pub const fn sees_all(self) -> bool {
        self.limited_to.is_none()
    }
    /// The user whose grants are asked, or all.
    pub(crate) fn user(self) -> Option<uuid::Uuid> {
        self.limited_to.map(UserId::uuid)
    }
}

/// What a viewer may do in a chat it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether it may send, mark read and the like.
    pub write: bool,
    /// Messages from before are hidden (`history: fromNow`).
    pub since: Option<DateTime<Utc>>,
}
