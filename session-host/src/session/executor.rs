//! Runs the jobs of a session's lanes. A message is never handed to the page a second time: what was started elsewhere is looked for, and
//! ends `unknown` where nothing can be proved.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{
    Command, CommandError, Evidence, Failure, FailureCode, JobId, JobResult, MarkRead, Outcome, SendText, WaKey, fault_point, wa_id_of,
};
use queue::Done;
use store::{
    ends::QueuedEnd,
    lane_jobs::{LaneJob, Start},
    outcomes::Recorded,
};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Seen, Shared, control, recipient, recorder};
use crate::browser::{self, CallError, FindMessage, PageCall, ResolveChat};

/// For calls that only read.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(10);
/// From the third start on a job is not attempted any more.
const MOST_STARTS: i32 = 2;
/// Before a look-up that the page refused is made again.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Before a statement is said again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The attempt must be given up: the session is no longer ours, or not in a state to run it. The lane entry stays.
pub(super) struct GivenUp;

/// Runs one job to its outcome. The caller acks the lane entry on [`Done::Ack`].
pub async fn execute(shared: Arc<Shared>, job: Arc<LaneJob>) -> Done {
    if job.state.is_final() {
        return Done::Ack;
    }
    tokio::select! {
        done = attempt(&shared, &job) => done.unwrap_or(Done::Again),
        () = shared.gone.cancelled() => Done::Again,
    }
}

async fn attempt(shared: &Shared, job: &LaneJob) -> Result<Done, GivenUp> {
    if let Some(outcome) = refusal(job) {
        return match start(shared, job, None).await? {
            Some(done) => Ok(done),
            None => finish(shared, job, outcome).await,
        };
    }
    match &job.command {
        Ok(Command::SendText(send)) => send_text(shared, job, send).await,
        Ok(Command::MarkRead(read)) => mark_read(shared, job, read).await,
        Ok(Command::PairingCode(asked)) => control::run(shared, job, control::Kind::PairingCode(&asked.phone)).await,
        Ok(Command::Restart) => control::run(shared, job, control::Kind::Restart).await,
        Ok(Command::Logout) => control::run(shared, job, control::Kind::Logout).await,
        Ok(Command::Screenshot) => control::run(shared, job, control::Kind::Screenshot).await,
        // A worker's: no lane leads here.
        Ok(Command::EraseContact(_) | Command::ExportChat(_)) | Err(_) => Ok(Done::Again),
    }
}

/// The end of a job that is not attempted (any more). What may have been handed to the page may have been done.
fn refusal(job: &LaneJob) -> Option<Outcome> {
    let failed = |code, detail| Some(Outcome::Failed(Failure::new(code, detail)));
    match &job.command {
        Err(CommandError::UnknownVersion(_)) => failed(FailureCode::HostTooOld, "no host of this installation knows this command"),
        Err(CommandError::Undecodable(_)) => failed(FailureCode::CommandUndecodable, "the stored command does not decode"),
        Ok(_) if job.attempt < MOST_STARTS || job.wa_key.is_some() => None,
        // Handed over only under a key: without one it never was.
        Ok(Command::SendText(_)) => failed(FailureCode::TooManyStarts, "started too often without an end"),
        Ok(
            Command::MarkRead(_)
            | Command::PairingCode(_)
            | Command::Restart
            | Command::Logout
            | Command::Screenshot
            | Command::EraseContact(_)
            | Command::ExportChat(_),
        ) => Some(Outcome::Unknown(Failure::new(FailureCode::HostLost, "started, and its host was lost, more than once"))),
    }
}

