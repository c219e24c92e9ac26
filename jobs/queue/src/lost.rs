//! Jobs that were accepted and pushed, and that Postgres has lost: what is left of them is their entry in a lane.

use contract::Lane;
use store::lane_jobs;

use crate::{Hub, hub::Look, lease::Owned, publish};

impl Hub {
    /// An entry whose job Postgres does not know, or not any more: it goes once that is announced.
    pub(crate) async fn without_job(&self, owned: &Owned, lane: Lane, entry: String) -> Look {
        let session = owned.session();
        if let Ok(job) = entry.parse() {
            let events = match lane_jobs::lost(&self.pool, &owned.held, job).await {
                Ok(Some(events)) => events,
                Ok(None) => return Look::Fenced,
                Err(error) => {
                    tracing::debug!(%error, %session, %job, "a lost job is not announced yet");
                    return Look::Trouble;
                }
            };
            // A stream that lacks it gets it from the reconciler.
            if let Err(error) = publish::publish(&self.pool, &self.redis, owned.held.tenant(), &events).await {
                tracing::debug!(%error, %session, %job, "announced, and not published yet");
            }
        }
        metrics::counter!("zaguan_lane_entries_without_job").increment(1);
        tracing::error!(%session, lane = lane.as_str(), job = entry, "an entry names a job that Postgres does not know");
        owned.slot(lane).ended(entry);
        Look::More
    }
}
