//! Jobs of tenants that no session does. Postgres says which is due and under whose claim ([`store::background_jobs`]); the queue carries
//! them to a worker that is free. Each may be cut off anywhere and is then begun again, by anybody.

mod erase_contact;
pub mod export;

use std::time::Duration;

use contract::{Command, CommandError, Failure, FailureCode, Outcome};
use serde_json::{Value, json};
use store::background_jobs::{self, Begun, Claim, Ending};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    schedule::Schedule,
    tasks::{Failed, Tools},
};

/// Jobs that one worker does at once.
pub const AT_ONCE: usize = 3;
/// Handed out at once.
const ROUND: i64 = 16;
/// Pause before a job is begun again that failed, or for which there was no place.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Begun so often without an end, it ends.
const MOST_STARTS: i32 = 20;

/// Where a worker keeps count of what it does.
#[derive(Debug)]
pub struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// What a job came to for now.
#[derive(Debug)]
pub enum Step {
    /// It ends.
    Done(Box<Ending>),
    /// It waits for something that others do.
    Wait(Duration),
    /// Its claim has lapsed: another does it.
    Lost,
}

/// The entry that carries a job.
pub fn entry(claim: &Claim) -> Value {
    json!({"job": claim.job(), "tenant": claim.tenant(), "claim": claim.id()})
}

/// Reads [`entry`].
pub fn read(entry: &Value) -> Option<Claim> {
    let part = |name| entry.get(name)?.as_str();
    Some(Claim::carried(part("tenant")?.parse().ok()?, part("job")?.parse().ok()?, part("claim")?.parse().ok()?))
}

/// Hands out what is due.
pub async fn hand_out(tools: &Tools, schedule: &Schedule) {
    match background_jobs::hand_out(&tools.pool, schedule.claim(), ROUND).await {
        Ok(due) => {
            for claim in due {
                if let Err(why) = tools.carrier.clone().push_job(&claim).await {
                    tracing::warn!(cause = %why, job = %claim.job(), "due, and not handed out yet");
                }
            }
        }
        Err(why) => tracing::warn!(cause = %why, "not known which jobs are due"),
    }
}

/// Does a job that was handed out, if nobody has taken it up.
pub async fn carry_out(tools: &Tools, schedule: &Schedule, places: &Places, claim: Claim, stopping: &CancellationToken) {
    let Ok(_place) = places.0.try_acquire() else { return put_off(tools, &claim, Duration::ZERO, true).await };
    let begun = match background_jobs::begin(&tools.pool, &claim, schedule.claim()).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return tracing::debug!(job = %claim.job(), "delivered again"),
        Err(why) => return tracing::warn!(cause = %why, job = %claim.job(), "not begun: it is handed out again"),
    };
    let _ = contract::fault_point!("worker.job.begun", "job" => claim.job(), "kind" => begun.job.kind);
    let (kind, began) = (begun.job.kind.clone(), std::time::Instant::now());
    let step = tokio::select! {
        step = run(tools, &begun) => step,
        () = lapses(tools, schedule, &begun.claim) => Ok(Step::Lost),
        () = stopping.cancelled() => Ok(Step::Wait(Duration::ZERO)),
    };
    metrics::histogram!("zaguan_background_job_seconds", "kind" => kind).record(began.elapsed().as_secs_f64());
    match step {
        Ok(Step::Done(ending)) => end(tools, &begun, &ending).await,
        Ok(Step::Wait(after)) => put_off(tools, &begun.claim, after, true).await,
        Ok(Step::Lost) => tracing::info!(job = %claim.job(), "its claim lapsed: another worker does it"),
        Err(why) => {
            tracing::error!(cause = %why, job = %claim.job(), kind = begun.job.kind, "a job did not come to its end");
            put_off(tools, &begun.claim, AGAIN_AFTER, false).await;
        }
    }
}

async fn run(tools: &Tools, begun: &Begun) -> Result<Step, Failed> {
    let failed = |code, why: &str| Ok(Step::Done(Box::new(Outcome::Failed(Failure::new(code, why)).into())));
    if begun.job.attempt > MOST_STARTS {
        return failed(FailureCode::TooManyStarts, "begun too often without an end");
    }
    match &begun.job.command {
        Ok(Command::EraseContact(asked)) => erase_contact::run(tools, begun, asked).await,
        Ok(Command::ExportChat(asked)) => export::run(tools, begun, asked).await,
        Err(CommandError::UnknownVersion(_)) => Ok(Step::Wait(AGAIN_AFTER)),
        Ok(
            Command::SendText(_)
            | Command::MarkRead(_)
            | Command::PairingCode(_)
            | Command::Restart
            | Command::Logout
            | Command::Screenshot,
        )
        | Err(CommandError::Undecodable(_)) => failed(FailureCode::CommandUndecodable, "no command of a worker"),
    }
}

/// Row and events; whoever comes to it again finds it ended.
async fn end(tools: &Tools, begun: &Begun, ending: &Ending) {
    let job = begun.claim.job();
    let events = match background_jobs::finish(&tools.pool, begun, ending).await {
        Ok(events) => events,
        Err(why) => return tracing::warn!(cause = %why, %job, "its end is not written: it is begun again once its claim lapses"),
    };
    if let Err(why) = queue::events::publish(&tools.pool, &tools.redis, begun.claim.tenant(), &events).await {
        tracing::debug!(cause = %why, %job, "ended and not published: the reconciler will");
    }
}

async fn put_off(tools: &Tools, claim: &Claim, after: Duration, uncounted: bool) {
    if let Err(why) = background_jobs::put_off(&tools.pool, claim, after, uncounted).await {
        tracing::debug!(cause = %why, job = %claim.job(), "not given back: its claim lapses");
    }
}

/// Renews the claim while the job is done. Returns when it is lost.
async fn lapses(tools: &Tools, schedule: &Schedule, claim: &Claim) {
    loop {
        tokio::time::sleep(schedule.claim() / 3).await;
        match background_jobs::keep(&tools.pool, claim, schedule.claim()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => tracing::debug!(cause = %why, job = %claim.job(), "claim not renewed"),
        }
    }
}
