//! Sending a message again: a new job for the same message, under the same WhatsApp id.

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use contract::{Command, JobId, JobState, SendText};
use serde::Deserialize;
use store::{accept::NewMessage, jobs, lane_jobs};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    jobs::JobView,
    send::{Asked, Message, WhenUnavailable, accept, answer, check_expiry, replayed, stored_key},
};
use crate::{
    auth::{Caller, OwnedSession, WritableChat, named_session},
    extract::{IdempotencyKey, OptionalBody, PathId, Prefer},
    problem::{Code, Problem},
    state::AppState,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(resend))
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Resend {
    /// Seconds that it may wait for its start: 30 to 2592000 (30 days); 24 hours where nothing is said.
    expires_in: Option<u64>,
    /// `queue`: accept it although the session needs a person.
    when_unavailable: Option<WhenUnavailable>,
}

/// Sends the message of a job that did not succeed again, under the same WhatsApp id: what is there already is proved and not sent twice. A
/// proof turns an `unknown` job and its resend `succeeded`.
#[utoipa::path(post, path = "/jobs/{id}/resend", operation_id = "resendJob", tag = "jobs", request_body = Option<Resend>,
    params(("id" = JobId, Path), ("Idempotency-Key" = Option<String>, Header),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."),
        (status = 202, body = JobView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:send")), ("x-chat" = json!("write"))))]
async fn resend(
    State(app): State<AppState>,
    caller: Caller,
    id: PathId<JobId>,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: OptionalBody<Resend>,
) -> Result<Response, Problem> {
    let OptionalBody(Resend { expires_in, when_unavailable }, body_hash) = body;
    check_expiry(expires_in)?;
    let job = jobs::fetch(&app.pool, caller.viewer(), id.0).await?.ok_or_else(Problem::not_found)?;
    let refused = |why: &'static str| Problem::new(Code::JobNotResendable, why);
    let Some(chat) = job.chat else { return Err(refused("it sends no message")) };
    let session = named_session(&app, &caller, Some(&job.session.to_string())).await?;
    let chat = WritableChat::named(&app, OwnedSession { caller, session }, &chat.to_string(), "id").await?;
    let command = lane_jobs::load(&app.pool, job.tenant, job.session, job.id).await?.and_then(|job| job.command.ok());
    let send = match command {
        Some(Command::SendText(send)) => send,
        Some(
            Command::MarkRead(_)
            | Command::PairingCode(_)
            | Command::Restart
            | Command::Logout
            | Command::Screenshot
            | Command::EraseContact(_)
            | Command::ExportChat(_),
        )
        | None => {
            return Err(refused("it sends no message"));
        }
    };
    let key = stored_key(key, &chat, uri.path(), body_hash);
    match job.state {
        JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown => {}
        JobState::Queued | JobState::Running => return Err(refused("it has not ended")),
        // A repeated request gets the job that it made, which may have turned this one.
        JobState::Succeeded => match replayed(&app, chat.caller.tenant, key.as_ref()).await? {
            Some(made) => return answer(&app, &chat, made, prefer.get(), true).await,
            None => return Err(refused("it succeeded")),
        },
    }
    let queue_when_down = when_unavailable == Some(WhenUnavailable::Queue);
    let asked = Asked { key, wait: prefer.get(), queue_when_down, reference: job.reference, expires_in };
    let message = NewMessage { id: send.message, kind: "text", body: send.text.clone(), account: chat.session.account().to_owned() };
    let command = Command::SendText(SendText { to: chat.to.clone(), ..send });
    accept(&app, &chat, command, Message::Again(message, job.id), asked).await
}
