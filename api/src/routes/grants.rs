//! Who may see which chats: what is granted to people and keys.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use chrono::{DateTime, Utc};
use contract::{AccessKind, AuditAction, ChatId, GrantId, History, KeyId, Principal, SessionId, UserId};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    accept::IdempotencyKey as StoredKey,
    aliases,
    audit::Act,
    chats, grants,
    grants::{Grant, NewGrant},
    keys,
    snapshot::Snapshot,
    users,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Page;
use crate::{
    auth::{Admin, VisibleChat, named_chat, named_session},
    extract::{Body, Limit, Named, Params},
    once::{self, Once},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(of_user, give_user))
        .routes(routes!(take_from_user))
        .routes(routes!(of_key, give_key))
        .routes(routes!(take_from_key))
}

/// Under a session.
pub fn content() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(of_chat))
}

/// A grant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Grant)]
struct GrantView {
    id: GrantId,
    /// The user or key.
    holder: Principal,
    session: SessionId,
    /// Null: all chats of the session.
    chat: Option<ChatId>,
    all: bool,
    access: AccessKind,
    history: History,
    /// From when on messages are shown; null: all.
    from: Option<Timestamp>,
    /// Until when it counts; null: until it is taken back.
    expires_at: Option<Timestamp>,
    created_by: UserId,
    created_at: Timestamp,
}

impl From<Grant> for GrantView {
    fn from(g: Grant) -> Self {
        Self {
            id: g.id,
            holder: g.holder,
            session: g.session,
            chat: g.chat,
            all: g.chat.is_none(),
            access: if g.write { AccessKind::Write } else { AccessKind::Read },
            history: if g.from_at.is_some() { History::FromNow } else { History::All },
            from: g.from_at.map(Timestamp),
            expires_at: g.expires_at.map(Timestamp),
            created_by: g.created_by,
            created_at: g.created_at.into(),
        }
    }
}

/// What is to be granted: a chat, or all chats of a session.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewGrant)]
struct Asked {
    /// The session's id or name.
    session: String,
    /// A chat's id, a phone number, or any address.
    chat: Option<String>,
    /// Not supported yet.
    label: Option<String>,
    /// All chats of the session, those to come included.
    #[serde(default)]
    all: bool,
    access: AccessKind,
    #[serde(default)]
    history: History,
    /// Until when it counts.
    expires_at: Option<DateTime<Utc>>,
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
    cursor: Option<GrantId>,
}

