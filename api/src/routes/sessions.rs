//! Sessions: create, list, look, start, stop.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use contract::{Reason, SessionId, SessionSettings, SessionState, UserAction};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use store::{
    deletion::{self, Deleted},
    sessions::{self, Change, CreateSession, Session, Wanted},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Moment, One, Page};
use crate::{
    auth::{Admin, AdminSession, Caller, OwnedSession, is_session_name},
    extract::{Body, Change as Patched, Limit, OptionalBody, Params, Patch},
    once::{self, Once},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(one, change, delete))
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
    /// The only account that may be linked, as phone digits.
    expected_phone: Option<String>,
    settings: SessionSettings,
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
            expected_phone: s.expected_account,
            settings: s.settings,
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
    /// The only account that may be linked: 7 to 15 digits with country code, a leading + is allowed.
    expected_phone: Option<String>,
    settings: Option<SettingsPatch>,
}

/// What is left out stays as it is; null is the default.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SettingsPatch {
    /// Whether sending to a chat also marks it as read; false where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    mark_read_on_send: Patched<bool>,
}

impl SettingsPatch {
    fn apply(&self, mut settings: SessionSettings) -> SessionSettings {
        match self.mark_read_on_send {
            Patched::Keep => {}
            Patched::Clear => settings.mark_read_on_send = SessionSettings::default().mark_read_on_send,
            Patched::Set(value) => settings.mark_read_on_send = value,
        }
        settings
    }
}

/// A merge patch (RFC 7396): what is left out stays, null takes away.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionPatch {
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false)]
    name: Patched<String>,
    /// Null: any account may be linked the first time.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    expected_phone: Patched<String>,
    /// Null: all as they are where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<SettingsPatch>)]
    settings: Patched<SettingsPatch>,
    /// True makes it the default instead of the one that is; false is refused, because there is always one.
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false)]
    is_default: Patched<bool>,
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
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = SessionView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn create(State(app): State<AppState>, admin: Admin, once: Once, body: Body<NewSession>) -> Result<Response, Problem> {
    let key = once.with_body(body.sha256);
    if let Some(id) = once::made(&app, &admin.0, key.as_ref()).await? {
        return created_before(&app, admin, id).await;
    }
    let NewSession { name, expected_phone, settings } = body.value;
    check_name(&name)?;
    let expected = expected_phone.as_deref().map(|text| phone(text, "expectedPhone")).transpose()?;
    let new = sessions::NewSession {
        name: &name,
        expected_account: expected.as_deref(),
        settings: settings.unwrap_or_default().apply(SessionSettings::default()),
    };
    match sessions::create(&app.pool, admin.0.tenant, new, key.as_ref()).await.map_err(not_created)? {
        Some(session) => Ok(created(session)),
        // The same request came at the same moment.
        None => {
            let id = once::made(&app, &admin.0, key.as_ref()).await?.ok_or_else(Problem::internal)?;
            created_before(&app, admin, id).await
        }
    }
}

fn created(session: Session) -> Response {
    let location = format!("/api/sessions/{}", session.id);
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(SessionView::from(session))).into_response()
}

async fn created_before(app: &AppState, admin: Admin, id: SessionId) -> Result<Response, Problem> {
    let session = sessions::fetch(&app.pool, admin.0.tenant, &sessions::Named::Id(id)).await?;
    session.map(|session| once::replayed(created(session))).ok_or_else(Problem::not_found)
}

fn check_name(name: &str) -> Result<(), Problem> {
    if is_session_name(name) && !name.starts_with("ses_") {
        return Ok(());
    }
    Err(Problem::new(Code::InvalidBody, "expected 1 to 40 characters of a-z, 0-9 and -").field("name"))
}

/// Digits of a phone number in a body.
pub fn phone(text: &str, field: &'static str) -> Result<String, Problem> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let fits = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let refused = || Problem::new(Code::InvalidBody, "expected 7 to 15 digits with country code").field(field);
    fits.then(|| digits.to_owned()).ok_or_else(refused)
}

