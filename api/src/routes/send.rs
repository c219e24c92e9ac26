//! Sending: a request becomes a typed command and a job.

use std::time::Duration;

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use contract::{Command, JobId, MarkRead, MessageId, SendText, TenantId};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    accept::{Accepted, IdempotencyKey as StoredKey, NewJob, NewMessage},
    sessions::Session,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::jobs::{JobView, accepted, finished};
use crate::{
    auth::{OwnedSession, WritableChat},
    extract::{Body, IdempotencyKey, OptionalBody, Prefer},
    limits::{self, Quota},
    once::key_reused,
    problem::{Code, Problem},
    state::AppState,
};

/// The longest text WhatsApp takes, in characters.
const LONGEST_TEXT: usize = 65_536;
const LONGEST_REFERENCE: usize = 128;
/// After an unclear COMMIT: how long the job is looked for, and how often.
const UNCLEAR_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Under a session.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(send_to_chat)).routes(routes!(send)).routes(routes!(mark_read))
}

/// What a caller sends.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewText {
    #[serde(rename = "type")]
    kind: Kind,
    /// 1 to 65536 characters.
    text: String,
    /// The caller's own reference, at most 128 characters; returned on job, message and events.
    reference: Option<String>,
    /// Seconds that it may wait for its start: 30 to 2592000 (30 days); 24 hours where nothing is said.
    expires_in: Option<u64>,
    /// `queue`: accept it although the session needs a person.
    when_unavailable: Option<WhenUnavailable>,
}

/// The same, with its recipient.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewTextTo {
    /// A chat's id, a phone number, or any address.
    to: String,
    #[serde(rename = "type")]
    kind: Kind,
    /// 1 to 65536 characters.
    text: String,
    /// The caller's own reference, at most 128 characters; returned on job, message and events.
    reference: Option<String>,
    /// Seconds that it may wait for its start: 30 to 2592000 (30 days); 24 hours where nothing is said.
    expires_in: Option<u64>,
    /// `queue`: accept it although the session needs a person.
    when_unavailable: Option<WhenUnavailable>,
}

/// What kind of message.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum Kind {
    /// A text.
    Text,
}

/// What to do where the session needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum WhenUnavailable {
    /// Accept and wait.
    Queue,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NewRead {
    /// `queue`: accept it although the session needs a person.
    when_unavailable: Option<WhenUnavailable>,
}

/// How a request wants its job accepted.
pub(super) struct Asked {
    pub key: Option<StoredKey>,
    pub wait: Option<Duration>,
    pub queue_when_down: bool,
    pub reference: Option<String>,
    pub expires_in: Option<u64>,
}

/// What is to be done about a message.
pub(super) enum Message {
    /// The command sends none.
    None,
    /// A new one.
    New(NewMessage),
    /// The one of an earlier job.
    Again(NewMessage, JobId),
}

/// Sends a message to a chat.
#[utoipa::path(post, path = "/chats/{chat}/messages", operation_id = "sendToChat", tag = "messages", request_body = NewText,
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."),
        ("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."),
        (status = 202, body = JobView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:send")), ("x-chat" = json!("start"))))]
async fn send_to_chat(
    State(app): State<AppState>,
    chat: WritableChat,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: Body<NewText>,
) -> Result<Response, Problem> {
    let key = stored_key(key, &chat, uri.path(), body.sha256);
    send_text(&app, chat, body.value, key, prefer).await
}

/// Sends a message to whoever the body names.
#[utoipa::path(post, path = "/messages", operation_id = "send", tag = "messages", request_body = NewTextTo,
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."),
        (status = 202, body = JobView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:send")), ("x-chat" = json!("start"))))]
async fn send(
    State(app): State<AppState>,
    owned: OwnedSession,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: Body<NewTextTo>,
) -> Result<Response, Problem> {
    let NewTextTo { to, kind, text, reference, expires_in, when_unavailable } = body.value;
    let message = NewText { kind, text, reference, expires_in, when_unavailable };
    check_text(&message)?;
    let chat = WritableChat::named(&app, owned, &to, "to").await?;
    let key = stored_key(key, &chat, uri.path(), body.sha256);
    send_text(&app, chat, message, key, prefer).await
}

/// Marks a chat as read.
#[utoipa::path(post, path = "/chats/{chat}/read", operation_id = "markRead", tag = "chats", request_body = Option<NewRead>,
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."),
        ("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and succeeded."),
        (status = 202, body = JobView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("chats:write")), ("x-chat" = json!("write"))))]
