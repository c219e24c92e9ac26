//! Every duration of the protocol, in one place.

use std::time::Duration;

use serde::Deserialize;

/// The durations that hosts and the API share; the defaults are the protocol's. Given to a service as a JSON object that overrides fields
/// by name (milliseconds): `{"leaseTtlMs": 2000}`. All services of one installation must be given the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timings {
    /// How long a lease lives without renewal.
    pub lease_ttl_ms: u64,
    /// How often leases are renewed.
    pub renew_every_ms: u64,
    /// How long before the lease's end its holder stops and its browser gets SIGTERM.
    pub fence_margin_ms: u64,
    /// How long before the lease's end the browser gets SIGKILL.
    pub kill_margin_ms: u64,
    /// How often a host says that it lives.
    pub heartbeat_every_ms: u64,
    /// Without a heartbeat for so long a host counts as dead.
    pub host_stale_ms: u64,
    /// How often the reconciler looks for what a wake-up missed.
    pub reconcile_every_ms: u64,
    /// How long, while working, a send waits for the server's ack.
    pub ack_within_ms: u64,
    /// How long it waits in all, whatever the state.
    pub ack_within_total_ms: u64,
    /// How long, while working, a job started elsewhere waits for a receipt before it ends `unknown`.
    pub evidence_within_ms: u64,
    /// After how long an attempt at a job is dropped: far above what its own deadlines add up to, so that only one that hangs meets it.
    pub attempt_within_ms: u64,
    /// How often the page says that it lives.
    pub page_beat_ms: u64,
    /// How long a page may take to become ready.
    pub page_ready_within_ms: u64,
    /// How long a drain may take in all.
    pub drain_within_ms: u64,
    /// How long a drain waits for running jobs.
    pub drain_jobs_within_ms: u64,
    /// How long the snapshot of a closed profile may take: packed, sealed, in the object store.
    pub snapshot_within_ms: u64,
    /// How long a session that was linked works before its first snapshot is taken, once nothing is under way.
    pub snapshot_after_link_ms: u64,
    /// How often a session's browser is replaced by a new one, and its profile kept safe, once nothing is under way.
    pub recycle_every_ms: u64,
    /// How long hosts try, one after another, to bring a session's profile back before the session is `failed`.
    pub restore_within_ms: u64,
    /// How often the rows of a page that works are compared with what is recorded.
    pub compare_every_ms: u64,
    /// How often a host looks what its browsers cost.
    pub watch_every_ms: u64,
    /// First pause before a browser is restarted; doubles up to 32 times.
    pub restart_after_ms: u64,
    /// How long jobs of a session that was logged out or banned go on waiting, unless they were queued on request.
    pub down_jobs_fail_after_ms: u64,
    /// How long a start waits for a free slot before the session says so.
    pub capacity_after_ms: u64,
    /// How long a page may take to be unlinked.
    pub logout_within_ms: u64,
    /// How long a logged-in browser that was taken over stays taken over before it may be taken back once more by itself.
    pub takeover_every_ms: u64,
    /// How long a job may wait for its start unless the caller says otherwise.
    pub job_expires_in_ms: u64,
    /// How often a stream says how far it has judged.
    pub stream_keep_alive_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 10_000,
            renew_every_ms: 3_300,
            fence_margin_ms: 3_000,
            kill_margin_ms: 500,
            heartbeat_every_ms: 2_000,
            host_stale_ms: 6_000,
            reconcile_every_ms: 30_000,
            ack_within_ms: 30_000,
            ack_within_total_ms: 120_000,
            evidence_within_ms: 30_000,
            attempt_within_ms: 900_000,
            page_beat_ms: 30_000,
            page_ready_within_ms: 60_000,
            drain_within_ms: 120_000,
            drain_jobs_within_ms: 30_000,
            snapshot_within_ms: 60_000,
            snapshot_after_link_ms: 60_000,
            recycle_every_ms: 24 * 3_600_000,
            restore_within_ms: 600_000,
            compare_every_ms: 300_000,
            watch_every_ms: 60_000,
            restart_after_ms: 1_000,
            down_jobs_fail_after_ms: 300_000,
            capacity_after_ms: 30_000,
            logout_within_ms: 15_000,
            takeover_every_ms: 600_000,
            job_expires_in_ms: 24 * 3_600_000,
            stream_keep_alive_ms: 15_000,
        }
    }
}

