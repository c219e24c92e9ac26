//! What an ADMIN does to a session's browser: a pairing code, another browser, the logout, a picture. Jobs of the control lane.

use std::time::Duration;

use axum::{
    extract::{OriginalUri, State},
    response::{IntoResponse, Response},
};
use contract::{Command, FailureCode, JobId, JobState, MediaId, PairingCode, Principal, SessionState, TenantId};
use http::{HeaderName, Method, header};
use queue::brief::{self, Screenshot};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    accept::{Accepted, IdempotencyKey as StoredKey, NewJob},
    deletion::UNLINK_WITHIN,
    jobs::Job,
    sessions::Session,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    jobs::{JobView, accepted, finished},
    send::{commit, replayed},
    sessions::phone,
};
use crate::{
    auth::{Admin, AdminSession, Caller},
    extract::{Body, IdempotencyKey, PathId, Prefer},
    limits::{self, Place},
    once::key_reused,
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// What the browser is asked now is of no use later.
const SOON: Duration = Duration::from_secs(120);
/// How long a caller waits who did not say, where the answer is what it came for.
const WAIT: Duration = Duration::from_secs(10);
/// In how long a number may have so many pairing codes as the tenant's limits say.
const CODES_PER: Duration = Duration::from_secs(3600);
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Under a session, and under `/api/whatsapp` for the default one.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(pairing_code)).routes(routes!(restart)).routes(routes!(logout)).routes(routes!(screenshot))
}
/// Under `/api`.
pub fn media() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_media))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewPairingCode {
    /// The number to link: 7 to 15 digits with country code, a leading + is allowed.
    phone: String,
}

/// Asks for a code that the phone's owner types in under "Link with phone number". The answer is the job; its `result` is `{code,
/// expiresAt}` as long as the code counts. A number may have as many an hour as `pairingCodesPerHour` of the limits says.
#[utoipa::path(post, path = "/pairing-code", operation_id = "pairingCode", tag = "sessions", request_body = NewPairingCode,
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds; 10 where nothing is said.")),
    responses((status = 200, body = JobView, description = "The code is there."), (status = 202, body = JobView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:link")), ("x-chat" = json!("none"))))]
async fn pairing_code(
    State(app): State<AppState>,
    owned: AdminSession,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: Body<NewPairingCode>,
) -> Result<Response, Problem> {
    let phone = phone(&body.value.phone, "phone")?;
    let AdminSession { admin, session } = owned;
    let key = stored_key(key, &admin, uri.path(), body.sha256);
    let asked = Asked::of(&app, &admin.0, key, prefer.or(WAIT)).await?;
    if let Some(answer) = asked.before(&app, &admin.0).await? {
        return Ok(answer);
    }
    may_pair(&session)?;
    within_limit(&app, session.tenant, &phone).await?;
    asked.accept(&app, &admin.0, &session, Command::PairingCode(PairingCode { phone })).await
}

/// Closes the browser and starts another one on the same profile. The link stays.
#[utoipa::path(post, path = "/restart", operation_id = "restart", tag = "sessions",
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."), (status = 202, body = JobView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn restart(
    State(app): State<AppState>,
    owned: AdminSession,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let AdminSession { admin, session } = owned;
    let key = stored_key(key, &admin, uri.path(), [0; 32]);
    let asked = Asked::of(&app, &admin.0, key, prefer.get()).await?;
    if let Some(answer) = asked.before(&app, &admin.0).await? {
        return Ok(answer);
    }
    must_run(&session)?;
    asked.accept(&app, &admin.0, &session, Command::Restart).await
}

/// Unlinks the account. A session that is down is started for it, because only its browser holds the keys that do it.
#[utoipa::path(post, path = "/logout", operation_id = "logoutSession", tag = "sessions",
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."), (status = 202, body = JobView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn logout(
    State(app): State<AppState>,
    owned: AdminSession,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let AdminSession { admin, session } = owned;
    let key = stored_key(key, &admin, uri.path(), [0; 32]);
    let asked = Asked::of(&app, &admin.0, key, prefer.get()).await?;
    if let Some(answer) = asked.before(&app, &admin.0).await? {
        return Ok(answer);
    }
    if !is_linked(&session) {
        return Err(Problem::new(Code::Job(FailureCode::NothingLinked), "no account is linked: there is nothing to log out"));
    }
    asked.accept(&app, &admin.0, &session, Command::Logout).await
}