async fn mark_read(
    State(app): State<AppState>,
    chat: WritableChat,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: OptionalBody<NewRead>,
) -> Result<Response, Problem> {
    let queue_when_down = body.0.when_unavailable == Some(WhenUnavailable::Queue);
    let key = stored_key(key, &chat, uri.path(), body.1);
    let asked = Asked { key, wait: prefer.get(), queue_when_down, reference: None, expires_in: None };
    let command = Command::MarkRead(MarkRead { to: chat.to.clone() });
    accept(&app, &chat, command, Message::None, asked).await
}

pub(super) fn stored_key(key: IdempotencyKey, chat: &WritableChat, path: &str, body_hash: [u8; 32]) -> Option<StoredKey> {
    let principal = chat.caller.principal.uuid();
    key.0.map(|key| StoredKey { principal, method: Method::POST.to_string(), path: path.to_owned(), key, body_hash })
}

fn check_text(new: &NewText) -> Result<(), Problem> {
    let refuse = |field: &str, why: &'static str| Err(Problem::new(Code::InvalidBody, why).field(field));
    if !(1..=LONGEST_TEXT).contains(&new.text.chars().count()) {
        return refuse("text", "expected 1 to 65536 characters");
    }
    if new.text.contains('\0') {
        return refuse("text", "the character U+0000 cannot be sent");
    }
    if new.reference.as_ref().is_some_and(|r| r.chars().count() > LONGEST_REFERENCE || r.contains('\0')) {
        return refuse("reference", "expected at most 128 characters, without U+0000");
    }
    check_expiry(new.expires_in)
}

pub(super) fn check_expiry(expires_in: Option<u64>) -> Result<(), Problem> {
    if expires_in.is_some_and(|s| !(30..=30 * 24 * 3600).contains(&s)) {
        return Err(Problem::new(Code::InvalidBody, "expected 30 to 2592000 seconds").field("expiresIn"));
    }
    Ok(())
}

async fn send_text(app: &AppState, chat: WritableChat, new: NewText, key: Option<StoredKey>, prefer: Prefer) -> Result<Response, Problem> {
    check_text(&new)?;
    let kind = match new.kind {
        Kind::Text => "text",
    };
    let id = MessageId::new();
    let asked = Asked {
        key,
        wait: prefer.get(),
        queue_when_down: new.when_unavailable == Some(WhenUnavailable::Queue),
        reference: new.reference,
        expires_in: new.expires_in,
    };
    let message = NewMessage { id, kind, body: new.text.clone(), account: chat.session.account().to_owned() };
    let command = Command::SendText(SendText { message: id, to: chat.to.clone(), text: new.text });
    accept(app, &chat, command, Message::New(message), asked).await
}

/// From a checked request to its answer.
pub(super) async fn accept(
    app: &AppState,
    chat: &WritableChat,
    command: Command,
    message: Message,
    asked: Asked,
) -> Result<Response, Problem> {
    let _place = limits::wait(app, &chat.caller, asked.wait).await?;
    // A repeated request gets its job whatever has become of the session since, and counts as no other send.
    if let Some(job) = replayed(app, chat.caller.tenant, asked.key.as_ref()).await? {
        // It may have been accepted by a request that ended before it could grant the chat.
        chat.open(app, job).await?;
        return answer(app, chat, job, asked.wait, true).await;
    }
    let quota = may_accept(app, chat, !matches!(message, Message::None), &asked).await?;
    let (message, resend_of) = match message {
        Message::None => (None, None),
        Message::New(message) => (Some(message), None),
        Message::Again(message, job) => (Some(message), Some(job)),
    };
    let job = NewJob {
        id: JobId::new(),
        tenant: chat.caller.tenant,
        session: chat.session.id,
        command,
        chat: Some(chat.id),
        message,
        resend_of,
        reference: asked.reference,
        created_by: chat.caller.principal.uuid(),
        expires_in: asked.expires_in.map_or_else(|| app.timings.job_expires_in(), Duration::from_secs),
        queue_when_down: asked.queue_when_down,
    };
    let id = job.id;
    match commit(app, job, asked.key, Some(chat.clone())).await? {
        Accepted::New { .. } => answer(app, chat, id, asked.wait, false).await.map(|answer| quota.on(answer)),
        Accepted::Replayed { job } => answer(app, chat, job, asked.wait, true).await,
        Accepted::KeyReused => Err(key_reused()),
        Accepted::NewChatCap { again_in } => {
            let detail = "the session has written to as many new chats today as it may; chats that have written to it are not counted";
            Err(Problem::new(Code::NewChatCap, detail).retry_after(again_in.as_secs().max(1)))
        }
        Accepted::LaneFull => Err(Problem::new(Code::LaneFull, "too many jobs of this session are unfinished").retry_after(30)),
    }
}

