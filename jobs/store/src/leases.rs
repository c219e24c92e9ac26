//! Who owns a session: the epoch, and the proof of it that every owner's statement takes.

use contract::{HostId, OwnerId, SessionId, TenantId};
use sqlx::PgPool;

use crate::Result;

/// A session whose lease this process holds at this epoch. Made only by [`bump`], the statement that issues the epoch. The locking read
/// `WITH held AS (… FOR NO KEY UPDATE)` that opens every owner statement is the proof; this is the reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    tenant: TenantId,
    session: SessionId,
    epoch: i64,
    owner: OwnerId,
}

impl Held {
    /// Whose session it is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// The session.
    pub fn session(&self) -> SessionId {
        self.session
    }
    /// The ever-growing number of this ownership.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
    /// The fresh id of this acquisition.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }
}

/// What a claimer must know before it takes the lease.
#[derive(Debug, Clone, Copy)]
pub struct Claimable {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub session: SessionId,
    /// The epoch to compare with when it is bumped.
    pub epoch: i64,
    /// Whether the row still names an owner: the last one did not release cleanly.
    pub owned: bool,
    /// Whether unfinished jobs wait: those sessions go first.
    pub has_work: bool,
}
