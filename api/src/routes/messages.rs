//! Messages, from the read model.

use axum::{Json, extract::State, response::Response};
use contract::{ChatId, JobId, MessageId, MessageStatus, Principal, SessionId};
use serde::{Deserialize, Serialize};
use store::{
    cursor::Cursor,
    messages::{self, Message},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Page, cursor};
use crate::{
    auth::VisibleChat,
    extract::{Limit, Params, PathId},
    problem::Problem,
    state::AppState,
    timestamp::Timestamp,
};

/// Under a session.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// A message.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Message)]
struct MessageView {
    id: MessageId,
    session: SessionId,
    chat: ChatId,
    /// Whether the linked account sent it.
    from_me: bool,
    /// Who sent it, as WhatsApp writes it; null for our own.
    sender: Option<String>,
    /// WhatsApp's id part.
    wa_id: String,
    /// `text`, …
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    status: MessageStatus,
    /// WhatsApp's ack, -1 to 4.
    ack: Option<i16>,
    /// `api`, `phone` or `device`.
    source: String,
    /// Who asked us to send it.
    sent_by: Option<Principal>,
    /// The sender's own reference.
    reference: Option<String>,
    /// The WhatsApp id part of the message it answers.
    reply_to: Option<String>,
    /// The job that sent it.
    job: Option<JobId>,
    /// WhatsApp's time; ours for what has not been sent yet.
    timestamp: Timestamp,
    /// Whether it was recorded late.
    recovered: bool,
}

impl From<Message> for MessageView {
    fn from(m: Message) -> Self {
        Self {
            id: m.id,
            session: m.session,
            chat: m.chat,
            from_me: m.from_me,
            sender: (!m.sender.is_empty()).then_some(m.sender),
            wa_id: m.wa_id,
            kind: m.kind,
            text: m.body,
            status: m.status,
            ack: m.ack,
            source: m.source,
            sent_by: m.sent_by,
            reference: m.reference,
            reply_to: m.reply_to,
            job: m.job,
            timestamp: m.sent_at.into(),
            recovered: m.recovered,
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
    let last = |m: &Message| cursor::write(Cursor { at: m.sent_at, id: m.id.uuid() });
    Ok(Page::of(&snapshot, rows, limit.get(), last, MessageView::from))
}

/// One message of a chat.
#[utoipa::path(get, path = "/chats/{chat}/messages/{id}", operation_id = "getMessage", tag = "messages",
    params(("chat" = String, Path, description = "A chat's id, a phone number, or any address."), ("id" = MessageId, Path)),
    responses((status = 200, body = MessageView)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("messages:read")), ("x-chat" = json!("read"))))]
async fn one(State(app): State<AppState>, chat: VisibleChat, id: PathId<MessageId>) -> Result<Json<MessageView>, Problem> {
    let message = messages::fetch(&app.pool, chat.caller.tenant, chat.chat.id, chat.access.since, id.0).await?;
    message.map(|m| Json(m.into())).ok_or_else(Problem::not_found)
}