/// A set of durations under which the protocol does not hold.
#[derive(Debug, thiserror::Error)]
pub enum BadTimings {
    /// Not the JSON object that was expected.
    #[error("expected a JSON object of durations in milliseconds")]
    Json(#[from] serde_json::Error),
    /// A ratio that the protocol needs.
    #[error("{0}")]
    Ratio(&'static str),
}

/// `Timings` as a duration, by field.
macro_rules! durations {
    ($($name:ident = $field:ident;)*) => {$(
        #[doc = concat!("[`Timings::", stringify!($field), "`].")]
        pub const fn $name(&self) -> Duration {
            Duration::from_millis(self.$field)
        }
    )*};
}

impl Timings {
    /// Reads overrides and checks the ratios.
    ///
    /// # Errors
    /// [`BadTimings`] names what does not fit.
    pub fn read(overrides: &str) -> Result<Self, BadTimings> {
        let timings: Self = serde_json::from_str(overrides)?;
        let rules = [
            (timings.renew_every_ms * 3 <= timings.lease_ttl_ms, "renewEveryMs must be at most a third of leaseTtlMs"),
            (timings.fence_margin_ms * 2 < timings.lease_ttl_ms, "fenceMarginMs must be less than half of leaseTtlMs"),
            (
                timings.renew_every_ms + timings.fence_margin_ms < timings.lease_ttl_ms,
                "renewEveryMs and fenceMarginMs together must be less than leaseTtlMs",
            ),
            (timings.kill_margin_ms < timings.fence_margin_ms, "killMarginMs must be less than fenceMarginMs"),
            (timings.kill_margin_ms > 0, "killMarginMs must be positive"),
            (timings.heartbeat_every_ms * 2 < timings.host_stale_ms, "hostStaleMs must be more than twice heartbeatEveryMs"),
            (timings.ack_within_ms <= timings.ack_within_total_ms, "ackWithinMs must be at most ackWithinTotalMs"),
            (
                // Before, during and after the call, and a new document.
                timings.ack_within_total_ms * 4 + timings.page_ready_within_ms <= timings.attempt_within_ms,
                "attemptWithinMs must be at least four times ackWithinTotalMs and pageReadyWithinMs together",
            ),
            (
                // Between the two a browser is closed, and the session released.
                timings.drain_jobs_within_ms + timings.snapshot_within_ms < timings.drain_within_ms,
                "drainJobsWithinMs and snapshotWithinMs together must be less than drainWithinMs",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(BadTimings::Ratio(why)))?;
        Ok(timings)
    }

    durations! {
        lease_ttl = lease_ttl_ms;
        renew_every = renew_every_ms;
        fence_margin = fence_margin_ms;
        kill_margin = kill_margin_ms;
        heartbeat_every = heartbeat_every_ms;
        host_stale = host_stale_ms;
        reconcile_every = reconcile_every_ms;
        ack_within = ack_within_ms;
        ack_within_total = ack_within_total_ms;
        evidence_within = evidence_within_ms;
        attempt_within = attempt_within_ms;
        page_beat = page_beat_ms;
        page_ready_within = page_ready_within_ms;
        drain_within = drain_within_ms;
        drain_jobs_within = drain_jobs_within_ms;
        snapshot_within = snapshot_within_ms;
        snapshot_after_link = snapshot_after_link_ms;
        recycle_every = recycle_every_ms;
        restore_within = restore_within_ms;
        compare_every = compare_every_ms;
        watch_every = watch_every_ms;
        restart_after = restart_after_ms;
        down_jobs_fail_after = down_jobs_fail_after_ms;
        capacity_after = capacity_after_ms;
        logout_within = logout_within_ms;
        takeover_every = takeover_every_ms;
        job_expires_in = job_expires_in_ms;
        stream_keep_alive = stream_keep_alive_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_their_own_ratios_and_a_bad_one_is_named() {
        assert_eq!(Timings::read("{}").unwrap(), Timings::default());
        let scaled = r#"{"leaseTtlMs": 2000, "renewEveryMs": 600, "fenceMarginMs": 600, "killMarginMs": 200, "heartbeatEveryMs": 400, "hostStaleMs": 1200}"#;
        assert_eq!(Timings::read(scaled).unwrap().lease_ttl(), Duration::from_secs(2));
        assert!(Timings::read(r#"{"leaseTtlMs": 2000}"#).unwrap_err().to_string().contains("renewEveryMs"));
        assert!(Timings::read(r#"{"leaseTtl": 2000}"#).is_err());
    }
}
