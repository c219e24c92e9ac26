//! The durations and bounds of telling webhooks.

use std::time::Duration;

use serde::Deserialize;
use store::webhook_turns::Patience;

/// What can be set; the defaults are for every installation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// How long a worker holds its webhooks without renewing.
    pub lease_ms: u64,
    /// How often it renews, takes free ones and gives up what is above its share.
    pub look_every_ms: u64,
    /// How long a connection may take to be made, its name's resolution and TLS included.
    pub connect_within_ms: u64,
    /// How long an attempt may take in all.
    pub answer_within_ms: u64,
    /// How long a connection is kept that nothing is sent over.
    pub keep_connection_ms: u64,
    /// Pauses between attempts; after the last of them an event is given up. Each is lengthened by up to a fifth, so that those who failed
    /// together do not come back together.
    pub retry_after_ms: Vec<u64>,
    /// How far a receiver's `Retry-After` may lengthen a pause.
    pub retry_after_cap_ms: u64,
    /// After how long without a success a webhook is paused, if also so many attempts have failed.
    pub pause_after_ms: u64,
    /// See [`Self::pause_after_ms`].
    pub pause_failures: i32,
    /// How many attempts a worker makes at once.
    pub attempts_at_once: usize,
    /// How many of them for one tenant.
    pub attempts_at_once_per_tenant: usize,
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Dense for a receiver that restarts, sparse for one that is down; 86 hours in all, so that one that fails altogether is paused before the
/// first event is given up.
const RETRY_AFTER: [u64; 25] = [
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    MINUTE,
    MINUTE,
    MINUTE,
    MINUTE,
    MINUTE,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    10 * HOUR,
    12 * HOUR,
    12 * HOUR,
    12 * HOUR,
    12 * HOUR,
    12 * HOUR,
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 15 * SECOND,
            look_every_ms: 3 * SECOND,
            connect_within_ms: 5 * SECOND,
            answer_within_ms: 15 * SECOND,
            keep_connection_ms: 10 * SECOND,
            retry_after_ms: RETRY_AFTER.to_vec(),
            retry_after_cap_ms: 6 * HOUR,
            pause_after_ms: 72 * HOUR,
            pause_failures: 20,
            attempts_at_once: 512,
            attempts_at_once_per_tenant: 32,
        }
    }
}

impl Settings {
    /// Reads what differs from the defaults.
    ///
    /// # Errors
    /// What is not understood, or would not work.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|why| format!("expected a JSON object of durations in milliseconds: {why}"))?;
        if read.look_every_ms < 10 || read.lease_ms < read.look_every_ms * 3 {
            return Err("lookEveryMs must be at least 10, leaseMs three times lookEveryMs".into());
        }
        if read.attempts_at_once == 0 || read.attempts_at_once_per_tenant == 0 || read.answer_within_ms == 0 || read.connect_within_ms == 0
        {
            return Err("attemptsAtOnce, attemptsAtOncePerTenant, connectWithinMs and answerWithinMs must not be 0".into());
        }
        Ok(read)
    }

    /// [`Self::lease_ms`].
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
    /// [`Self::look_every_ms`].
    pub const fn look_every(&self) -> Duration {
        Duration::from_millis(self.look_every_ms)
    }
    /// [`Self::connect_within_ms`].
    pub const fn connect_within(&self) -> Duration {
        Duration::from_millis(self.connect_within_ms)
    }
    /// [`Self::answer_within_ms`].
    pub const fn answer_within(&self) -> Duration {
        Duration::from_millis(self.answer_within_ms)
    }
    /// [`Self::keep_connection_ms`].
    pub const fn keep_connection(&self) -> Duration {
        Duration::from_millis(self.keep_connection_ms)
    }
    /// [`Self::pause_after_ms`] and [`Self::pause_failures`].
    pub const fn patience(&self) -> Patience {
        Patience { after: Duration::from_millis(self.pause_after_ms), failures: self.pause_failures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_overrides_by_name_and_what_would_not_work_is_refused() {
        let read = Settings::read(r#"{"retryAfterMs": [10, 20]}"#).unwrap();
        assert_eq!((read.retry_after_ms.len(), read.lease_ms), (2, Settings::default().lease_ms));
        for bad in [r#"{"leaseMs": 10}"#, r#"{"lookEveryMs": 0}"#, r#"{"attemptsAtOnce": 0}"#, r#"{"x": 1}"#, "1"] {
            assert!(Settings::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_fails_altogether_is_paused_before_the_first_event_is_given_up_and_a_restart_is_met_within_a_minute() {
        let defaults = Settings::default();
        let total: u64 = defaults.retry_after_ms.iter().sum();
        assert!(defaults.pause_after_ms < total - defaults.retry_after_ms[24], "the attempt before the last pauses");
        assert!(defaults.retry_after_ms.len() >= usize::try_from(defaults.pause_failures).unwrap());
        let minutes = |n: u64| {
            defaults
                .retry_after_ms
                .iter()
                .scan(0, |at, d| {
                    let from = *at;
                    *at += d;
                    Some((from, *d))
                })
                .filter(|(from, _)| *from < n * MINUTE)
                .map(|(_, d)| d)
                .max()
                .unwrap()
        };
        assert!(minutes(6) <= MINUTE);
    }
}
