//! Jobs: what has been accepted, and what became of it.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{
    ChatId, EventType, Evidence, Failure, FailureCode, JobId, JobResult, JobState, MessageId, MessageStatus, Principal, Progress, Scope,
    SessionId,
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    jobs::{self, Cancel, Filter, Job},
    snapshot::Snapshot,
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Moment, One, Page};
use crate::{
    auth::{Caller, chat_filter, session_filter},
    extract::{Limit, Params, PathId, Prefer},
    limits,
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(cancel))
}

/// A job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
pub struct JobView {
    id: JobId,
    /// What it does: `sendText`, `markRead`, …
    kind: String,
    state: JobState,
    /// What an unfinished job waits for.
    waiting_for: Option<WaitingFor>,
    session: SessionId,
    chat: Option<ChatId>,
    /// The message it sends.
    message: Option<JobMessage>,
    /// The caller's own reference.
    reference: Option<String>,
    /// The user or key that asked for it.
    created_by: Principal,
    /// The job whose message it sends again.
    resend_of: Option<JobId>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// Until when it may start.
    expires_at: Timestamp,
    /// How often it was started.
    attempts: i32,
    /// How far a worker has come with it; null for what a session does.
    #[schema(value_type = Option<Progress>)]
    progress: Option<Value>,
    /// What the command answered, by `kind`.
    #[schema(value_type = Option<JobResult>)]
    result: Option<Value>,
    /// What proves success.
    #[schema(value_type = Option<Evidence>)]
    evidence: Option<Value>,
    /// Why it did not succeed.
    #[schema(value_type = Option<Failure>)]
    error: Option<Value>,
}

/// What an unfinished job waits for.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum WaitingFor {
    /// The session to work.
    Session,
    /// Its turn in the session's order.
    Turn,
    /// WhatsApp's answer.
    Outcome,
    /// A worker of this installation: to begin, or to be done.
    Worker,
}

/// A job's message, in short.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct JobMessage {
    id: MessageId,
    /// WhatsApp's id part.
    wa_id: String,
    status: MessageStatus,
    /// WhatsApp's ack, -1 to 4.
    ack: Option<i16>,
}

impl From<Job> for JobView {
    fn from(j: Job) -> Self {
        let waiting_for = match j.state {
            JobState::Queued | JobState::Running if j.background => Some(WaitingFor::Worker),
            JobState::Queued if !j.session_working => Some(WaitingFor::Session),
            JobState::Queued => Some(WaitingFor::Turn),
            JobState::Running => Some(WaitingFor::Outcome),
            JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown => None,
        };
        Self {
            id: j.id,
            kind: j.kind,
            state: j.state,
            waiting_for,
            session: j.session,
            chat: j.chat,
            message: j.message.map(|m| JobMessage { id: m.id, wa_id: m.wa_id, status: m.status, ack: m.ack }),
            reference: j.reference,
            created_by: j.created_by,
            resend_of: j.resend_of,
            created_at: j.created_at.into(),
            started_at: j.started_at.map(Timestamp),
            finished_at: j.finished_at.map(Timestamp),
            expires_at: j.expires_at.into(),
            attempts: j.attempts,
            progress: j.progress,
            result: j.result,
            evidence: j.evidence,
            error: j.error,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct List {
    /// 1 to 200, 50 where nothing is said.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<JobId>,
    /// Jobs of this session (id or name) only.
    session: Option<String>,
    /// Jobs in this state only.
    state: Option<JobState>,
    /// Jobs of this chat only: its id; or any address, which is looked for in the session given, or in the default one.
    chat: Option<String>,
    /// Jobs with this reference only.
    reference: Option<String>,
}

/// The jobs that the caller may see, newest first.
#[utoipa::path(get, path = "/jobs", operation_id = "listJobs", tag = "jobs", params(List), responses((status = 200, body = Page<JobView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, caller: Caller, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor, session, state, chat, reference } = params.0;
    let chat = match chat {
        Some(chat) => Some(chat_filter(&app, &caller, session.as_deref(), &chat).await?),
        None => None,
    };
    let session = session_filter(&app, &caller, session.as_deref()).await?;
    let mut snapshot = Snapshot::open(&app.pool, caller.tenant).await?;
    let filter = Filter { session, state, chat, reference, before: cursor };
    let rows = jobs::list(&mut snapshot, caller.viewer(), &filter, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |j| j.id.to_string(), JobView::from))
}

/// One job. A key without `messages:read` sees those that it made. With `Prefer: wait=N` the answer is held until the job ends; it is 200 either way.
#[utoipa::path(get, path = "/jobs/{id}", operation_id = "getJob", tag = "jobs",
    params(("id" = JobId, Path), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = One<JobView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:read or own")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, caller: Caller, id: PathId<JobId>, prefer: Prefer) -> Result<Response, Problem> {
    let _place = limits::wait(&app, &caller, prefer.get()).await?;
    if prefer.get().is_some() {
        finished(&app, &caller, id.0, prefer.get()).await?;
    }
    let moment = Moment::now(&app, caller.tenant, None).await?;
    let job = jobs::fetch(&app.pool, caller.viewer(), id.0).await?.ok_or_else(Problem::not_found)?;
    // Whoever made a job was told to look here for it, whatever else its key may read.
    if job.created_by != caller.principal && !caller.has(Scope::MessagesRead) {
        return Err(Problem::new(Code::ScopeMissing, "the key needs the scope messages:read for jobs that it did not make"));
    }
    Ok(moment.shows(JobView::from(super::control::with_code(&app, &caller, job).await)))
}

/// Withdraws a job that has not been started. An EMPLEADO withdraws its own.
#[utoipa::path(post, path = "/jobs/{id}/cancel", operation_id = "cancelJob", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobView)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:send")), ("x-chat" = json!("read"))))]
async fn cancel(State(app): State<AppState>, caller: Caller, id: PathId<JobId>) -> Result<Json<JobView>, Problem> {
    let job = jobs::fetch(&app.pool, caller.viewer(), id.0).await?.ok_or_else(Problem::not_found)?;
    if !caller.viewer().sees_all() && job.created_by != caller.principal {
        return Err(Problem::new(Code::RoleForbidden, "only an ADMIN may withdraw a colleague's job"));
    }
    match jobs::cancel(&app.pool, &job).await? {
        Cancel::Cancelled(events) => crate::announce::events(&app, caller.tenant, events).await,
        Cancel::Running => return Err(Problem::new(Code::JobRunning, "it has been started: it can no longer be withdrawn")),
        Cancel::Finished => return Err(Problem::new(Code::JobFinished, "it has ended")),
        Cancel::NotFound => return Err(Problem::not_found()),
    }
    let job = jobs::fetch(&app.pool, caller.viewer(), id.0).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(job.into()))
}

