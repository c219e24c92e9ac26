//! When tasks are due. There is no leader: each worker asks Postgres, which gives each release to one of them.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use store::background::{self, Release};
use tokio_util::sync::CancellationToken;

use crate::{
    jobs,
    tasks::{Task, Tools},
};

/// Pause after a task that failed, where its interval is longer.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The durations of the worker; the defaults are for every installation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Schedule {
    /// How often a worker asks what is due.
    pub look_every_ms: u64,
    /// How long a release may wait for a worker, or a worker for its own next sign of life, before the task is released again.
    pub claim_ms: u64,
    /// How often a worker tells the queue that it lives. After three that are missing, what it had taken is given to others.
    pub heartbeat_every_ms: u64,
    /// Intervals by task.
    pub every_ms: BTreeMap<Task, u64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { look_every_ms: 1_000, claim_ms: 60_000, heartbeat_every_ms: 5_000, every_ms: BTreeMap::new() }
    }
}

impl Schedule {
    /// Reads what differs from the defaults.
    ///
    /// # Errors
    /// What is not understood, or would not work.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|why| format!("expected a JSON object of durations in milliseconds: {why}"))?;
        if read.look_every_ms < 10 || read.claim_ms < read.look_every_ms * 3 || read.heartbeat_every_ms < 1_000 {
            return Err("lookEveryMs must be at least 10, claimMs three times lookEveryMs, heartbeatEveryMs at least 1000".into());
        }
        Ok(read)
    }

    /// How often a task runs.
    pub fn every(&self, task: Task) -> Duration {
        self.every_ms.get(&task).map_or_else(|| task.every(), |ms| Duration::from_millis(*ms))
    }

    /// [`Self::claim_ms`].
    pub const fn claim(&self) -> Duration {
        Duration::from_millis(self.claim_ms)
    }

    /// [`Self::heartbeat_every_ms`].
    pub const fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_every_ms)
    }
}

/// Releases what is due until the process is to end. What could not be handed to the queue is released again after its claim.
pub async fn release(tools: Tools, schedule: Schedule, stopping: CancellationToken) {
    let names: Vec<String> = Task::ALL.iter().map(|task| task.name().to_owned()).collect();
    let mut known = false;
    while !stopping.is_cancelled() {
        if !known {
            known = background::ensure(&tools.pool, &names).await.inspect_err(|why| tracing::warn!(cause = %why, "no tasks yet")).is_ok();
        }
        match background::release(&tools.pool, &names, schedule.claim()).await {
            Ok(due) => {
                for release in due {
                    if let Err(why) = tools.carrier.clone().push(&release).await {
                        tracing::warn!(cause = %why, task = release.task, "due, and not handed out yet");
                    }
                }
            }
            Err(why) => tracing::warn!(cause = %why, "not known what is due"),
        }
        jobs::hand_out(&tools, &schedule).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(schedule.look_every_ms)) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Runs a release, if nobody has.
pub async fn carry_out(tools: &Tools, schedule: &Schedule, release: Release) {
    let Some(task) = Task::from_name(&release.task) else {
        // A newer worker's: one of those gets its next release.
        tracing::warn!(task = release.task, "unknown here");
        return;
    };
    match background::begin(&tools.pool, &release, schedule.claim()).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::debug!(task = release.task, round = release.round, "delivered again");
            return;
        }
        Err(why) => {
            tracing::warn!(cause = %why, task = release.task, "not begun: it is released again");
            return;
        }
    }
    let _ = contract::fault_point!("worker.task.begun", "task" => release.task, "round" => release.round);
    let began = std::time::Instant::now();
    let outcome = tokio::select! {
        done = task.run(tools) => done.map_err(|why| why.to_string()),
        () = claim_lapses(tools, schedule, &release) => Err("the claim lapsed".to_owned()),
    };
    metrics::histogram!("zaguan_task_seconds", "task" => task.name()).record(began.elapsed().as_secs_f64());
    let (after, how) = match &outcome {
        Ok(rows) => {
            metrics::counter!("zaguan_task_rows_total", "task" => task.name()).increment(*rows);
            tracing::debug!(task = task.name(), rows, "done");
            (schedule.every(task), "done")
        }
        Err(why) => {
            tracing::error!(cause = why, task = task.name(), "task failed");
            (schedule.every(task).min(AGAIN_AFTER), "failed")
        }
    };
    metrics::counter!("zaguan_task_runs_total", "task" => task.name(), "outcome" => how).increment(1);
    if let Err(why) = background::finish(&tools.pool, &release, after, outcome.err().as_deref()).await {
        tracing::warn!(cause = %why, task = task.name(), "its end is not written: it runs again once its claim lapses");
    }
}

/// Renews the claim while a task runs. Returns when it is lost.
async fn claim_lapses(tools: &Tools, schedule: &Schedule, release: &Release) {
    loop {
        tokio::time::sleep(schedule.claim() / 3).await;
        match background::keep(&tools.pool, release, schedule.claim()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => tracing::debug!(cause = %why, task = release.task, "claim not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_overrides_by_name_and_refuses_what_would_not_work() {
        let read = Schedule::read(r#"{"everyMs": {"jobs.expired": 250}}"#).unwrap();
        assert_eq!((read.every(Task::ExpiredJobs), read.every(Task::QueueTidy)), (Duration::from_millis(250), Task::QueueTidy.every()));
        for bad in [r#"{"everyMs": {"jobs": 1}}"#, r#"{"claimMs": 10}"#, r#"{"lookEveryMs": 0}"#, r#"{"x": 1}"#, "1"] {
            assert!(Schedule::read(bad).is_err(), "{bad}");
        }
    }
}
