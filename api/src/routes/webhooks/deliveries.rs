//! What has been sent to a webhook, what waits, and what was given up; and asking for more of it: again, from an earlier event on, as a test.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use contract::{AuditAction, ChatId, DeliveryId, DeliveryKind, DeliveryState, EventId, EventType, WEBHOOK_TEST, WebhookId};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    snapshot::Snapshot,
    webhooks::{
        deliveries::{self, Asked, Delivery, Filter},
        replay::{self, From as ReplayFrom, Replayed},
    },
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{WebhookView, found, wake};
use crate::{
    auth::{Admin, Caller},
    extract::{Body, Limit, Named, Params, Prefer},
    limits,
    once::{self, Once},
    problem::{Code, Problem},
    routes::{Page, grants::is_storable},
    state::AppState,
    timestamp::Timestamp,
};

/// How often a held request looks whether its delivery has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(redeliver))
        .routes(routes!(replay_from))
        .routes(routes!(test))
}

/// An event on its way to a webhook, or at its end.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDelivery)]
struct DeliveryView {
    id: DeliveryId,
    webhook: WebhookId,
    /// The event: the header `webhook-id`, the same for every attempt, replay and redelivery.
    event: EventId,
    /// The event's place in the log; null: a test call.
    seq: Option<i64>,
    /// The event's type.
    #[serde(rename = "type")]
    event_type: String,
    chat: Option<ChatId>,
    kind: DeliveryKind,
    state: DeliveryState,
    /// Attempts so far.
    attempts: i32,
    /// When the next one is due.
    next_attempt_at: Option<Timestamp>,
    /// HTTP's status of the last one.
    status: Option<i16>,
    /// Why there was no answer, or why it did not count.
    error: Option<String>,
    /// How long the last attempt took.
    duration_ms: Option<i32>,
    /// The first 256 bytes of the answer.
    answer: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<Delivery> for DeliveryView {
    fn from(d: Delivery) -> Self {
        Self {
            id: d.id,
            webhook: d.webhook,
            event: d.event,
            seq: d.seq,
            event_type: d.event_type,
            chat: d.chat,
            kind: d.kind,
            state: d.state,
            attempts: d.attempts,
            next_attempt_at: d.next_at.map(Timestamp),
            status: d.status,
            error: d.error,
            duration_ms: d.duration_ms,
            answer: d.answer,
            created_at: d.created_at.into(),
            finished_at: d.finished_at.map(Timestamp),
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
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<DeliveryId>,
    /// Those in this state only.
    state: Option<DeliveryState>,
    /// Those of this type of event only.
    #[serde(rename = "type")]
    event_type: Option<EventType>,
}

/// A webhook's deliveries, newest first. What has not been tried yet is not among them, but for what was asked for by hand.
#[utoipa::path(get, path = "/webhooks/{webhook}/deliveries", operation_id = "listWebhookDeliveries", tag = "webhooks",
    params(("webhook" = WebhookId, Path), List), responses((status = 200, body = Page<DeliveryView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin, id: Named<WebhookId>, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor, state, event_type } = params.0;
    found(&app, &admin, id.0).await?;
    // A name that no event has is a filter like another; one that Postgres cannot hold is none.
    let event_type = event_type.map(|t| t.as_str().to_owned());
    if event_type.as_deref().is_some_and(|name| name.contains('\0')) {
        return Err(Problem::new(Code::InvalidParameter, "expected the type of an event").field("type"));
    }
    let mut snapshot = Snapshot::open(&app.pool, admin.0.tenant).await?;
    let filter = Filter { state, event_type, before: cursor };
    let rows = deliveries::list(&mut snapshot, admin.0.tenant, id.0, &filter, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |d| d.id.to_string(), DeliveryView::from))
}

/// One delivery.
#[utoipa::path(get, path = "/webhooks/{webhook}/deliveries/{delivery}", operation_id = "getWebhookDelivery", tag = "webhooks",
    params(("webhook" = WebhookId, Path), ("delivery" = DeliveryId, Path)), responses((status = 200, body = DeliveryView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn one(
    State(app): State<AppState>,
    admin: Admin,
    id: Named<WebhookId>,
    delivery: Named<DeliveryId>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(delivery_of(&app, &admin.0, id.0, delivery.0).await?.into()))
}

async fn delivery_of(app: &AppState, caller: &Caller, webhook: WebhookId, id: DeliveryId) -> Result<Delivery, Problem> {
    deliveries::fetch(&app.pool, caller.tenant, webhook, id).await?.ok_or_else(Problem::not_found)
}

/// Sends the event of a delivery again, beside the order and as soon as possible: what was given up, or what the receiver lost. It is retried
/// like any other, and of a paused webhook waits until that is active again.
#[utoipa::path(post, path = "/webhooks/{webhook}/deliveries/{delivery}/redeliver", operation_id = "redeliverWebhook", tag = "webhooks",
    params(("webhook" = WebhookId, Path), ("delivery" = DeliveryId, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = DeliveryView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn redeliver(
    State(app): State<AppState>,
    admin: Admin,
    id: Named<WebhookId>,
    delivery: Named<DeliveryId>,
    once: Once,
) -> Result<Response, Problem> {
    let (caller, once) = (admin.0, once.without_body());
    if let Some(before) = once::made(&app, &caller, once.as_ref()).await? {
        return Ok(once::replayed(accepted(delivery_of(&app, &caller, id.0, before).await?, false)));
    }
    let act = Act::new(caller.principal, AuditAction::WebhookRedelivered, id.0, json!({"delivery": delivery.0}));
    let asked = deliveries::redeliver(&app.pool, caller.tenant, id.0, delivery.0, &act, once.as_ref()).await?;
    let (made, replayed) = waiting(&app, &caller, once.as_ref(), asked).await?;
    wake(&app, id.0).await;
    let response = accepted(delivery_of(&app, &caller, id.0, made).await?, false);
    Ok(if replayed { once::replayed(response) } else { response })
}

/// The delivery that was asked for, and whether it had been before.
async fn waiting(
    app: &AppState,
    caller: &Caller,
    once: Option<&store::accept::IdempotencyKey>,
    asked: Asked,
) -> Result<(DeliveryId, bool), Problem> {
    match asked {
        Asked::Waiting(id) => Ok((id, false)),
        Asked::NotRepeatable(_, DeliveryKind::Test) => Err(Problem::new(Code::DeliveryNotRepeatable, "a test call is made anew")),
        Asked::NotRepeatable(_, DeliveryKind::Live | DeliveryKind::Replay | DeliveryKind::Redelivery) => {
            Err(Problem::new(Code::DeliveryNotRepeatable, "it waits to be sent already"))
        }
        Asked::EventGone => Err(Problem::new(Code::EventExpired, "the event has been dropped from the log")),
        Asked::NotActive(state) => {
            let why = format!("it is {}: PATCH it with state: active first", state.as_str());
            Err(Problem::new(Code::WebhookNotActive, why))
        }
        Asked::Full => {
            let why = format!("{} deliveries of this webhook wait already", deliveries::MOST_WAITING);
            Err(Problem::new(Code::QuotaExceeded, why).retry_after(60))
        }
        Asked::Before => once::made(app, caller, once).await?.map(|id| (id, true)).ok_or_else(Problem::internal),
        Asked::NotFound => Err(Problem::not_found()),
    }
}

fn accepted(delivery: Delivery, waited: bool) -> Response {
    let location = [(header::LOCATION, format!("/api/webhooks/{}/deliveries/{}", delivery.webhook, delivery.id))];
    let status = match delivery.state {
        DeliveryState::Delivered | DeliveryState::Dead if waited => StatusCode::OK,
        DeliveryState::Waiting | DeliveryState::Delivered | DeliveryState::Dead => StatusCode::ACCEPTED,
    };
    (status, location, Json(DeliveryView::from(delivery))).into_response()
}

/// Where to begin again: exactly one of the two.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Replay {
    /// From the event with this `seq` on.
    #[schema(minimum = 1)]
    seq: Option<i64>,
    /// From the first event since this time on.
    since: Option<DateTime<Utc>>,
}

/// Turns a webhook's cursor back: everything from there on is delivered again, in order, under the same `webhook-id`s and with the header
/// `zaguan-replay: true` where it had been settled before. The cursor never moves forward: where it stands before that event already,
/// nothing changes.
#[utoipa::path(post, path = "/webhooks/{webhook}/replay", operation_id = "replayWebhook", tag = "webhooks",
    params(("webhook" = WebhookId, Path)), request_body = Replay, responses((status = 200, body = WebhookView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn replay_from(
    State(app): State<AppState>,
    admin: Admin,
    id: Named<WebhookId>,
    body: Body<Replay>,
) -> Result<Json<WebhookView>, Problem> {
    let bad = |why: &'static str, field: &str| Err(Problem::new(Code::InvalidBody, why).field(field));
    let from = match (body.value.seq, body.value.since) {
        (Some(seq), None) if (1..1 << 53).contains(&seq) => ReplayFrom::Seq(seq),
        (Some(_), None) => return bad("expected a number of an event", "seq"),
        (None, Some(at)) if is_storable(at) => ReplayFrom::Since(at),
        (None, Some(_)) => return bad("expected a time of this millennium", "since"),
        (None, None) | (Some(_), Some(_)) => return bad("expected seq or since, and not both", "seq"),
    };
    let act = Act::new(admin.0.principal, AuditAction::WebhookReplayed, id.0, json!({"since": body.value.since}));
    match replay::replay(&app.pool, admin.0.tenant, id.0, from, &act).await? {
        Replayed::Done => {}
        Replayed::Ahead { head } => {
            return Err(Problem::new(Code::CursorAhead, "no such event has been issued").field("seq").with("head", json!(head)));
        }
        Replayed::Expired { oldest } => {
            let problem = Problem::new(Code::CursorExpired, "events from there on have been dropped");
            return Err(problem.field(if body.value.seq.is_some() { "seq" } else { "since" }).with("oldest", json!(oldest)));
        }
        Replayed::NotFound => return Err(Problem::not_found()),
    }
    wake(&app, id.0).await;
    Ok(Json(found(&app, &admin, id.0).await?.into()))
}

/// Posts an event of type `webhook.test`, which is in no log, to the webhook: signed like any other, tried once. With `Prefer: wait=N` the answer
/// is held until the receiver has answered.
#[utoipa::path(post, path = "/webhooks/{webhook}/test", operation_id = "testWebhook", tag = "webhooks",
    params(("webhook" = WebhookId, Path), ("Idempotency-Key" = Option<String>, Header),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 25 seconds.")),
    responses((status = 200, body = DeliveryView, description = "Waited for: `state` says whether the receiver took it."),
        (status = 202, body = DeliveryView, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("webhooks")), ("x-chat" = json!("none"))))]
async fn test(State(app): State<AppState>, admin: Admin, id: Named<WebhookId>, once: Once, prefer: Prefer) -> Result<Response, Problem> {
    let (caller, once) = (admin.0, once.without_body());
    let _place = limits::wait(&app, &caller, prefer.get()).await?;
    let (made, replayed) = match once::made(&app, &caller, once.as_ref()).await? {
        Some(before) => (before, true),
        None => {
            let event = EventId::new();
            let body = json!({"id": event, "seq": null, "type": WEBHOOK_TEST, "tenant": caller.tenant, "session": null, "chat": null,
                "data": {"webhook": id.0}});
            let asked = deliveries::test(&app.pool, caller.tenant, id.0, (event, &body), once.as_ref()).await?;
            waiting(&app, &caller, once.as_ref(), asked).await?
        }
    };
    wake(&app, id.0).await;
    let delivery = ended(&app, caller, id.0, made, prefer.get()).await?;
    let response = accepted(delivery, prefer.get().is_some());
    Ok(if replayed { once::replayed(response) } else { response })
}

/// The delivery, once it has ended or the time is up. Its end is a row and nothing that is announced.
async fn ended(
    app: &AppState,
    mut caller: Caller,
    webhook: WebhookId,
    id: DeliveryId,
    wait: Option<Duration>,
) -> Result<Delivery, Problem> {
    let deadline = Instant::now() + wait.unwrap_or_default();
    loop {
        let delivery = delivery_of(app, &caller, webhook, id).await?;
        if delivery.state != DeliveryState::Waiting || Instant::now() >= deadline {
            return Ok(delivery);
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => caller = caller.recheck(app).await?,
            () = app.stopping.cancelled() => return Ok(delivery),
        }
    }
}
