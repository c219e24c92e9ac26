//! Sessions: create, list, look, start, stop.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use contract::{Reason, SessionId, SessionState, UserAction};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use store::{
    sessions::{self, CreateSession, Session, Wanted},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Page;
use crate::{
    auth::{Admin, AdminSession, Caller, OwnedSession, is_session_name},
    extract::{Body, Limit, OptionalBody, Params},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(one))
}
/// Under `/api/sessions/{session}` and, for the default session, under `/api/whatsapp`.
pub fn control() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(start)).routes(routes!(stop)).routes(routes!(status))
}
/// Under `/api/whatsapp`.
pub fn init() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(start_default))
}

/// A session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub struct SessionView {
    id: SessionId,
    name: String,
    /// Whether the routes without a session mean this one.
    is_default: bool,
    state: SessionState,
    /// Why it is in this state.
    reason: Option<Reason>,
    /// What a person can do.
    user_action: Option<UserAction>,
    /// The linked account.
    me: Option<Account>,
    /// Since when it has been in this state.
    state_at: Timestamp,
    created_at: Timestamp,
}

/// A WhatsApp account.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Account {
    /// Digits.
    phone: String,
    lid: Option<String>,
    name: Option<String>,
}

impl From<Session> for SessionView {
    fn from(s: Session) -> Self {
        Self {
            id: s.id,
            is_default: s.is_default,
            state: s.state,
            reason: s.reason,
            user_action: s.state.user_action(s.reason),
            me: s.account.map(|phone| Account { phone, lid: s.account_lid, name: s.account_name }),
            state_at: s.state_at.into(),
            created_at: s.created_at.into(),
            name: s.name,
        }
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewSession {
    /// `[a-z0-9-]{1,40}`, unique within the tenant.
    name: String,
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Start {
    /// Whether another account than the one linked before may be linked.
    allow_new_account: bool,
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
    cursor: Option<SessionId>,
}

/// The tenant's sessions, oldest first.
#[utoipa::path(get, path = "/sessions", operation_id = "listSessions", tag = "sessions", params(List),
    responses((status = 200, body = Page<SessionView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("sessions:read")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, caller: Caller, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let mut snapshot = Snapshot::open(&app.pool, caller.tenant).await?;
    let rows = sessions::list(&mut snapshot, caller.viewer(), cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |s| s.id.to_string(), SessionView::from))
}

/// Creates a session. It is stopped.
#[utoipa::path(post, path = "/sessions", operation_id = "createSession", tag = "sessions", request_body = NewSession,
    responses((status = 201, body = SessionView, headers(("Location" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn create(State(app): State<AppState>, admin: Admin, body: Body<NewSession>) -> Result<impl IntoResponse, Problem> {
    let name = body.value.name;
    if !is_session_name(&name) {
        return Err(Problem::new(Code::InvalidBody, "expected 1 to 40 characters of a-z, 0-9 and -").field("name"));
    }
    let session = sessions::create(&app.pool, admin.0.tenant, &name).await.map_err(|why| match why {
        CreateSession::NameTaken => Problem::new(Code::SessionNameTaken, "the tenant has a session of this name").field("name"),
        CreateSession::Store(why) => why.into(),
    })?;
    let location = format!("/api/sessions/{}", session.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(SessionView::from(session))))
}

/// One session.
#[utoipa::path(get, path = "/sessions/{session}", operation_id = "getSession", tag = "sessions",
    params(("session" = String, Path, description = "The session's id or name.")),
    responses((status = 200, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("sessions:read")), ("x-chat" = json!("none"))))]
async fn one(owned: OwnedSession) -> Json<SessionView> {
    Json(owned.session.into())
}

/// How the session is.
#[utoipa::path(get, path = "/status", operation_id = "status", tag = "sessions", responses((status = 200, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("sessions:read")), ("x-chat" = json!("none"))))]
async fn status(owned: OwnedSession) -> Json<SessionView> {
    Json(owned.session.into())
}

/// Asks for the session to run. Idempotent, in every state.
#[utoipa::path(post, path = "/start", operation_id = "start", tag = "sessions", request_body = Option<Start>,
    responses((status = 202, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn start(State(app): State<AppState>, owned: AdminSession, body: OptionalBody<Start>) -> Result<impl IntoResponse, Problem> {
    want(&app, owned, Wanted::Running { allow_new_account: body.0.allow_new_account }).await
}

/// Asks for the default session to run. Idempotent, in every state.
#[utoipa::path(post, path = "/init", operation_id = "init", tag = "sessions", request_body = Option<Start>,
    responses((status = 202, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn start_default(State(app): State<AppState>, owned: AdminSession, body: OptionalBody<Start>) -> Result<impl IntoResponse, Problem> {
    want(&app, owned, Wanted::Running { allow_new_account: body.0.allow_new_account }).await
}

/// Asks for the session to stop. Its link is kept.
#[utoipa::path(post, path = "/stop", operation_id = "stop", tag = "sessions", responses((status = 202, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn stop(State(app): State<AppState>, owned: AdminSession) -> Result<impl IntoResponse, Problem> {
    want(&app, owned, Wanted::Stopped).await
}

async fn want(app: &AppState, owned: AdminSession, wanted: Wanted) -> Result<(StatusCode, Json<SessionView>), Problem> {
    let AdminSession { admin, session } = owned;
    let written = sessions::want(&app.pool, admin.0.tenant, session.id, wanted).await?;
    let (session, event) = written.ok_or_else(Problem::not_found)?;
    crate::announce::wanted(app, session.tenant, session.id, event).await;
    Ok((StatusCode::ACCEPTED, Json(session.into())))
}
