//! The event log: what happened, in order, from any cursor.

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
};
use contract::{Event, fault_point};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::{self, Query, Read};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::SEQ;
use crate::{
    auth::{Caller, TICKET_LIFETIME},
    extract::{Limit, Params, Wait},
    limits,
    once::{self, Once},
    problem::{Code, Problem},
    realtime::{self, Feed, cursor, filter},
    state::AppState,
};

/// How long a stream may last where nothing outlives a response: it comes again with its cursor.
const STREAM_ON_LAMBDA: Duration = Duration::from_secs(25);

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(stream)).routes(routes!(ticket))
}

/// Events, and where to go on.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Events {
    items: Vec<Event>,
    /// The next `after`: everything up to it has been judged, shown or not.
    next: i64,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct List {
    /// Events above this `seq`; from the oldest kept where nothing is said.
    after: Option<i64>,
    /// 1 to 200, 50 where nothing is said.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    /// Types, comma-separated; all where nothing is said.
    types: Option<String>,
    /// Events of this session (id or name) only.
    session: Option<String>,
    /// Events of this chat (id or any address) only.
    chat: Option<String>,
    /// Seconds (0 to 25) to wait where there is nothing yet.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    wait: Wait,
}

/// Events after a cursor, in order. An EMPLEADO sees those of its chats, how sessions are, and its own grants.
#[utoipa::path(get, path = "/events", operation_id = "listEvents", tag = "events", params(List), responses((status = 200, body = Events)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("events:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, caller: Caller, params: Params<List>) -> Result<Response, Problem> {
    let List { after, limit, types, session, chat, wait } = params.0;
    let filter = filter(&app, &caller, types.as_deref(), session.as_deref(), chat.as_deref()).await?;
    let mut query = Query { after: cursor(after)?, filter, limit: limit.get() };
    let Some(wait) = wait.get() else { return answer(read(&app, &caller, &query).await?) };
    let _place = limits::wait(&app, &caller, Some(wait)).await?;
    let deadline = Instant::now() + wait;
    // Subscribe first, then read: what is written in between is in the stream.
    let mut log = app.readers.follow(caller.tenant).await?;
    let mut caller = caller;
    loop {
        let page = read(&app, &caller, &query).await?;
        if !page.0.items.is_empty() {
            return answer(page);
        }
        // All up to `next` has been judged by the grants of now; only later events can bring something.
        query.after = Some(page.0.next);
        let later = async {
            let after = page.0.next;
            while log.next().await.seq <= after {}
        };
        tokio::select! {
            // Who was let in may have been let out since.
            () = later => caller = caller.recheck(&app).await?,
            () = tokio::time::sleep_until(deadline) => return answer(page),
            () = app.stopping.cancelled() => return answer(page),
        }
        let _ = fault_point!("rights.revoke_mid_stream", "after" => page.0.next);
        let _ = fault_point!("token.expires_mid_stream", "after" => page.0.next);
        caller = caller.recheck(&app).await?;
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Stream {
    /// Events above this `seq`; those that are still to come where nothing is said. `Last-Event-ID` wins.
    after: Option<i64>,
    /// Types, comma-separated; all where nothing is said.
    types: Option<String>,
    /// Events of this session (id or name) only.
    session: Option<String>,
    /// Events of this chat (id or any address) only.
    chat: Option<String>,
    /// From `POST /events/ticket`, where no header can be sent.
    #[expect(dead_code, reason = "for the document: `auth` reads it")]
    ticket: Option<String>,
}

/// What `EventSource` sends when it comes again: the last `id` it heard.
struct LastEventId(Option<i64>);

impl FromRequestParts<AppState> for LastEventId {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("last-event-id").filter(|v| !v.is_empty()) else { return Ok(Self(None)) };
        let seq = value.to_str().ok().and_then(|text| text.parse().ok());
        seq.map(|seq| Self(Some(seq)))
            .ok_or_else(|| Problem::new(Code::InvalidParameter, "expected a seq, as ids of the stream are").field("Last-Event-ID"))
    }
}

/// Events as they happen, as server-sent events: `id` is the `seq`, `data` the envelope. An `id` without data says how far all has been
/// judged. Where events after the cursor have been dropped, a `stream.gap` comes first. The stream ends with the token: the client comes
/// again with its cursor.
#[utoipa::path(get, path = "/events/stream", operation_id = "streamEvents", tag = "events",
    params(Stream, ("Last-Event-ID" = Option<i64>, Header, description = "The last `id` that was heard.")),
    responses((status = 200, body = String, content_type = "text/event-stream")),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("events:read")), ("x-chat" = json!("read"))))]
async fn stream(State(app): State<AppState>, caller: Caller, last: LastEventId, params: Params<Stream>) -> Result<Response, Problem> {
    let Stream { after, types, session, chat, .. } = params.0;
    let filter = filter(&app, &caller, types.as_deref(), session.as_deref(), chat.as_deref()).await?;
    let place = limits::stream(&app, &caller).await?;
    let feed = Feed::open(&app, caller, filter, cursor(last.0.or(after))?).await?;
    Ok(realtime::respond(&app, feed, place, app.on_lambda.then_some(STREAM_ON_LAMBDA)))
}

/// A ticket for one stream.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    /// Goes into `/api/events/stream?ticket=`, once.
    ticket: String,
    /// Seconds within which it must be used.
    expires_in: i64,
}

/// Buys a ticket for one stream, for clients that cannot send headers (a browser's `EventSource`). Used once, within 30 s; the stream ends
/// with the access token that bought it.
#[utoipa::path(post, path = "/events/ticket", operation_id = "createStreamTicket", tag = "events",
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = Ticket)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("events:read")), ("x-chat" = json!("none"))))]
async fn ticket(State(app): State<AppState>, caller: Caller, once: Once) -> Result<impl IntoResponse, Problem> {
    if let Some(key) = once.without_body() {
        once::first(&app, &caller, Some(&key)).await?;
        if !store::idempotency::remember(&app.pool, caller.tenant, &key, "ticket").await? {
            return Err(once::shown_once());
        }
    }
    let ticket = caller.ticket(&app).await?;
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(Ticket { ticket, expires_in: TICKET_LIFETIME })))
}

/// A page and the log's head.
async fn read(app: &AppState, caller: &Caller, query: &Query) -> Result<(Events, i64), Problem> {
    let mut found = events::read(&app.pool, caller.viewer(), query).await?;
    if let Read::Ahead { head } = found
        && realtime::restored(app, caller.tenant, head).await
    {
        found = events::read(&app.pool, caller.viewer(), query).await?;
    }
    match found {
        Read::Page { items, next, head } => Ok((Events { items, next }, head)),
        Read::Ahead { head } => {
            Err(Problem::new(Code::CursorAhead, "the log has not come so far").field("after").with("head", json!(head)))
        }
        Read::Expired { oldest } => {
            Err(Problem::new(Code::CursorExpired, "go on with after = oldest - 1").field("after").with("oldest", json!(oldest)))
        }
    }
}

fn answer((events, head): (Events, i64)) -> Result<Response, Problem> {
    let mut response = Json(events).into_response();
    response.headers_mut().insert(SEQ, HeaderValue::from(head));
    Ok(response)
}