/// The job, once it has ended or the time is up. `None`: the caller does not see it (any more).
///
/// # Errors
/// `unavailable`; and where the caller was let out while it waited, what [`Caller::recheck`] says.
pub async fn finished(app: &AppState, caller: &Caller, id: JobId, wait: Option<Duration>) -> Result<Option<Job>, Problem> {
    let Some(wait) = wait else { return Ok(jobs::fetch(&app.pool, caller.viewer(), id).await?) };
    let deadline = Instant::now() + wait;
    // Subscribe first, then read: what ends in between is in the stream.
    let mut log = app.readers.follow(caller.tenant).await?;
    let mut caller = *caller;
    loop {
        let job = jobs::fetch(&app.pool, caller.viewer(), id).await?;
        if job.as_ref().is_none_or(|j| j.state.is_final()) {
            return Ok(job);
        }
        let ended = async {
            loop {
                let event = log.next().await;
                if event.kind == EventType::JobUpdated && event.data["job"]["id"] == json!(id) {
                    break;
                }
            }
        };
        tokio::select! {
            () = ended => caller = caller.recheck(app).await?,
            () = tokio::time::sleep_until(deadline) => {
                // What was read when the wait began may have been taken from the caller since.
                let caller = caller.recheck(app).await?;
                return Ok(jobs::fetch(&app.pool, caller.viewer(), id).await?);
            }
            () = app.stopping.cancelled() => return Ok(job),
        }
        caller = caller.recheck(app).await?;
    }
}

/// The answer to a request that made a job: 202, or what became of it where the caller waited for that.
pub fn accepted(job: Job, waited: bool, replayed: bool) -> Response {
    let location = format!("/api/jobs/{}", job.id);
    let mut response = match (waited, job.state) {
        (true, JobState::Succeeded) => (StatusCode::OK, Json(JobView::from(job))).into_response(),
        (true, JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown) => not_succeeded(job).into_response(),
        (_, JobState::Queued | JobState::Running) | (false, _) => (StatusCode::ACCEPTED, Json(JobView::from(job))).into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(location) = location.parse() {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert("idempotency-replayed", http::HeaderValue::from_static("true"));
    }
    response
}

fn not_succeeded(job: Job) -> Problem {
    let error: Option<Failure> = job.error.clone().and_then(|e| serde_json::from_value(e).ok());
    let code = error.as_ref().map_or(
        match job.state {
            JobState::Expired => FailureCode::JobExpired,
            JobState::Cancelled => FailureCode::JobCancelled,
            JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Failed | JobState::Unknown => {
                FailureCode::OutcomeUnknown
            }
        },
        |e| e.code,
    );
    let detail = error.map_or_else(|| "see the job".to_owned(), |e| e.detail);
    Problem::new(Code::Job(code), detail).with("job", json!(JobView::from(job)))
}
