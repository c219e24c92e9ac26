//! Webhooks: endpoints of the tenant that are told of its events. `docs/webhooks.md` is for those who receive.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{AuditAction, ChatId, EventType, Principal, SessionId, WebhookId, WebhookOrder, WebhookReason, WebhookState};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    snapshot::Snapshot,
    webhooks::{self, NewWebhook, Webhook},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{NO_STORE, Page};
use crate::{
    auth::Admin,
    extract::{Body, Limit, Named, OptionalBody, Params, Patch},
    once::{self, Once},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

mod asked;
mod change;
mod deliveries;
mod sealed;

use asked::Asked;

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, patch, delete))
        .routes(routes!(rotate))
        .merge(deliveries::router())
}

/// A webhook.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
struct WebhookView {
    id: WebhookId,
    name: String,
    url: String,
    state: WebhookState,
    /// Why it is not active.
    reason: Option<WebhookReason>,
    /// Since when it has been in this state.
    state_at: Timestamp,
    /// The only types of events that it is told of; null: all that are in the log.
    types: Option<Vec<EventType>>,
    /// The only sessions; null: all, and what is of none.
    sessions: Option<Vec<SessionId>>,
    /// The only chats; null: all, and what is of none.
    chats: Option<Vec<ChatId>>,
    ignore_groups: bool,
    ignore_status: bool,
    ignore_own: bool,
    ordered_by: WebhookOrder,
    /// How many chats at once, where it is ordered by chat.
    concurrency: i16,
    /// The names of its headers. Their values are shown to nobody.
    headers: Vec<String>,
    /// Until when the secret of before signs too.
    previous_secret_until: Option<Timestamp>,
    /// The `seq` up to which every event has been delivered, given up, passed over or put among those that wait.
    cursor: i64,
    /// How many deliveries wait for another attempt.
    waiting: i64,
    /// Since when nothing has succeeded.
    failing_since: Option<Timestamp>,
    last_success_at: Option<Timestamp>,
    last_failure_at: Option<Timestamp>,
    /// What the last failure was.
    last_failure: Option<String>,
    /// The user or key that made it. It outlives them.
    created_by: Principal,
    created_at: Timestamp,
}

impl From<Webhook> for WebhookView {
    fn from(w: Webhook) -> Self {
        Self {
            id: w.id,
            name: w.name,
            url: w.url,
            state: w.state,
            reason: w.reason,
            state_at: w.state_at.into(),
            types: (!w.filter.types.is_empty()).then_some(w.filter.types),
            sessions: w.filter.sessions,
            chats: w.filter.chats,
            ignore_groups: w.filter.ignore_groups,
            ignore_status: w.filter.ignore_status,
            ignore_own: w.filter.ignore_own,
            ordered_by: w.ordered_by,
            concurrency: w.concurrency,
            headers: w.header_names,
            previous_secret_until: w.previous_until.map(Timestamp),
            cursor: w.cursor,
            waiting: w.waiting,
            failing_since: w.failing_since.map(Timestamp),
            last_success_at: w.last_success_at.map(Timestamp),
            last_failure_at: w.last_failure_at.map(Timestamp),
            last_failure: w.last_failure,
            created_by: w.created_by,
            created_at: w.created_at.into(),
        }
    }
}

/// A webhook whose secret has just been made.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct MadeWebhook {
    #[serde(flatten)]
    webhook: WebhookView,
    /// `whsec_…`, shown this once: what signatures are checked with. Null in the answer to a repeated request.
    secret: Option<String>,
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
    cursor: Option<WebhookId>,
}

/// The tenant's webhooks, oldest first.
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", params(List),
    responses((status = 200, body = Page<WebhookView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let mut snapshot = Snapshot::open(&app.pool, admin.0.tenant).await?;
    let rows = webhooks::list(&mut snapshot, admin.0.tenant, cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |w| w.id.to_string(), WebhookView::from))
}

/// Makes a webhook, active, that is told of what happens from now on.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks", request_body = Asked,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = MadeWebhook, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn create(State(app): State<AppState>, admin: Admin, once: Once, body: Body<Asked>) -> Result<Response, Problem> {
    let once = once.with_body(body.sha256);
    if let Some(before) = once::made(&app, &admin.0, once.as_ref()).await? {
        return made_before(&app, &admin, before).await;
    }
    let asked = body.value.check(&app, &admin.0).await?;
    let id = WebhookId::new();
    let (secret, sealed) = sealed::secret(&app, id)?;
    let headers = sealed::headers(&app, id, &asked.headers)?;
    let new = NewWebhook {
        id,
        name: &asked.name,
        url: &asked.url,
        filter: &asked.filter,
        ordered_by: asked.ordered_by,
        concurrency: asked.concurrency,
        secret: &sealed,
        headers: &headers,
        created_by: admin.0.principal,
    };
    // No URL: what tenants put into its query is theirs to tell.
    let act = Act::new(admin.0.principal, AuditAction::WebhookCreated, id, json!({"name": asked.name}));
    match webhooks::create(&app.pool, admin.0.tenant, &new, &act, once.as_ref()).await? {
        Some(webhook) => {
            wake(&app, id).await;
            Ok(made(webhook, Some(secret)))
        }
        // The same request came at the same moment.
        None => {
            let before = once::made(&app, &admin.0, once.as_ref()).await?.ok_or_else(Problem::internal)?;
            made_before(&app, &admin, before).await
        }
    }
}

