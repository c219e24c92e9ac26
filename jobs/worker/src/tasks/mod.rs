//! The tasks, a file each. All of them may be run again at any time, by anybody, beside themselves.

mod event_retention;
mod expired_jobs;
mod expired_tokens;
mod export_sweep;
mod finished_jobs;
mod key_rewrap;
mod partitions;
mod queue_tidy;
mod row_retention;
mod snapshot_sweep;
mod stream_trim;
mod tenant_deletion;

use std::{sync::Arc, time::Duration};

use service::{
    objects::{Objects, ObjectsError},
    seal::{SealFailed, Sealer},
};
use store::{PgPool, StoreError, retention::Days};

use crate::queue::Carrier;

/// Rows of one statement: it is short, and so are its locks.
const BATCH: i64 = 1000;

/// What a task may use.
#[derive(Clone)]
pub struct Tools {
    /// The truth.
    pub pool: PgPool,
    /// For events of jobs that expired.
    pub redis: queue::Redis,
    /// What carries the releases.
    pub carrier: Carrier,
    /// For how long things are kept.
    pub days: Days,
    /// For how long the streams in Redis keep events.
    pub streams_kept: Duration,
    /// Where exports and snapshots lie.
    pub objects: Objects,
    /// What seals and opens.
    pub sealer: Arc<Sealer>,
    /// For how long they are kept.
    pub exports_kept: Duration,
}

/// Why a task did not finish. What it did until then stays done.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The streams in Redis.
    #[error(transparent)]
    Queue(#[from] queue::QueueError),
    /// The framework's tables in Redis.
    #[error("queue: {0}")]
    Carrier(#[from] apalis_redis::Error),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// What has to be sealed.
    #[error(transparent)]
    Seal(#[from] SealFailed),
    /// A line that JSON cannot hold.
    #[error("a line cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// A background task. Its name is its row's in Postgres, and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub enum Task {
    /// The event log's partitions for the days to come.
    #[serde(rename = "events.partitions")]
    Partitions,
    /// Events that are kept no longer.
    #[serde(rename = "events.retention")]
    EventRetention,
    /// Messages, deliveries to webhooks and audit entries that are kept no longer.
    #[serde(rename = "rows.retention")]
    RowRetention,
    /// Queued jobs whose time ran out: their session may have no owner that would end them.
    #[serde(rename = "jobs.expired")]
    ExpiredJobs,
    /// Jobs that ended long ago, with their idempotency keys.
    #[serde(rename = "jobs.finished")]
    FinishedJobs,
    /// Tokens whose time is over.
    #[serde(rename = "tokens.expired")]
    ExpiredTokens,
    /// What the framework leaves in Redis.
    #[serde(rename = "queue.tidy")]
    QueueTidy,
    /// What the streams of events in Redis keep no longer.
    #[serde(rename = "streams.trim")]
    StreamTrim,
    /// Exports that are kept no longer, and objects that no row names.
    #[serde(rename = "exports.sweep")]
    ExportSweep,
    /// Objects of snapshots that no row names any more.
    #[serde(rename = "snapshots.sweep")]
    SnapshotSweep,
    /// What the master key of before has sealed.
    #[serde(rename = "keys.rewrap")]
    KeyRewrap,
    /// Tenants that an operator has deleted.
    #[serde(rename = "tenants.delete")]
    TenantDeletion,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 12] = [
        Self::Partitions,
        Self::EventRetention,
        Self::RowRetention,
        Self::ExpiredJobs,
        Self::FinishedJobs,
        Self::ExpiredTokens,
        Self::QueueTidy,
        Self::StreamTrim,
        Self::ExportSweep,
        Self::SnapshotSweep,
        Self::KeyRewrap,
        Self::TenantDeletion,
    ];

    /// The name of its row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partitions => "events.partitions",
            Self::EventRetention => "events.retention",
            Self::RowRetention => "rows.retention",
            Self::ExpiredJobs => "jobs.expired",
            Self::FinishedJobs => "jobs.finished",
            Self::ExpiredTokens => "tokens.expired",
            Self::QueueTidy => "queue.tidy",
            Self::StreamTrim => "streams.trim",
            Self::ExportSweep => "exports.sweep",
            Self::SnapshotSweep => "snapshots.sweep",
            Self::KeyRewrap => "keys.rewrap",
            Self::TenantDeletion => "tenants.delete",
        }
    }

    /// The task of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }

    /// How often it runs unless the schedule says otherwise.
    pub const fn every(self) -> Duration {
        const HOUR: Duration = Duration::from_secs(3600);
        match self {
            Self::ExpiredJobs | Self::TenantDeletion => Duration::from_secs(15),
            Self::ExportSweep | Self::SnapshotSweep | Self::KeyRewrap => Duration::from_secs(600),
            Self::Partitions
            | Self::EventRetention
            | Self::RowRetention
            | Self::FinishedJobs
            | Self::ExpiredTokens
            | Self::QueueTidy
            | Self::StreamTrim => HOUR,
        }
    }

    /// Does it. Answers how many rows it removed, ended or made.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn run(self, tools: &Tools) -> Result<u64, Failed> {
        match self {
            Self::Partitions => partitions::run(tools).await,
            Self::EventRetention => event_retention::run(tools).await,
            Self::RowRetention => row_retention::run(tools).await,
            Self::ExpiredJobs => expired_jobs::run(tools).await,
            Self::FinishedJobs => finished_jobs::run(tools).await,
            Self::ExpiredTokens => expired_tokens::run(tools).await,
            Self::QueueTidy => queue_tidy::run(tools).await,
            Self::StreamTrim => stream_trim::run(tools).await,
            Self::ExportSweep => export_sweep::run(tools).await,
            Self::SnapshotSweep => snapshot_sweep::run(tools).await,
            Self::KeyRewrap => key_rewrap::run(tools).await,
            Self::TenantDeletion => tenant_deletion::run(tools).await,
        }
    }
}

/// Repeats a batch until one comes back less than full. Answers the sum.
async fn batches<F: Future<Output = store::Result<u64>>>(mut batch: impl FnMut() -> F) -> Result<u64, Failed> {
    let mut sum = 0;
    loop {
        let done = batch().await?;
        sum += done;
        if done < BATCH.unsigned_abs() {
            return Ok(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_task_in_a_schedule_is_the_name_of_its_row() {
        for task in Task::ALL {
            assert_eq!(serde_json::from_value::<Task>(task.name().into()).unwrap(), task);
            assert_eq!(Task::from_name(task.name()), Some(task));
        }
    }

    #[tokio::test]
    async fn batches_go_on_until_one_is_not_full() {
        let mut left = [1000, 1000, 3].into_iter();
        assert_eq!(batches(|| std::future::ready(Ok(left.next().unwrap()))).await.unwrap(), 2003);
    }
}
