//! Handing releases to whichever worker is free: `apalis-redis`, whose order, fencing and wake-up are not good enough for a session's lane, and
//! whose delivery, at least once and in any order, is all that these need.

use std::{sync::Arc, time::Duration};

use apalis::{
    layers::WorkerBuilderExt,
    prelude::{BackendExt, Data, TaskSink, WorkerBuilder, WorkerError},
};
use apalis_core::backend::Vacuum;
use apalis_redis::{Config, RedisStorage};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde_json::{Value, json};
use store::{background::Release, background_jobs::Claim};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    jobs::{self, Places},
    schedule::{self, Schedule},
    tasks::{Failed, Tools},
};

/// Of all its keys. Its scripts touch a key of their own beside these, so this queue cannot lie in a Redis Cluster.
const NAME: &str = "zg:background";
/// The library's 500 ms are met by an ordinary stall, and end its worker.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often the queue is looked at. What is pushed becomes visible a second later anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that one worker deals with beside one another: tasks, and jobs, of which it does fewer.
const AT_ONCE: usize = 3 + jobs::AT_ONCE;
/// Pause before a worker that lost Redis starts again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What has been carried is kept for so long.
const KEPT: Duration = Duration::from_secs(3600);

/// The queue's two ends. An entry is read as any JSON: one that this build does not understand must not end the worker.
#[derive(Clone)]
pub struct Carrier(RedisStorage<Value>);

impl Carrier {
    /// Prepares it; Redis need not be there.
    ///
    /// # Errors
    /// Where the URL does not parse.
    pub fn new(url: &str, schedule: &Schedule) -> Result<Self, redis::RedisError> {
        let patient = ConnectionManagerConfig::new().set_response_timeout(Some(ANSWER_WITHIN)).set_connection_timeout(Some(ANSWER_WITHIN));
        let connection = ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, patient)?;
        // Results must be kept: without that, what is done is not taken out. Locks and events nobody reads.
        let config = Config::default().queue(NAME).batch_size(1).heartbeat_interval(schedule.heartbeat()).missed_heartbeats(3);
        Ok(Self(RedisStorage::new(connection).with_config(config.lock_tasks(false).emit_events(false).persist_results(true))))
    }

    /// Hands a release to the workers.
    ///
    /// # Errors
    /// Redis', in the framework's words.
    pub async fn push(&mut self, release: &Release) -> Result<(), String> {
        let entry = json!({"task": release.task, "round": release.round});
        self.0.push(entry).await.map_err(|why| why.to_string())
    }

    /// Hands a job to the workers.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn push_job(&mut self, claim: &Claim) -> Result<(), String> {
        self.0.push(jobs::entry(claim)).await.map_err(|why| why.to_string())
    }

    /// Removes what has been carried.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tidy(&mut self) -> Result<u64, Failed> {
        let removed = self.0.vacuum_before(KEPT).await?;
        let (done, dead) = (self.0.get_config().done_jobs_set(), self.0.get_config().dead_jobs_set());
        redis::cmd("DEL").arg(done).arg(dead).query_async::<()>(self.0.get_connection()).await?;
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }
}

/// Runs releases until the process is to end; then what runs is finished first.
pub async fn work(tools: Tools, schedule: Schedule, stopping: CancellationToken) {
    let shared = Arc::new(Shared { tools, schedule, places: Places::default(), stopping: stopping.clone() });
    while !stopping.is_cancelled() {
        if let Err(why) = once(shared.clone(), stopping.clone()).await {
            tracing::warn!(cause = %why, "not taking tasks: Redis is away, or another worker thought this one dead");
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                () = stopping.cancelled() => {}
            }
        }
    }
}

struct Shared {
    tools: Tools,
    schedule: Schedule,
    places: Places,
    stopping: CancellationToken,
}

/// One life of the framework's worker: any error of its backend ends it. A name is never used twice, for the framework refuses one that it
/// has seen lately.
async fn once(shared: Arc<Shared>, stopping: CancellationToken) -> Result<(), WorkerError> {
    async fn handle(entry: Value, shared: Data<Arc<Shared>>) {
        let Shared { tools, schedule, places, stopping } = &**shared;
        if let Some(claim) = jobs::read(&entry) {
            return jobs::carry_out(tools, schedule, places, claim, stopping).await;
        }
        let (Some(task), Some(round)) = (entry["task"].as_str(), entry["round"].as_i64()) else {
            tracing::error!("an entry that is no release");
            return;
        };
        schedule::carry_out(tools, schedule, Release { task: task.to_owned(), round }).await;
    }
    let worker = WorkerBuilder::new(format!("worker-{}", Uuid::now_v7()))
        .backend(shared.tools.carrier.0.clone().poll_with_interval(LOOK_EVERY))
        .data(shared)
        .concurrency(AT_ONCE)
        .build(handle);
    worker
        .run_until(async move {
            stopping.cancelled().await;
            Ok::<(), WorkerError>(())
        })
        .await
}