fn not_created(why: CreateSession) -> Problem {
    match why {
        CreateSession::NameTaken => Problem::new(Code::SessionNameTaken, "the tenant has a session of this name").field("name"),
        CreateSession::Store(why) => why.into(),
    }
}

/// Changes a session: name, expected account, settings, and which one is the default. A merge patch.
#[utoipa::path(patch, path = "/sessions/{session}", operation_id = "changeSession", tag = "sessions",
    params(("session" = String, Path, description = "The session's id or name.")),
    request_body(content((SessionPatch = "application/merge-patch+json"), (SessionPatch = "application/json"))),
    responses((status = 200, body = SessionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn change(State(app): State<AppState>, owned: AdminSession, patch: Patch<SessionPatch>) -> Result<Json<SessionView>, Problem> {
    let AdminSession { session, .. } = owned;
    let SessionPatch { name, expected_phone, settings, is_default } = patch.0;
    let (name, is_default) = (name.required("name")?, is_default.required("isDefault")?);
    if let Some(name) = &name {
        check_name(name)?;
    }
    if is_default == Some(false) {
        return Err(Problem::new(Code::InvalidBody, "make another session the default instead").field("isDefault"));
    }
    let expected_account = match expected_phone.nullable() {
        Some(Some(text)) => Some(Some(phone(&text, "expectedPhone")?)),
        Some(None) => Some(None),
        None => None,
    };
    let settings = settings.nullable().map(|patch| match patch {
        Some(patch) => patch.apply(session.settings),
        None => SessionSettings::default(),
    });
    let change = Change { name, expected_account, settings, make_default: is_default == Some(true) };
    let changed = sessions::change(&app.pool, session.tenant, session.id, &change).await.map_err(not_created)?;
    changed.map(|s| Json(s.into())).ok_or_else(Problem::not_found)
}

/// Deletes a session: gone at once, its device is unlinked, then its data goes. Its name is free.
#[utoipa::path(delete, path = "/sessions/{session}", operation_id = "deleteSession", tag = "sessions",
    params(("session" = String, Path, description = "The session's id or name.")), responses((status = 204)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:control")), ("x-chat" = json!("none"))))]
async fn delete(State(app): State<AppState>, owned: AdminSession) -> Result<StatusCode, Problem> {
    let AdminSession { admin, session } = owned;
    if session.is_default {
        return Err(is_default());
    }
    // First: whoever closes its browser finds it.
    super::control::unlink_before_deletion(&app, &admin, &session).await?;
    match deletion::mark(&app.pool, session.tenant, session.id).await? {
        Deleted::Done(events) => crate::announce::events(&app, session.tenant, events).await,
        Deleted::IsDefault => return Err(is_default()),
        Deleted::NotFound => return Err(Problem::not_found()),
    }
    queue::hosts::wanted(&app.redis, session.id).await;
    Ok(StatusCode::NO_CONTENT)
}

fn is_default() -> Problem {
    Problem::new(Code::SessionIsDefault, "make another session the default first: PATCH it with isDefault: true")
}

/// One session.
#[utoipa::path(get, path = "/sessions/{session}", operation_id = "getSession", tag = "sessions",
    params(("session" = String, Path, description = "The session's id or name.")),
    responses((status = 200, body = One<SessionView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("sessions:read")), ("x-chat" = json!("none"))))]
async fn one(State(app): State<AppState>, owned: OwnedSession) -> Result<Response, Problem> {
    shown(&app, owned).await
}

async fn shown(app: &AppState, owned: OwnedSession) -> Result<Response, Problem> {
    let OwnedSession { caller, session } = owned;
    let moment = Moment::now(app, caller.tenant, None).await?;
    let read = sessions::fetch(&app.pool, caller.tenant, &sessions::Named::Id(session.id)).await?;
    read.map(|session| moment.shows(SessionView::from(session))).ok_or_else(Problem::not_found)
}

/// How the session is.
#[utoipa::path(get, path = "/status", operation_id = "status", tag = "sessions", responses((status = 200, body = One<SessionView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("sessions:read")), ("x-chat" = json!("none"))))]
async fn status(State(app): State<AppState>, owned: OwnedSession) -> Result<Response, Problem> {
    shown(&app, owned).await
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
