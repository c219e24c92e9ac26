//! What a person may ask of whoever keeps their data: that it is erased.

use std::time::Duration;

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use contract::{AuditAction, ChatKind, Command, EraseContact, Jid, JobId};
use serde::Deserialize;
use serde_json::json;
use store::{
    accept::NewJob,
    audit::{self, Act},
    chats::{self, Named},
    sessions::{self, Session},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    control::{Asked, stored_key},
    jobs::JobView,
};
use crate::{
    auth::{Admin, named_chat, named_session},
    extract::{Body, IdempotencyKey, Prefer},
    problem::{Code, Problem},
    state::AppState,
};

/// An erasure is wanted however long no worker runs.
const WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(erase))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewErasure {
    /// The person: a phone number, any address (`…@c.us`, `…@lid`), or the id of the private chat with them.
    contact: String,
    /// In this session (id or name) only. Left out: in all, and in those to come what the phone tells of the time before stays away too.
    session: Option<String>,
}

/// Erases what is kept of a person: private chats with them, what they wrote in groups, contacts, jobs, and the bodies of events. A worker
/// does it; the job's `progress` says how far it is, its `result` what is gone, how much, and what is not and why. Jobs that wait to write to
/// them are withdrawn. What comes after is kept; the phone tells older messages again when it is linked anew, and they stay away. Grants and
/// ids of chats stay. A number that nobody has met is no error: what the phone may tell of it later stays away.
#[utoipa::path(post, path = "/privacy/erasures", operation_id = "eraseContact", tag = "privacy", request_body = NewErasure,
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = JobView, description = "Waited for, and done."), (status = 202, body = JobView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn erase(
    State(app): State<AppState>,
    admin: Admin,
    OriginalUri(uri): OriginalUri,
    key: IdempotencyKey,
    prefer: Prefer,
    body: Body<NewErasure>,
) -> Result<Response, Problem> {
    let NewErasure { contact, session } = body.value;
    let key = stored_key(key, &admin, uri.path(), body.sha256);
    let asked = Asked::of(&app, &admin.0, key, prefer.get()).await?;
    if let Some(answer) = asked.before(&app, &admin.0).await? {
        return Ok(answer);
    }
    let named = named_chat(&contact, "contact")?;
    let at = match &session {
        Some(name) => named_session(&app, &admin.0, Some(name)).await?,
        None => named_session(&app, &admin.0, None).await?,
    };
    let (at, chat) = where_it_is(&app, &admin, at, session.is_some(), &named).await?;
    let command = EraseContact { session: session.map(|_| at.id), address: address(named)?, chat };
    let id = JobId::new();
    let job = NewJob {
        id,
        tenant: at.tenant,
        session: at.id,
        command: Command::EraseContact(command),
        chat: None,
        message: None,
        resend_of: None,
        reference: None,
        created_by: admin.0.principal.uuid(),
        expires_in: WITHIN,
        queue_when_down: false,
    };
    // Before it is accepted: an entry too many says that somebody asked, one too few would hide an erasure.
    let act = Act::new(admin.0.principal, AuditAction::ContactErased, id, json!({"job": id, "session": job.session}));
    audit::record(&app.pool, admin.0.tenant, &act).await?;
    asked.accept_job(&app, &admin.0, job).await
}

/// The session whose job it is, and the chat's id where the person was named by it.
async fn where_it_is(
    app: &AppState,
    admin: &Admin,
    at: Session,
    only_there: bool,
    named: &Named,
) -> Result<(Session, Option<contract::ChatId>), Problem> {
    let Named::Id(id) = named else { return Ok((at, None)) };
    let session = store::events::session_of(&app.pool, admin.0.viewer(), *id).await?.ok_or_else(Problem::not_found)?;
    let at = if only_there || session == at.id {
        at
    } else {
        sessions::fetch(&app.pool, admin.0.tenant, &sessions::Named::Id(session)).await?.ok_or_else(Problem::not_found)?
    };
    let (chat, _) = chats::fetch(&app.pool, admin.0.viewer(), &at, named).await?.ok_or_else(Problem::not_found)?;
    if chat.kind != ChatKind::Private.as_str() {
        return Err(nobody());
    }
    Ok((at, Some(chat.id)))
}

fn address(named: Named) -> Result<Option<Jid>, Problem> {
    match named {
        Named::Id(_) => Ok(None),
        Named::Address(to) if to.kind() == ChatKind::Private => Ok(Some(to)),
        Named::Address(_) => Err(nobody()),
    }
}

fn nobody() -> Problem {
    Problem::new(Code::InvalidId, "expected a person: groups and channels are none").field("contact")
}