/// A picture of the page. The job's `result.media` names it; `GET /api/media/{id}` answers it for a minute.
#[utoipa::path(post, path = "/screenshot", operation_id = "screenshot", tag = "sessions",
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds; 10 where nothing is said.")),
    responses((status = 200, body = JobView, description = "The picture is there."), (status = 202, body = JobView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn screenshot(
    State(app): State<AppState>,
    owned: AdminSession,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let AdminSession { admin, session } = owned;
    let key = stored_key(key, &admin, uri.path(), [0; 32]);
    let asked = Asked::of(&app, &admin.0, key, prefer.or(WAIT)).await?;
    if let Some(answer) = asked.before(&app, &admin.0).await? {
        return Ok(answer);
    }
    must_run(&session)?;
    asked.accept(&app, &admin.0, &session, Command::Screenshot).await
}

/// A picture of a page, for a minute after it was made.
#[utoipa::path(get, path = "/media/{id}", operation_id = "getMedia", tag = "media", params(("id" = inline(MediaId), Path)),
    responses((status = 200, content((inline(crate::openapi::Picture) = "image/png")))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn get_media(State(app): State<AppState>, caller: Caller, id: PathId<MediaId>) -> Result<Response, Problem> {
    let admin = caller.session_admin()?;
    let shot = brief::screenshot(&app.redis, admin.0.tenant, id.0).await.map_err(redis_is_down)?;
    let Screenshot { session, png } = shot.ok_or_else(Problem::not_found)?;
    if !store::keys::reaches(&app.pool, admin.0.viewer(), session).await? {
        return Err(Problem::not_found());
    }
    let sniff = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    Ok(([NO_STORE, sniff, (header::CONTENT_TYPE, "image/png")], png).into_response())
}

fn redis_is_down(why: queue::QueueError) -> Problem {
    Problem::new(Code::Unavailable, "Redis does not answer").retry_after(1).because(why)
}

pub(super) fn stored_key(key: IdempotencyKey, admin: &Admin, path: &str, body_hash: [u8; 32]) -> Option<StoredKey> {
    let principal = admin.0.principal.uuid();
    key.0.map(|key| StoredKey { principal, method: Method::POST.to_string(), path: path.to_owned(), key, body_hash })
}

/// Whether the session may show a code.
///
/// # Errors
/// `session_stopped`, `already_linked`.
pub fn may_pair(session: &Session) -> Result<(), Problem> {
    must_run(session)?;
    match session.state {
        SessionState::Syncing | SessionState::Working | SessionState::Reconnecting => {
            Err(Problem::new(Code::AlreadyLinked, "the account is linked: log it out first"))
        }
        _ => Ok(()),
    }
}

fn must_run(session: &Session) -> Result<(), Problem> {
    if session.state.is_alive() {
        return Ok(());
    }
    let (state, reason) = (session.state, session.reason);
    Err(Problem::new(Code::SessionStopped, "start the session first")
        .with("state", json!(state))
        .with("reason", json!(reason))
        .with("userAction", json!(state.user_action(reason))))
}

/// Whether a device of ours may still be linked: known, and not unlinked since.
fn is_linked(session: &Session) -> bool {
    session.account.is_some() && !matches!(session.state, SessionState::LoggedOut | SessionState::Linking)
}

/// # Errors
/// `rate_limited` once a number has had its codes of an hour.
pub async fn within_limit(app: &AppState, tenant: TenantId, phone: &str) -> Result<(), Problem> {
    let most = limits::of(app, tenant).await?.pairing_codes_per_hour;
    // The number itself stays out of Redis.
    let digest = ring::digest::digest(&ring::digest::SHA256, phone.as_bytes());
    let what: String = digest.as_ref().iter().take(12).map(|b| format!("{b:02x}")).collect();
    match brief::over_limit(&app.redis, tenant, &format!("pair:{what}"), most, CODES_PER).await {
        None => Ok(()),
        Some(left) => Err(Problem::new(Code::RateLimited, "the number has had its codes of this hour; see GET /api/limits")
            .retry_after(left.as_secs().max(1))),
    }
}

/// How a job of an ADMIN was asked for.
pub(super) struct Asked {
    key: Option<StoredKey>,
    wait: Option<Duration>,
    /// Held until the answer.
    _place: Option<Place>,
}

impl Asked {
    /// Takes the place of a request that waits before anything is accepted: what was accepted is never answered with a refusal.
    pub(super) async fn of(app: &AppState, caller: &Caller, key: Option<StoredKey>, wait: Option<Duration>) -> Result<Self, Problem> {
        Ok(Self { key, wait, _place: limits::wait(app, caller, wait).await? })
    }

    /// The answer to a repeated request, whatever has become of the session since.
    pub(super) async fn before(&self, app: &AppState, caller: &Caller) -> Result<Option<Response>, Problem> {
        match replayed(app, caller.tenant, self.key.as_ref()).await? {
            Some(job) => answer(app, caller, job, self.wait, true).await.map(Some),
            None => Ok(None),
        }
    }

    async fn accept(self, app: &AppState, caller: &Caller, session: &Session, command: Command) -> Result<Response, Problem> {
        let job = new_job(session, caller.principal, command);
        let id = job.id;
        let accepted = commit(app, job, self.key.clone(), None).await?;
        // For a session that no host holds.
        queue::hosts::wanted(&app.redis, session.id).await;
        self.answer(app, caller, id, accepted).await
    }

    /// The same for a job that a worker does.
    pub(super) async fn accept_job(self, app: &AppState, caller: &Caller, job: NewJob) -> Result<Response, Problem> {
        let id = job.id;
        let accepted = commit(app, job, self.key.clone(), None).await?;
        self.answer(app, caller, id, accepted).await
    }

    async fn answer(self, app: &AppState, caller: &Caller, id: JobId, accepted: Accepted) -> Result<Response, Problem> {
        match accepted {
            Accepted::New { .. } => answer(app, caller, id, self.wait, false).await,
            Accepted::Replayed { job } => answer(app, caller, job, self.wait, true).await,
            Accepted::KeyReused => Err(key_reused()),
            // Such a job writes to no chat, and waits in no lane that may be full.
            Accepted::NewChatCap { .. } | Accepted::LaneFull => Err(Problem::internal()),
        }
    }
}

/// A control job of a session.
pub fn new_job(session: &Session, created_by: Principal, command: Command) -> NewJob {
    let expires_in = if command == Command::Logout { UNLINK_WITHIN } else { SOON };
    NewJob {
        id: JobId::new(),
        tenant: session.tenant,
        session: session.id,
        command,
        chat: None,
        message: None,
        resend_of: None,
        reference: None,
        created_by: created_by.uuid(),
        expires_in,
        queue_when_down: false,
    }
}

async fn answer(app: &AppState, caller: &Caller, id: JobId, wait: Option<Duration>, replayed: bool) -> Result<Response, Problem> {
    let job = finished(app, caller, id, wait).await?.ok_or_else(Problem::not_found)?;
    let job = with_code(app, caller, job).await;
    let mut response = accepted(job, wait.is_some(), replayed);
    response.headers_mut().insert(NO_STORE.0, http::HeaderValue::from_static(NO_STORE.1));
    Ok(response)
}

/// A code to type on the phone.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairingCodeView {
    /// Eight characters.
    code: String,
    /// Until when a phone takes it.
    expires_at: Timestamp,
}

/// A pairing code is kept nowhere but in Redis, and only while it counts: it is put into what is seen of the job by who may link phones.
pub async fn with_code(app: &AppState, caller: &Caller, mut job: Job) -> Job {
    if job.kind == "pairingCode" && job.state == JobState::Succeeded && caller.may_link() {
        job.result = code_of(app, job.tenant, job.id).await.map(|code| json!(code));
    }
    job
}

/// `{code, expiresAt}` of a pairing job, while the code counts.
pub async fn code_of(app: &AppState, tenant: TenantId, job: JobId) -> Option<PairingCodeView> {
    let (code, left) = brief::code(&app.redis, tenant, job).await.ok().flatten()?;
    let now = store::snapshot::now(&app.pool).await.ok()?;
    Some(PairingCodeView { code, expires_at: (now + left).into() })
}

/// A device that is linked is unlinked by its browser before the session's data goes.
pub async fn unlink_before_deletion(app: &AppState, admin: &Admin, session: &Session) -> Result<(), Problem> {
    if is_linked(session) {
        commit(app, new_job(session, admin.0.principal, Command::Logout), None, None).await?;
    }
    Ok(())
}
