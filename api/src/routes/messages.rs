//! Messages, from the read model.

use axum::{extract::State, response::Response};
use contract::{MessageId, MessageView};
use serde::Deserialize;
use store::{
    cursor::Cursor,
    history,
    messages::{self, Message},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Moment, One, Page, cursor};
use crate::{
    auth::VisibleChat,
    extract::{Limit, Params, PathId},
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
    /// `next` of the page before: older messages.
    before: Option<String>,
}

/// A chat's messages, newest first.
#[utoipa::path(get, path = "/chats/{chat}/messages", operation_id = "listMessages", tag = "messages",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."), List),
    responses((status = 200, body = Page<MessageView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, chat: VisibleChat, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, before } = params.0;
    let before = cursor::read(before.as_deref(), "before")?;
    let tenant = chat.caller.tenant;
    let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
    let rows = messages::list(&mut snapshot, tenant, chat.chat.id, chat.access.since, before, limit.get() + 1).await?;
    let complete = history::complete(&mut snapshot, tenant, chat.session.id).await?;
    let last = |m: &Message| cursor::write(Cursor { at: m.sent_at, id: m.id.uuid() });
    Ok(Page::read(&snapshot, complete, rows, limit.get(), last, MessageView::from))
}

/// One message of a chat.
#[utoipa::path(get, path = "/chats/{chat}/messages/{id}", operation_id = "getMessage", tag = "messages",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."), ("id" = MessageId, Path)),
    responses((status = 200, body = One<MessageView>)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:read")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, chat: VisibleChat, id: PathId<MessageId>) -> Result<Response, Problem> {
    let moment = Moment::now(&app, chat.caller.tenant, Some(chat.session.id)).await?;
    let message = messages::fetch(&app.pool, chat.caller.tenant, chat.chat.id, chat.access.since, id.0).await?;
    message.map(|m| moment.shows(MessageView::from(m))).ok_or_else(Problem::not_found)
}