/// What is granted to a person, oldest first; what has expired too.
#[utoipa::path(get, path = "/users/{user}/grants", operation_id = "listUserGrants", tag = "grants", params(("user" = UserId, Path), List),
    responses((status = 200, body = Page<GrantView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn of_user(State(app): State<AppState>, admin: Admin, user: Named<UserId>, params: Params<List>) -> Result<Response, Problem> {
    users::fetch(&app.pool, admin.0.tenant, user.0).await?.ok_or_else(Problem::not_found)?;
    list(&app, admin, Principal::User(user.0), params.0).await
}

/// Grants a chat, or all chats of a session, to a person; an older grant of the same is replaced. It counts from the next request on.
#[utoipa::path(post, path = "/users/{user}/grants", operation_id = "grantToUser", tag = "grants", 
    params(("user" = UserId, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = Asked,
    responses((status = 201, body = GrantView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn give_user(
    State(app): State<AppState>,
    admin: Admin,
    user: Named<UserId>,
    once: Once,
    body: Body<Asked>,
) -> Result<Response, Problem> {
    give(&app, admin, Principal::User(user.0), once.with_body(body.sha256), body.value).await
}

/// Takes a grant of a person back. Held requests and streams of it see nothing more of the chat.
#[utoipa::path(delete, path = "/users/{user}/grants/{grant}", operation_id = "revokeFromUser", tag = "grants",
    params(("user" = UserId, Path), ("grant" = GrantId, Path)), responses((status = 204, description = "Taken back.")),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn take_from_user(
    State(app): State<AppState>,
    admin: Admin,
    user: Named<UserId>,
    grant: Named<GrantId>,
) -> Result<StatusCode, Problem> {
    take_back(&app, admin, Principal::User(user.0), grant.0).await
}

/// What is granted to a key with lists, oldest first.
#[utoipa::path(get, path = "/keys/{key}/grants", operation_id = "listKeyGrants", tag = "grants", params(("key" = KeyId, Path), List),
    responses((status = 200, body = Page<GrantView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn of_key(State(app): State<AppState>, admin: Admin, key: Named<KeyId>, params: Params<List>) -> Result<Response, Problem> {
    keys::fetch(&app.pool, admin.0.tenant, key.0).await?.ok_or_else(Problem::not_found)?;
    list(&app, admin, Principal::Key(key.0), params.0).await
}

/// Grants a chat, or all chats of a session, to a key with lists; an older grant of the same is replaced.
#[utoipa::path(post, path = "/keys/{key}/grants", operation_id = "grantToKey", tag = "grants", 
    params(("key" = KeyId, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = Asked,
    responses((status = 201, body = GrantView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn give_key(
    State(app): State<AppState>,
    admin: Admin,
    key: Named<KeyId>,
    once: Once,
    body: Body<Asked>,
) -> Result<Response, Problem> {
    let found = keys::fetch(&app.pool, admin.0.tenant, key.0).await?.ok_or_else(Problem::not_found)?;
    if !found.limited {
        return Err(Problem::new(Code::KeyUnlimited, "the key was made without lists: it reaches all chats already"));
    }
    give(&app, admin, Principal::Key(key.0), once.with_body(body.sha256), body.value).await
}

/// Takes a grant of a key back.
#[utoipa::path(delete, path = "/keys/{key}/grants/{grant}", operation_id = "revokeFromKey", tag = "grants",
    params(("key" = KeyId, Path), ("grant" = GrantId, Path)), responses((status = 204, description = "Taken back.")),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn take_from_key(State(app): State<AppState>, admin: Admin, key: Named<KeyId>, grant: Named<GrantId>) -> Result<StatusCode, Problem> {
    take_back(&app, admin, Principal::Key(key.0), grant.0).await
}

/// Who besides the ADMINs may see a chat now.
#[utoipa::path(get, path = "/chats/{chat}/grants", operation_id = "listChatGrants", tag = "grants",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."), List),
    responses((status = 200, body = Page<GrantView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("read"))))]
async fn of_chat(State(app): State<AppState>, chat: VisibleChat, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let tenant = chat.caller.tenant;
    let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
    let rows = grants::of_chat(&mut snapshot, tenant, (chat.session.id, chat.chat.id), cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |g| g.id.to_string(), GrantView::from))
}

async fn list(app: &AppState, admin: Admin, holder: Principal, List { limit, cursor }: List) -> Result<Response, Problem> {
    let mut snapshot = Snapshot::open(&app.pool, admin.0.tenant).await?;
    let rows = grants::list(&mut snapshot, admin.0.tenant, holder, cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |g| g.id.to_string(), GrantView::from))
}

async fn give(app: &AppState, admin: Admin, holder: Principal, key: Option<StoredKey>, asked: Asked) -> Result<Response, Problem> {
    if let Some(before) = once::made(app, &admin.0, key.as_ref()).await? {
        return given_before(app, admin, holder, before).await;
    }
    if asked.label.is_some() {
        return Err(Problem::new(Code::Unsupported, "labels cannot be granted yet").field("label"));
    }
    if asked.chat.is_some() == asked.all {
        return Err(Problem::new(Code::InvalidBody, "expected either a chat or all").field("chat"));
    }
    let caller = admin.0;
    if asked.expires_at.is_some_and(|at| !is_storable(at)) {
        return Err(Problem::new(Code::InvalidBody, "expected a time of this millennium").field("expiresAt"));
    }
    let session = named_session(app, &caller, Some(&asked.session)).await.map_err(|p| p.field("session"))?;
    let chat = match &asked.chat {
        None => None,
        Some(text) => Some(match named_chat(text, "chat")? {
            chats::Named::Address(to) => aliases::named(&app.pool, caller.tenant, session.id, &to).await?,
            named @ chats::Named::Id(_) => {
                let seen = chats::fetch(&app.pool, caller.viewer(), &session, &named).await?;
                seen.ok_or_else(|| Problem::not_found().field("chat"))?.0.id
            }
        }),
    };
    let new = NewGrant {
        holder,
        session: session.id,
        chat,
        write: asked.access == AccessKind::Write,
        from_now: asked.history == History::FromNow,
        expires_at: asked.expires_at,
        created_by: caller.user,
    };
    let detail = json!({"holder": holder, "session": session.id, "chat": chat, "all": asked.all, "access": asked.access,
        "history": asked.history, "expiresAt": asked.expires_at.map(Timestamp)});
    let act = Act::new(caller.principal, AuditAction::GrantCreated, "", detail);
    if let Some((grant, event)) = grants::give(&app.pool, caller.tenant, &new, &act, key.as_ref()).await? {
        crate::announce::events(app, caller.tenant, vec![event]).await;
        return Ok(given(holder, grant));
    }
    // The same request may have come at the same moment.
    match once::made(app, &caller, key.as_ref()).await? {
        Some(before) => given_before(app, admin, holder, before).await,
        None => Err(Problem::not_found()),
    }
}

async fn given_before(app: &AppState, admin: Admin, holder: Principal, id: GrantId) -> Result<Response, Problem> {
    let grant = grants::fetch(&app.pool, admin.0.tenant, holder, id).await?.ok_or_else(Problem::not_found)?;
    Ok(once::replayed(given(holder, grant)))
}

fn given(holder: Principal, grant: Grant) -> Response {
    let (of, id) = match holder {
        Principal::User(id) => ("users", id.to_string()),
        Principal::Key(id) => ("keys", id.to_string()),
    };
    let location = format!("/api/{of}/{id}/grants/{}", grant.id);
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(GrantView::from(grant))).into_response()
}

/// Postgres keeps fewer years than the wire can name.
pub(super) fn is_storable(at: DateTime<Utc>) -> bool {
    (0..253_402_300_800).contains(&at.timestamp())
}

async fn take_back(app: &AppState, admin: Admin, holder: Principal, id: GrantId) -> Result<StatusCode, Problem> {
    let tenant = admin.0.tenant;
    let act = Act::new(admin.0.principal, AuditAction::GrantDeleted, id, json!({"holder": holder}));
    let event = grants::take_back(&app.pool, tenant, holder, id, &act).await?.ok_or_else(Problem::not_found)?;
    crate::announce::events(app, tenant, vec![event]).await;
    Ok(StatusCode::NO_CONTENT)
}
