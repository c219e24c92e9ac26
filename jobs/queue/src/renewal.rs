//! Keeping leases. A round is to be called every `renew_every`, by a runtime of its own: a stalled worker must not let them run out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use contract::SessionId;
use store::{Held, leases::StillHeld};

use crate::{
    Hub,
    lease::{self, Owned},
    redis::QueueError,
    scripts,
};

/// Leases of one pipeline.
const CHUNK: usize = 250;

/// What a round of renewal found.
#[derive(Debug, Default)]
pub struct Round {
    /// Leases that now last for a TTL, by Redis or by Postgres.
    pub renewed: usize,
    /// Sessions that must be let go of. The hub has forgotten them.
    pub fenced: Vec<SessionId>,
    /// Sessions that are ours by Postgres, and whether they are wanted. Empty where it does not answer.
    pub held: Vec<StillHeld>,
    /// How long Redis took.
    pub took: Duration,
}

impl Hub {
    /// Renews every lease in Redis; where Redis does not answer, in Postgres. Then reads our epochs: one that moved fences at once. Where
    /// neither answers, leases fence themselves when their margin is reached. Nothing is renewed while the runtime that tends the sessions
    /// stands still: their browsers would live on without anybody who looks after them.
    pub async fn renew_round(self: &Arc<Self>) -> Round {
        let mut round = Round::default();
        let (mut standing, fallen): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|owned| owned.stands());
        let silent = lease::boottime_ms().saturating_sub(self.beat.load(Ordering::Acquire));
        if silent > 2 * self.timings.renew_every_ms {
            tracing::error!(silent, "the host's runtime stands still: leases are not renewed");
            standing.clear();
        }
        let started = lease::boottime_ms();
        let mut lost = fallen;
        let mut unreached = Vec::new();
        for leases in standing.chunks(CHUNK) {
            match self.renew(leases).await {
                Ok(others) => {
                    round.renewed += leases.len() - others.len();
                    lost.extend(others);
                }
                Err(error) => {
                    tracing::warn!(%error, leases = leases.len(), "leases not renewed in Redis");
                    unreached.extend_from_slice(leases);
                }
            }
        }
        round.took = Duration::from_millis(lease::boottime_ms() - started);
        if !unreached.is_empty() {
            let (extended, others) = self.extend(&unreached).await;
            round.renewed += extended;
            lost.extend(others);
        }
        lost.extend(self.read_epochs(&standing, &mut round).await);
        lost.iter().for_each(|owned| self.lose(owned));
        round.fenced = self.take_lost();
        round
    }

    /// Answers those that are another's.
    async fn renew(self: &Arc<Self>, leases: &[Arc<Owned>]) -> Result<Vec<Arc<Owned>>, QueueError> {
        // Made here, so that the runtime that renews drives it.
        let patience = self.timings.lease_ttl() / 5;
        let connection = self.renewal.get_or_try_init(|| async { self.redis.separate(patience) }).await?;
        let ttl = self.timings.lease_ttl_ms;
        let mut pipe = redis::pipe();
        for owned in leases {
            pipe.cmd("EVAL").arg(scripts::RENEW).arg(1).arg(&owned.key).arg(&owned.value).arg(ttl);
        }
        let sent = lease::boottime_ms();
        let answers: Vec<i64> = pipe.query_async(&mut connection.clone()).await?;
        let mut others = Vec::new();
        for (owned, answer) in leases.iter().zip(answers) {
            match answer {
                0 => others.push(owned.clone()),
                1 => owned.prolong(sent + ttl),
                _ => {
                    tracing::warn!(session = %owned.session(), "Redis had forgotten the lease");
                    owned.prolong(sent + ttl);
                    self.refresh(owned.clone());
                }
            }
        }
        Ok(others)
    }

    /// Keeps other hosts away by Postgres. Answers how many leases that kept, and those that are another's.
    async fn extend(&self, leases: &[Arc<Owned>]) -> (usize, Vec<Arc<Owned>>) {
        let (sent, ttl) = (lease::boottime_ms(), self.timings.lease_ttl());
        let held: Vec<Held> = leases.iter().map(|owned| owned.held).collect();
        let ours = match tokio::time::timeout(ttl / 5, store::leases::extend(&self.pool, &held, ttl)).await {
            Ok(Ok(ours)) => ours,
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases not extended in Postgres");
                return (0, Vec::new());
            }
            Err(_) => {
                tracing::warn!("leases not extended in Postgres: no answer in time");
                return (0, Vec::new());
            }
        };
        let (kept, others): (Vec<_>, Vec<_>) = leases.iter().cloned().partition(|owned| ours.contains(&owned.session()));
        for owned in &kept {
            owned.prolong(sent + lease::millis(ttl));
        }
        (kept.len(), others)
    }

    async fn read_epochs(&self, standing: &[Arc<Owned>], round: &mut Round) -> Vec<Arc<Owned>> {
        if standing.is_empty() {
            return Vec::new();
        }
        let held: Vec<Held> = standing.iter().map(|owned| owned.held).collect();
        match tokio::time::timeout(self.timings.lease_ttl() / 5, store::leases::still_held(&self.pool, &held)).await {
            Ok(Ok(still)) => {
                round.held = still;
                standing.iter().filter(|o| !round.held.iter().any(|s| s.session == o.session())).cloned().collect()
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "epochs not read");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("epochs not read: no answer in time");
                Vec::new()
            }
        }
    }
}