async fn send_text(shared: &Shared, job: &LaneJob, send: &SendText) -> Result<Done, GivenUp> {
    let wa_id = wa_id_of(send.message);
    // Before anything is asked of the page: a receipt must not slip in between.
    let mut acks = shared.acks.subscribe();
    if let Some(stored) = job.wa_key.clone() {
        return settle(shared, job, &stored, &wa_id, &mut acks).await;
    }
    let _ = fault_point!("host.before_resolve", "job" => job.id, "session" => job.session);
    let resolved = match ask(shared, &ResolveChat { chat: send.to.to_string() }, "resolve", job.id).await? {
        Ok(resolved) => resolved,
        Err(failure) => {
            return match start(shared, job, None).await? {
                Some(done) => Ok(done),
                None => finish(shared, job, Outcome::Failed(failure)).await,
            };
        }
    };
    if !recipient::is_same(shared, job, &resolved).await.ok_or(GivenUp)? {
        let failure = Failure::new(FailureCode::RecipientChanged, "the number belongs to another person than when this was accepted");
        return match start(shared, job, None).await? {
            Some(done) => Ok(done),
            None => finish(shared, job, Outcome::Failed(failure)).await,
        };
    }
    let key = WaKey::ours(&resolved.chat, send.message, resolved.participant.clone()).to_string();
    // Could not ask: nothing is started, the entry stays.
    let Some(known) = look_up(shared, job, &key, &wa_id, &recipient::other_keys(&resolved, send.message)).await? else {
        return Err(GivenUp);
    };
    let _ = fault_point!("host.before_start", "job" => job.id, "session" => job.session);
    if let Some(done) = start(shared, job, Some(&key)).await? {
        return Ok(done);
    }
    let _ = fault_point!("host.after_start", "job" => job.id, "session" => job.session);
    if known.is_some() {
        // Sent before under this id (a resend, or a job lost with its rows): what is there is all that may be.
        return prove(shared, job, &key, &wa_id, &mut acks).await;
    }
    let call = browser::SendText {
        chat: resolved.chat,
        text: send.text.clone(),
        key: key.clone(),
        quoted: None,
        mark_read: job.settings.mark_read_on_send,
    };
    match hand_over(shared, job.id, &call).await? {
        Handed::Taken => {
            let _ = fault_point!("page.lid_flip", "job" => job.id, "session" => job.session);
            acked(shared, job, &key, &wa_id, &mut acks).await
        }
        Handed::Unclear => prove(shared, job, &key, &wa_id, &mut acks).await,
        Handed::Refused(code, _) if code == "duplicate_id" => prove(shared, job, &key, &wa_id, &mut acks).await,
        Handed::Refused(code, document) => {
            let outcome = match look_up(shared, job, &key, &wa_id, &[]).await? {
                Some(Some(_)) => return acked(shared, job, &key, &wa_id, &mut acks).await,
                // Only the document that refused it can say that it has nothing of it: another one may have lost what was on its way.
                Some(None) if shared.browser().is_some_and(|b| b.document() == document) => {
                    Outcome::Failed(Failure::new(FailureCode::PageError, format!("the page refused it: {code}")))
                }
                Some(None) | None => {
                    let detail = "the page refused it, and what became of it could not be asked there";
                    Outcome::Unknown(Failure::new(FailureCode::OutcomeUnknown, detail))
                }
            };
            finish(shared, job, outcome).await
        }
        Handed::Never => finish(shared, job, Outcome::Failed(Failure::new(FailureCode::PageError, "the page took no calls in time"))).await,
    }
}

async fn mark_read(shared: &Shared, job: &LaneJob, read: &MarkRead) -> Result<Done, GivenUp> {
    if let Some(done) = start(shared, job, None).await? {
        return Ok(done);
    }
    let outcome = match ask(shared, &browser::MarkRead { chat: read.to.to_string() }, "read", job.id).await? {
        Ok(()) => Outcome::Succeeded { evidence: None, result: job.chat.map(|chat| JobResult::Read { chat }) },
        Err(failure) => Outcome::Failed(failure),
    };
    finish(shared, job, outcome).await
}

