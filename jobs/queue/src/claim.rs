//! Becoming the owner of a session, and giving it up.

use std::{sync::Arc, time::Duration};

use contract::{OwnerId, SessionId, fault_point};
use futures::future::join_all;
use store::leases::Claimable;

use crate::{
    Hub, Lease, QueueError, hosts, keys,
    lease::{boottime_ms, confirm, give_up, millis, seize},
    redis::Replication,
};

/// Sessions that are claimed at the same time.
pub const CLAIMS_AT_ONCE: usize = 8;

/// What a claim led to.
pub enum Claimed {
    /// The session is owned here. Its lanes are closed at first, but for `control`.
    Ours(Lease),
    /// Somebody holds it, or may hold it (Redis has forgotten its leases less than a TTL ago, and the row names an owner): for so long
    /// unless the lease is renewed.
    Held(Duration),
    /// Somebody else was faster.
    Lost,
}

impl Claimed {
    /// The lease, if the session is owned here now.
    pub fn ours(self) -> Option<Lease> {
        match self {
            Self::Ours(lease) => Some(lease),
            Self::Held(_) | Self::Lost => None,
        }
    }
}

/// The bump's share of the claim's life: a late one changes nothing, but need not be waited for.
const BUMP_WITHIN: Duration = Duration::from_secs(3);

impl Hub {
    /// Tries to become the owner of a session.
    ///
    /// # Errors
    /// [`QueueError`]; then nothing is owned here.
    pub async fn claim(self: &Arc<Self>, claim: &Claimable) -> Result<Claimed, QueueError> {
        let known = if claim.owned { self.redis.replication().await? } else { Replication::default() };
        self.claim_from(claim, &known).await
    }

    /// Tries to become the owner of all of them at once: [`CLAIMS_AT_ONCE`] is a good number. In their order.
    ///
    /// # Errors
    /// [`QueueError`]; then nothing is owned here. The inner error is one session's.
    pub async fn claim_each(self: &Arc<Self>, claims: &[Claimable]) -> Result<Vec<Result<Claimed, QueueError>>, QueueError> {
        let owned = claims.iter().any(|claim| claim.owned);
        let known = if owned { self.redis.replication().await? } else { Replication::default() };
        Ok(join_all(claims.iter().map(|claim| self.claim_from(claim, &known))).await)
    }

    async fn claim_from(self: &Arc<Self>, claim: &Claimable, known: &Replication) -> Result<Claimed, QueueError> {
        let (mut delay, ttl) = (Duration::ZERO, self.timings.lease_ttl());
        if claim.owned {
            let remembers = hosts::birth_of(&self.redis, &known.history).await?;
            if remembers < ttl {
                return Ok(Claimed::Held(ttl - remembers));
            }
            // A fail-over may have lost the lease of an owner that does not know it yet: it has fenced itself after a TTL. One that has
            // happened shows in the birth, and with replicas one may happen at any time.
            if remembers < 2 * ttl || known.replicas > 0 {
                delay = ttl;
            }
        }
        let (key, owner) = (keys::lease(claim.tenant, claim.session), OwnerId::new());
        let value = format!("?:{owner}");
        let mut redis = self.redis.shared();
        if let Some(left) = seize(&mut redis, &key, &value, ttl).await? {
            return Ok(Claimed::Held(left));
        }
        let _ = fault_point!("lease.after_claim", "session" => claim.session);
        let lease = self.bump(claim, owner, (&key, &value), delay).await;
        if !matches!(lease, Ok(Some(_))) {
            // Without us the claim would keep others out for a TTL; if this fails too, it does.
            let _ = give_up(&mut redis, &key, &value, claim.session).await;
        }
        let Some(lease) = lease? else { return Ok(Claimed::Lost) };
        self.insert(lease.0.clone());
        Ok(Claimed::Ours(lease))
    }

    async fn bump(
        &self,
        claim: &Claimable,
        owner: OwnerId,
        (key, value): (&str, &str),
        delay: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let _ = fault_point!("lease.before_bump", "session" => claim.session);
        let bump = store::leases::bump(&self.pool, claim, owner, self.host);
        let bumped = tokio::time::timeout(BUMP_WITHIN, bump).await.map_err(|_| QueueError::TimedOut)??;
        let Some(held) = bumped else { return Ok(None) };
        let _ = fault_point!("lease.before_cas", "session" => claim.session);
        let sent = boottime_ms();
        let ttl = self.timings.lease_ttl();
        if !confirm(&mut self.redis.shared(), key, value, &held, ttl).await? {
            // The claim ran out on the way: the epoch is ours and nobody acts under it.
            store::leases::release(&self.pool, &held).await?;
            return Ok(None);
        }
        Ok(Some(Lease::new(held, sent + millis(delay), sent + millis(ttl), &self.timings)))
    }

    /// Gives a session up: first the row, then the lease, so that whoever is called by the latter waits for nothing. A session that is not
    /// owned here (any more) is none of ours to release.
    ///
    /// # Errors
    /// [`QueueError`]; the session is still owned, and the caller may try again.
    pub async fn release(&self, session: SessionId) -> Result<(), QueueError> {
        let Some(owned) = self.find(session) else { return Ok(()) };
        owned.set_open(false);
        store::leases::release(&self.pool, &owned.held).await?;
        // Before the key goes: a renewal that is under way then sees that what it took again is not wanted any more.
        self.forget(&owned);
        // The row is free: if this fails, the rest ends with the TTL.
        give_up(&mut self.redis.shared(), &owned.key, &owned.value, session).await.map(drop)
    }

    /// Stops renewing a lease whose session has ended here without a release: it runs out, and another host may claim it. After a release
    /// nothing is left to do.
    pub fn let_go(&self, lease: &Lease) {
        self.forget(&lease.0);
    }
}