async fn may_accept(app: &AppState, chat: &WritableChat, sends: bool, asked: &Asked) -> Result<Quota, Problem> {
    let Session { id, state, reason, .. } = chat.session;
    if state.needs_person(chat.session.account.is_some()) && !asked.queue_when_down {
        return Err(Problem::new(Code::SessionNotWorking, "the session needs a person; send whenUnavailable: queue to wait for one")
            .with("session", json!(id))
            .with("state", json!(state))
            .with("reason", json!(reason))
            .with("userAction", json!(state.user_action(reason))));
    }
    if sends { limits::send(app, &chat.caller).await } else { Ok(Quota::default()) }
}

/// The job that a request of this key made before. A look that fails decides nothing: the statement that accepts looks again.
pub(super) async fn replayed(app: &AppState, tenant: TenantId, key: Option<&StoredKey>) -> Result<Option<JobId>, Problem> {
    let Some(key) = key else { return Ok(None) };
    match store::accept::replayed(&app.pool, tenant, key).await {
        Ok(Some(Accepted::Replayed { job })) => {
            queue::accept::push_again(&app.pool, &app.redis, tenant, job).await;
            Ok(Some(job))
        }
        Ok(Some(Accepted::KeyReused)) => Err(key_reused()),
        Ok(Some(Accepted::New { .. } | Accepted::NewChatCap { .. } | Accepted::LaneFull) | None) => Ok(None),
        Err(why) => {
            tracing::debug!(cause = %why, "a repeated request was not looked for");
            Ok(None)
        }
    }
}

pub(super) async fn answer(
    app: &AppState,
    chat: &WritableChat,
    id: JobId,
    wait: Option<Duration>,
    replayed: bool,
) -> Result<Response, Problem> {
    let job = finished(app, &chat.caller, id, wait).await?.ok_or_else(Problem::not_found)?;
    Ok(accepted(job, wait.is_some(), replayed))
}

/// Accepts and pushes in a task of its own: a caller that hangs up neither undoes nor half-does it. `opens`: the chat that is granted to its
/// caller by this; only what is accepted grants it, now or in an earlier request.
pub(super) async fn commit(app: &AppState, job: NewJob, key: Option<StoredKey>, opens: Option<WritableChat>) -> Result<Accepted, Problem> {
    let task = app.clone();
    let work = app.tasks.spawn(async move {
        let accepted = settle(&task, &job, key.as_ref()).await?;
        let of = match accepted {
            Accepted::New { .. } => Some(job.id),
            Accepted::Replayed { job: first } => Some(first),
            Accepted::KeyReused | Accepted::NewChatCap { .. } | Accepted::LaneFull => None,
        };
        if let (Some(of), Some(chat)) = (of, opens) {
            chat.open(&task, of).await?;
        }
        Ok(accepted)
    });
    work.await.map_err(|why| Problem::internal().because(why))?
}

/// Accepts and pushes; after an unclear COMMIT, looks what has become of it.
async fn settle(app: &AppState, job: &NewJob, key: Option<&StoredKey>) -> Result<Accepted, Problem> {
    let why = match queue::accept_and_push(&app.pool, &app.redis, job, key).await {
        Ok(accepted) => return Ok(accepted),
        Err(why) => why,
    };
    if !why.outcome_unclear() {
        return Err(Problem::from(why));
    }
    let looked = async {
        loop {
            // A failed look says nothing either.
            if let Ok(Some(accepted)) = queue::accepted_after_all(&app.pool, &app.redis, job, key).await {
                return accepted;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if let Ok(accepted) = tokio::time::timeout(UNCLEAR_FOR, looked).await {
        return Ok(accepted);
    }
    let detail = "ask for the job, or repeat the request with the same Idempotency-Key";
    Err(Problem::new(Code::AcceptanceUnknown, detail).with("jobId", json!(job.id)).retry_after(5).because(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> NewText {
        NewText { kind: Kind::Text, text: text.into(), reference: None, expires_in: None, when_unavailable: None }
    }
    fn refused(new: &NewText) -> bool {
        check_text(new).is_err_and(|p| p.code == Code::InvalidBody)
    }

    #[test]
    fn a_text_has_one_to_65536_characters_whatever_their_bytes() {
        assert!(refused(&text("")) && refused(&text("a\0b")) && refused(&text(&"a".repeat(65_537))));
        assert!(!refused(&text(&"\u{1F600}".repeat(65_536))) && !refused(&text("\n")) && !refused(&text("__proto__ \u{1b}[31m \u{202E}")));
    }

    #[test]
    fn reference_and_expiry_have_their_limits() {
        assert!(refused(&NewText { reference: Some("r".repeat(129)), ..text("a") }));
        for (seconds, bad) in [(29, true), (30, false), (2_592_000, false), (2_592_001, true)] {
            assert_eq!(refused(&NewText { expires_in: Some(seconds), ..text("a") }), bad);
        }
    }
}
