//! The control lane: what a session's ADMIN does to its browser. One at a time, in any state, beside the other lanes. A job ends before its
//! session is released: nobody could end it after that.

use std::time::Duration;

use contract::{Failure, FailureCode, JobResult, Media, MediaId, MediaState, Outcome};
use queue::{Done, brief};
use store::lane_jobs::LaneJob;
use tokio::sync::oneshot;

use super::{
    Ending, Order, Shared, Stage,
    executor::{GivenUp, finish, start},
};
use crate::browser::{self, CallError};

/// For a call whose answer comes from WhatsApp's server.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    PairingCode(&'a str),
    Restart,
    Logout,
    Screenshot,
}

/// Runs one job of the lane to its outcome.
pub(super) async fn run(shared: &Shared, job: &LaneJob, kind: Kind<'_>) -> Result<Done, GivenUp> {
    // Counted until its outcome is written: the actor waits for that before it releases the session.
    let _running = shared.control_begins();
    // A session that stops can be logged out all the same: by its next owner, who comes for that.
    let goes_on = |ending| matches!((ending, kind), (Ending::Drain | Ending::Fence, _) | (Ending::Stop, Kind::Logout));
    if shared.over.borrow().is_some_and(goes_on) {
        return Err(GivenUp);
    }
    if let Some(done) = start(shared, job, None).await? {
        return Ok(done);
    }
    let outcome = tokio::select! {
        biased;
        outcome = act(shared, job, kind) => outcome,
        ending = shared.over() => match goes_on(ending) {
            true => return Err(GivenUp),
            false => failed(FailureCode::SessionEnded, "the session stopped before it was done"),
        },
    };
    finish(shared, job, outcome).await
}

async fn act(shared: &Shared, job: &LaneJob, kind: Kind<'_>) -> Outcome {
    match kind {
        Kind::PairingCode(phone) => pairing_code(shared, job, phone).await,
        Kind::Restart => restart(shared, job).await,
        Kind::Logout => logout(shared, job).await,
        Kind::Screenshot => screenshot(shared).await,
    }
}

fn failed(code: FailureCode, detail: &'static str) -> Outcome {
    Outcome::Failed(Failure::new(code, detail))
}

fn succeeded(result: Option<JobResult>) -> Outcome {
    Outcome::Succeeded { evidence: None, result }
}

const NOT_READY: &str = "the page took no calls in time";

/// The code itself goes to Redis for as long as it counts, and nowhere else: jobs and events are kept for weeks.
async fn pairing_code(shared: &Shared, job: &LaneJob, phone: &str) -> Outcome {
    let within = shared.services.timings.page_ready_within();
    match shared.stage(within, |stage| stage != Stage::Away).await {
        Some(Stage::Code) => {}
        Some(Stage::Linked) => return failed(FailureCode::NotLinking, "an account is linked: the page asks for no code"),
        Some(Stage::Away) | None => return failed(FailureCode::PageError, NOT_READY),
    }
    let Some(browser) = shared.browser() else { return failed(FailureCode::PageError, NOT_READY) };
    let call = browser::PairingCode { phone: phone.to_owned() };
    let code = match browser.call(&call, &format!("{}-{}", job.id, browser.document()), ANSWER_WITHIN).await {
        Ok(code) => code,
        Err(CallError::Page { code, .. }) => {
            return Outcome::Failed(Failure::new(FailureCode::Rejected, format!("WhatsApp gives no code for this number: {code}")));
        }
        Err(error) => {
            tracing::warn!(session = %shared.session(), %error, "no pairing code");
            return failed(FailureCode::PageError, "the page gave no code in time");
        }
    };
    match brief::keep_code(&shared.services.redis, &shared.lease, job.id, &code).await {
        Ok(true) => succeeded(None),
        Ok(false) | Err(_) => failed(FailureCode::PageError, "the code could not be kept: ask for another one"),
    }
}

/// Not done twice: where another owner has started it, this one's browser is another one already.
async fn restart(shared: &Shared, job: &LaneJob) -> Outcome {
    let before = match job.epoch {
        Some(epoch) if epoch == shared.lease.held().epoch() => {
            return Outcome::Unknown(Failure::new(FailureCode::HostLost, "started, and its attempt was lost"));
        }
        Some(_) => 0,
        None => {
            let before = shared.browsers_started();
            let (done, restarted) = oneshot::channel();
            if shared.orders.send(Order::Restart(done)).await.is_err() || restarted.await.is_err() {
                // The actor has ended: `over` says how.
                return std::future::pending().await;
            }
            before
        }
    };
    let within = shared.services.timings.page_ready_within() * 2;
    match shared.stage(within, |stage| stage != Stage::Away && shared.browsers_started() > before).await {
        Some(_) => succeeded(None),
        None => failed(FailureCode::PageError, "the browser was restarted, and its page is not ready in time"),
    }
}

/// Looks first: what an earlier attempt has unlinked is not linked any more, which is what was asked for.
async fn logout(shared: &Shared, job: &LaneJob) -> Outcome {
    let within = shared.services.timings.page_ready_within() * 2;
    let stage = shared.stage(within, |stage| stage != Stage::Away).await;
    // The actor in any case: a browser that was started only for this is to be closed.
    let (done, ended) = oneshot::channel();
    if shared.orders.send(Order::Logout(done)).await.is_err() {
        return std::future::pending().await;
    }
    match (ended.await, stage) {
        (Ok(true), _) => succeeded(None),
        (Ok(false), Some(Stage::Linked)) => {
            Outcome::Unknown(Failure::new(FailureCode::OutcomeUnknown, "the page did not confirm it: look for the device on the phone"))
        }
        (Ok(false), Some(Stage::Code)) if job.attempt > 0 => succeeded(None),
        (Ok(false), Some(Stage::Code)) => failed(FailureCode::NothingLinked, "no account is linked"),
        (Ok(false), Some(Stage::Away) | None) => failed(FailureCode::PageError, NOT_READY),
        (Err(_), _) => std::future::pending().await,
    }
}

async fn screenshot(shared: &Shared) -> Outcome {
    // A page that shows anything: not necessarily one that takes calls.
    let within = shared.services.timings.page_ready_within();
    if tokio::time::timeout(within, shared.browser_is_there()).await.is_err() {
        return failed(FailureCode::PageError, "no browser in time");
    }
    let Some(browser) = shared.browser() else { return failed(FailureCode::PageError, "no browser in time") };
    let png = match browser.screenshot().await {
        Ok(png) => png,
        Err(error) => {
            tracing::warn!(session = %shared.session(), %error, "no screenshot");
            return failed(FailureCode::PageError, "the browser gave no picture");
        }
    };
    let id = MediaId::new();
    match brief::keep_screenshot(&shared.services.redis, &shared.lease, id, &png).await {
        Ok(true) => {}
        Ok(false) | Err(_) => return failed(FailureCode::PageError, "the picture could not be kept"),
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, &png);
    let sha256: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let media = Media { id, mime: "image/png".to_owned(), size: png.len() as u64, sha256, state: MediaState::Ready };
    succeeded(Some(JobResult::Picture { media }))
}