/// `None`: started. Otherwise what becomes of the lane entry. A start whose answer is lost is said again until it is answered: given up, it
/// would count as one that may have been handed over.
pub(super) async fn start(shared: &Shared, job: &LaneJob, key: Option<&str>) -> Result<Option<Done>, GivenUp> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let mut unclear = false;
    let started = loop {
        match store::within(store::lane_jobs::start(pool, held, job.id, job.attempt, key)).await {
            Ok(started) => break started,
            Err(error) => {
                unclear |= error.outcome_unclear();
                tracing::warn!(session = %shared.session(), job = %job.id, %error, unclear, "not started");
                if !unclear {
                    return Err(GivenUp);
                }
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    match started {
        Start::Started { .. } => {
            let _ = fault_point!("job.started", "job" => job.id, "session" => job.session);
            Ok(None)
        }
        Start::Ended => Ok(Some(Done::Ack)),
        // Whoever looks at the lane next does not find it, and announces that.
        Start::Gone => Ok(Some(Done::Again)),
        Start::Fenced => {
            shared.gone.cancel();
            Err(GivenUp)
        }
        Start::Expired => end(shared, job, QueuedEnd::Expired).await,
        Start::OtherAccount => end(shared, job, QueuedEnd::AccountChanged).await,
        Start::Overtaken => {
            let rebuilt = queue::lanes::rebuild(pool, &shared.services.redis, held.tenant(), held.session()).await;
            tracing::info!(session = %shared.session(), job = %job.id, ?rebuilt, "an earlier job was missing in the lane");
            Err(GivenUp)
        }
    }
}

/// A job that may not start any more.
async fn end(shared: &Shared, job: &LaneJob, end: QueuedEnd) -> Result<Option<Done>, GivenUp> {
    let events = store::within(store::ends::end_queued(&shared.services.pool, job, end)).await.map_err(|_| GivenUp)?;
    recorder::publish(shared, events).await;
    Ok(Some(Done::Ack))
}

/// What the page did with a call that acts.
enum Handed {
    /// It answered.
    Taken,
    /// It answered that it did not: why, and in which document.
    Refused(String, u64),
    /// No answer, and none can come.
    Unclear,
    /// No document ever got it.
    Never,
}

/// Makes the call once. While it was never handed over it may be handed to any document; a repeat in the same document joins the first.
async fn hand_over<C: PageCall>(shared: &Shared, job: JobId, call: &C) -> Result<Handed, GivenUp> {
    let timings = &shared.services.timings;
    let until = Instant::now() + timings.ack_within_total();
    let mut document = None;
    while Instant::now() < until {
        let Some(browser) = working_browser(shared, until).await else { break };
        if document.is_some_and(|d| d != browser.document()) {
            return Ok(Handed::Unclear);
        }
        let now = browser.document();
        match browser.call(call, &job.to_string(), timings.ack_within()).await {
            Ok(_) => return Ok(Handed::Taken),
            Err(CallError::Page { code, .. }) => return Ok(Handed::Refused(code, now)),
            Err(CallError::Deadline | CallError::LostSocket) => document = Some(now),
            Err(CallError::NotReady) => {
                // Not handed over; the page says when it is ready again.
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = shared.gone.cancelled() => return Err(GivenUp),
                }
            }
            Err(CallError::DocumentGone | CallError::Crashed | CallError::BrowserGone | CallError::Malformed(_)) => {
                return Ok(Handed::Unclear);
            }
        }
    }
    Ok(if document.is_some() { Handed::Unclear } else { Handed::Never })
}

/// The browser, once the session works; `None` at the deadline.
async fn working_browser(shared: &Shared, until: Instant) -> Option<browser::Browser> {
    let mut working = shared.working.subscribe();
    let ready = working.wait_for(|w| *w);
    tokio::time::timeout_at(until.into(), ready).await.ok()?.ok()?;
    shared.browser()
}

/// A job started by another owner or in another document: looked for, waited for, never handed over again.
async fn settle(shared: &Shared, job: &LaneJob, key: &str, wa_id: &str, acks: &mut broadcast::Receiver<Seen>) -> Result<Done, GivenUp> {
    if let Some(done) = start(shared, job, None).await? {
        return Ok(done);
    }
    prove(shared, job, key, wa_id, acks).await
}

/// Evidence from the page's rows or from a receipt within the deadline, or `unknown`.
async fn prove(shared: &Shared, job: &LaneJob, key: &str, wa_id: &str, acks: &mut broadcast::Receiver<Seen>) -> Result<Done, GivenUp> {
    if let Some((found, ack)) = look_up(shared, job, key, wa_id, &[]).await?.flatten().filter(|(_, ack)| *ack >= 1) {
        return succeed(shared, job, found, ack).await;
    }
    let within = shared.services.timings.evidence_within();
    match receipt(shared, wa_id, acks, within).await {
        Some(ack) => succeed(shared, job, key.to_owned(), ack).await,
        None => {
            finish(
                shared,
                job,
                Outcome::Unknown(Failure::new(FailureCode::HostLost, "started, then its host or page was lost; no proof either way")),
            )
            .await
        }
    }
}

/// The page took it: the server's ack is the evidence. Without it the page's outbox is dropped by a new document, and one look-up decides.
async fn acked(shared: &Shared, job: &LaneJob, key: &str, wa_id: &str, acks: &mut broadcast::Receiver<Seen>) -> Result<Done, GivenUp> {
    let timings = &shared.services.timings;
    if let Some(ack) = receipt(shared, wa_id, acks, timings.ack_within()).await {
        return succeed(shared, job, key.to_owned(), ack).await;
    }
    if let Some(browser) = shared.browser() {
        let _ = browser.reload().await;
    }
    if let Some((found, ack)) = look_up(shared, job, key, wa_id, &[]).await?.flatten().filter(|(_, ack)| *ack >= 1) {
        return succeed(shared, job, found, ack).await;
    }
    finish(shared, job, Outcome::Unknown(Failure::new(FailureCode::OutcomeUnknown, "the page took it and WhatsApp has not confirmed it")))
        .await
}

async fn succeed(shared: &Shared, job: &LaneJob, wa_key: String, ack: i16) -> Result<Done, GivenUp> {
    finish(shared, job, sent(job, Evidence { wa_key, ack })).await
}

fn sent(job: &LaneJob, evidence: Evidence) -> Outcome {
    let result = job.message.map(|message| JobResult::Sent { message, wa_id: wa_id_of(message) });
    Outcome::Succeeded { evidence: Some(evidence), result }
}

/// Waits for a receipt of the id: `within` of working time, and the total deadline whatever the state.
async fn receipt(shared: &Shared, wa_id: &str, acks: &mut broadcast::Receiver<Seen>, within: Duration) -> Option<i16> {
    let mut working = shared.working.subscribe();
    let total = tokio::time::sleep(shared.services.timings.ack_within_total());
    tokio::pin!(total);
    let mut left = within;
    loop {
        let works = *working.borrow_and_update();
        let since = Instant::now();
        tokio::select! {
            seen = acks.recv() => match seen {
                Ok((id, ack)) if id == wa_id && ack >= 1 => return Some(ack),
                // Lagged: the page's row still tells at the look-up.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            },
            () = tokio::time::sleep(left), if works => return None,
            changed = working.changed() => if changed.is_err() { return None },
            () = &mut total => return None,
        }
        if works {
            left = left.saturating_sub(since.elapsed());
        }
    }
}

/// The key and ack under which the page has the message, if it has it. Waits until the session works: only a page that is synced can know.
/// `None`: nobody could be asked in time, which says nothing.
///
/// First the key it was started with, then those of other jobs for the same message and its `forms`; then the page looks for the id part, so
/// that a chat which went from number to LID in between hides nothing.
async fn look_up(
    shared: &Shared,
    job: &LaneJob,
    key: &str,
    wa_id: &str,
    forms: &[String],
) -> Result<Option<Option<(String, i16)>>, GivenUp> {
    let until = Instant::now() + shared.services.timings.ack_within_total();
    let keys = std::iter::once(key).chain(job.other_keys.iter().map(String::as_str)).chain(forms.iter().map(String::as_str));
    let call = FindMessage { keys: keys.map(str::to_owned).collect(), id: wa_id.to_owned() };
    let job = job.id;
    while let Some(browser) = working_browser(shared, until).await {
        let call_id = format!("{job}-find-{}", contract::EventId::new());
        match browser.call(&call, &call_id, LOOK_UP_WITHIN).await {
            Ok(found) => return Ok(Some(found.map(|f| (f.id, i16::try_from(f.ack).unwrap_or(0))))),
            Err(error) => {
                tracing::info!(session = %shared.session(), %job, %error, "look-up repeated");
                if let CallError::Page { .. } = error {
                    // Whether the page can read its rows at all is found out there.
                    shared.ask_to_compare();
                    tokio::time::sleep(REFUSED_AGAIN_AFTER).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}

/// A call that may be repeated in any document.
async fn ask<C: PageCall>(shared: &Shared, call: &C, what: &str, job: JobId) -> Result<Result<C::Answer, Failure>, GivenUp> {
    let until = Instant::now() + shared.services.timings.ack_within_total();
    while let Some(browser) = working_browser(shared, until).await {
        match browser.call(call, &format!("{job}-{what}-{}", browser.document()), LOOK_UP_WITHIN).await {
            Ok(answer) => return Ok(Ok(answer)),
            Err(CallError::Page { code, .. }) => {
                let failure = match code.as_str() {
                    "chat_not_found" | "invalid_wid" | "wid_not_found" => {
                        Failure::new(FailureCode::ChatNotFound, "no such chat on WhatsApp")
                    }
                    _ => Failure::new(FailureCode::PageError, format!("the page refused it: {code}")),
                };
                return Ok(Err(failure));
            }
            Err(error) => tracing::info!(session = %shared.session(), %job, %error, "asked again"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(GivenUp)
}

/// What turns `unknown` into a success: a receipt that was recorded while the job was still running.
async fn proof_of(shared: &Shared, job: &LaneJob, outcome: &Outcome) -> Result<Option<Outcome>, store::StoreError> {
    let Outcome::Unknown(_) = outcome else { return Ok(None) };
    let proof = store::within(store::outcomes::proof(&shared.services.pool, shared.lease.held(), job.id)).await?;
    Ok(proof.map(|evidence| sent(job, evidence)))
}

/// Records the outcome until the database has answered, tells the stream, and lets the lane go on.
pub(super) async fn finish(shared: &Shared, job: &LaneJob, mut outcome: Outcome) -> Result<Done, GivenUp> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    loop {
        let recorded = {
            // A receipt is recorded before this or after it, never beside it: it finds either a job that it can turn, or is found here.
            let _turn = shared.writing.lock().await;
            match proof_of(shared, job, &outcome).await {
                Ok(proved) => {
                    outcome = proved.unwrap_or(outcome);
                    store::within(store::outcomes::record(pool, held, job, &outcome)).await
                }
                // Not taken for absence: a receipt may lie in the row.
                Err(error) => Err(error),
            }
        };
        match recorded {
            Ok(Recorded::Written(events)) => {
                let _ = fault_point!("outcome.before_publish", "job" => job.id, "session" => job.session);
                recorder::publish(shared, events).await;
                break;
            }
            // By us, and the answer was lost: its event is in the log and perhaps not in the stream.
            Ok(Recorded::Already) => {
                recorder::publish_missing(shared).await;
                break;
            }
            // Done, and nowhere written: whoever looks at the lane next announces that.
            Ok(Recorded::Gone) => return Ok(Done::Again),
            Ok(Recorded::Fenced) => {
                shared.gone.cancel();
                return Err(GivenUp);
            }
            Err(error) => tracing::warn!(session = %shared.session(), job = %job.id, %error, "outcome not recorded yet"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    metrics::counter!("zaguan_jobs_finished_total", "kind" => job.kind.clone(), "state" => outcome.state().as_str()).increment(1);
    let _ = fault_point!("outcome.before_ack", "job" => job.id, "session" => job.session);
    Ok(Done::Ack)
}

#[cfg(test)]
mod tests {
    use contract::{Lane, Principal, SessionId, TenantId};

    use super::*;

    fn started(command: Command, times: i32, wa_key: Option<&str>) -> LaneJob {
        LaneJob {
            id: JobId::new(),
            tenant: TenantId::new(),
            session: SessionId::new(),
            lane: Lane::Control,
            state: contract::JobState::Running,
            kind: command.kind().to_owned(),
            command: Ok(command),
            chat: None,
            message: None,
            message_at: None,
            reference: None,
            created_by: Principal::of(TenantId::new().uuid(), false),
            attempt: times,
            epoch: Some(1),
            wa_key: wa_key.map(str::to_owned),
            other_keys: Vec::new(),
            resend_of: None,
            settings: contract::SessionSettings::default(),
        }
    }

    #[test]
    fn what_may_have_been_done_twice_ends_unknown_and_what_never_reached_the_page_fails() {
        let to = || "5511999990000".parse().unwrap();
        let acts = [Command::MarkRead(MarkRead { to: to() }), Command::Restart, Command::Logout, Command::Screenshot];
        for command in acts {
            assert!(refusal(&started(command.clone(), MOST_STARTS - 1, None)).is_none());
            let end = refusal(&started(command, MOST_STARTS, None));
            assert!(matches!(end, Some(Outcome::Unknown(why)) if why.code == FailureCode::HostLost));
        }
        let send = || Command::SendText(SendText { message: contract::MessageId::new(), to: to(), text: "x".into() });
        let end = refusal(&started(send(), MOST_STARTS, None));
        assert!(matches!(end, Some(Outcome::Failed(why)) if why.code == FailureCode::TooManyStarts));
        assert!(refusal(&started(send(), MOST_STARTS, Some("true_x_y"))).is_none(), "it is looked for");
    }
}