fn made(webhook: Webhook, secret: Option<String>) -> Response {
    let location = [(header::LOCATION, format!("/api/webhooks/{}", webhook.id))];
    (StatusCode::CREATED, NO_STORE, location, Json(MadeWebhook { webhook: webhook.into(), secret })).into_response()
}

async fn made_before(app: &AppState, admin: &Admin, id: WebhookId) -> Result<Response, Problem> {
    Ok(once::replayed(made(found(app, admin, id).await?, None)))
}

async fn found(app: &AppState, admin: &Admin, id: WebhookId) -> Result<Webhook, Problem> {
    webhooks::fetch(&app.pool, admin.0.tenant, id).await?.ok_or_else(Problem::not_found)
}

/// Calls the workers. What they miss they find by themselves, some seconds later.
async fn wake(app: &AppState, webhook: WebhookId) {
    if let Err(why) = queue::hooks::wake(&app.redis, webhook).await {
        tracing::debug!(cause = %why, %webhook, "workers not called");
    }
}

/// One webhook.
#[utoipa::path(get, path = "/webhooks/{webhook}", operation_id = "getWebhook", tag = "webhooks", params(("webhook" = WebhookId, Path)),
    responses((status = 200, body = WebhookView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn one(State(app): State<AppState>, admin: Admin, id: Named<WebhookId>) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(found(&app, &admin, id.0).await?.into()))
}

/// Changes a webhook: a merge patch. `state: "paused"` stops it, `"active"` lets it go on where it stood, whyever it stood there; nothing is
/// lost that is still in the log.
#[utoipa::path(patch, path = "/webhooks/{webhook}", operation_id = "changeWebhook", tag = "webhooks", params(("webhook" = WebhookId, Path)),
    request_body(content((change::WebhookPatch = "application/merge-patch+json"), (change::WebhookPatch = "application/json"))),
    responses((status = 200, body = WebhookView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn patch(
    State(app): State<AppState>,
    admin: Admin,
    id: Named<WebhookId>,
    patch: Patch<change::WebhookPatch>,
) -> Result<Json<WebhookView>, Problem> {
    let webhook = found(&app, &admin, id.0).await?;
    if let Some(event) = patch.0.apply(&app, &admin.0, &webhook).await? {
        crate::announce::events(&app, admin.0.tenant, vec![event]).await;
    }
    wake(&app, id.0).await;
    Ok(Json(found(&app, &admin, id.0).await?.into()))
}

/// Deletes a webhook with its deliveries. An attempt that is being made is not called back.
#[utoipa::path(delete, path = "/webhooks/{webhook}", operation_id = "deleteWebhook", tag = "webhooks", params(("webhook" = WebhookId, Path)),
    responses((status = 204)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn delete(State(app): State<AppState>, admin: Admin, id: Named<WebhookId>) -> Result<StatusCode, Problem> {
    let act = Act::new(admin.0.principal, AuditAction::WebhookDeleted, id.0, json!({}));
    if !webhooks::delete(&app.pool, admin.0.tenant, id.0, &act).await? {
        return Err(Problem::not_found());
    }
    wake(&app, id.0).await;
    Ok(StatusCode::NO_CONTENT)
}

/// How the old secret goes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rotation {
    /// Seconds for which the secret of now signs too: 0 to 604800 (7 days), 86400 where nothing is said. 0: it has leaked.
    #[schema(minimum = 0, maximum = 604_800)]
    overlap: Option<u64>,
}

const DAY: u64 = 24 * 60 * 60;

/// Gives a webhook a new secret. For a while both sign, each with a signature of its own in `webhook-signature`: a receiver that knows either is
/// content. A secret of before that had not ended yet ends.
#[utoipa::path(post, path = "/webhooks/{webhook}/secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    params(("webhook" = WebhookId, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = Option<Rotation>,
    responses((status = 200, body = MadeWebhook, headers(("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn rotate(
    State(app): State<AppState>,
    admin: Admin,
    id: Named<WebhookId>,
    once: Once,
    body: OptionalBody<Rotation>,
) -> Result<Response, Problem> {
    let (caller, once) = (admin.0, once.with_body(body.1));
    let shown = |webhook: Webhook, secret| (NO_STORE, Json(MadeWebhook { webhook: webhook.into(), secret })).into_response();
    if once::made::<WebhookId>(&app, &caller, once.as_ref()).await?.is_some() {
        return Ok(once::replayed(shown(found(&app, &admin, id.0).await?, None)));
    }
    let overlap = body.0.overlap.unwrap_or(DAY);
    if overlap > 7 * DAY {
        return Err(Problem::new(Code::InvalidBody, "expected seconds from 0 to 604800").field("overlap"));
    }
    let (secret, sealed) = sealed::secret(&app, id.0)?;
    let act = Act::new(caller.principal, AuditAction::WebhookSecretRotated, id.0, json!({"overlap": overlap}));
    let new = (sealed.as_slice(), std::time::Duration::from_secs(overlap));
    match webhooks::rotate(&app.pool, caller.tenant, id.0, new, &act, once.as_ref()).await? {
        Some(webhook) => {
            wake(&app, id.0).await;
            Ok(shown(webhook, Some(secret)))
        }
        // No such webhook; or the same request came at the same moment.
        None => Ok(once::replayed(shown(found(&app, &admin, id.0).await?, None))),
    }
}
