//! Chats, from the read model.

use axum::{extract::State, response::Response};
use contract::ChatView;
use serde::Deserialize;
use store::{
    chats::{self, Chat},
    cursor::Cursor,
    history,
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Moment, One, Page, cursor};
use crate::{
    auth::{OwnedSession, VisibleChat},
    extract::{Limit, Params},
    problem::Problem,
    state::AppState,
};

/// Under a session.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
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
    cursor: Option<String>,
}

/// Chats with messages, the latest first.
#[utoipa::path(get, path = "/chats", operation_id = "listChats", tag = "chats", params(List), responses((status = 200, body = Page<ChatView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("chats:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, owned: OwnedSession, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let before = cursor::read(cursor.as_deref(), "cursor")?;
    let mut snapshot = Snapshot::open(&app.pool, owned.caller.tenant).await?;
    let rows = chats::list(&mut snapshot, owned.caller.viewer(), &owned.session, before, limit.get() + 1).await?;
    let complete = history::complete(&mut snapshot, owned.caller.tenant, owned.session.id).await?;
    // Only chats with a message are listed, so there is a time.
    let last = |c: &Chat| cursor::write(Cursor { at: c.last_message_at.unwrap_or_default(), id: c.id.uuid() });
    Ok(Page::read(&snapshot, complete, rows, limit.get(), last, ChatView::from))
}

/// One chat.
#[utoipa::path(get, path = "/chats/{chat}", operation_id = "getChat", tag = "chats",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address.")),
    responses((status = 200, body = One<ChatView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("chats:read")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, chat: VisibleChat) -> Result<Response, Problem> {
    let moment = Moment::now(&app, chat.caller.tenant, Some(chat.session.id)).await?;
    let named = chats::Named::Id(chat.chat.id);
    let read = chats::fetch(&app.pool, chat.caller.viewer(), &chat.session, &named).await?;
    read.map(|(chat, _)| moment.shows(ChatView::from(chat))).ok_or_else(Problem::not_found)
}
