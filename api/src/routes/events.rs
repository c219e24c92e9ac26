//! The event log: what happened, in order, from any cursor.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{Event, EventType};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::{self, Query, Read};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::SEQ;
use crate::{
    auth::{Caller, session_filter},
    extract::{Limit, Params, Wait},
    problem::{Code, Problem},
    state::AppState,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
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
    /// Seconds (0 to 25) to wait where there is nothing yet.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    wait: Wait,
}

/// Events after a cursor, in order. An EMPLEADO sees those of its chats, and how sessions are.
#[utoipa::path(get, path = "/events", operation_id = "listEvents", tag = "events", params(List), responses((status = 200, body = Events)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("events:read")), ("x-chat" = json!("read"))))]
async fn list(State(app): State<AppState>, caller: Caller, params: Params<List>) -> Result<Response, Problem> {
    let List { after, limit, types, session, wait } = params.0;
    if after.is_some_and(|seq| seq < 0) {
        return Err(Problem::new(Code::InvalidParameter, "expected a seq, or 0 for all").field("after"));
    }
    let session = session_filter(&app, &caller, session.as_deref()).await?;
    let mut query = Query { after, types: parse_types(types.as_deref())?, session, limit: limit.get() };
    let Some(wait) = wait.get() else { return answer(read(&app, &caller, &query).await?) };
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
    }
}

fn parse_types(text: Option<&str>) -> Result<Vec<EventType>, Problem> {
    let names = text.into_iter().flat_map(|t| t.split(',')).map(str::trim);
    let known = names.map(|name| {
        EventType::from_name(name)
            .ok_or_else(|| Problem::new(Code::InvalidParameter, "expected names of event types, comma-separated").field("types"))
    });
    known.collect()
}

/// A page and the log's head.
async fn read(app: &AppState, caller: &Caller, query: &Query) -> Result<(Events, i64), Problem> {
    match events::read(&app.pool, caller.viewer(), query).await? {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_are_refused_and_no_types_mean_all() {
        assert!(parse_types(None).unwrap().is_empty());
        assert_eq!(parse_types(Some("message, session.status")).unwrap(), [EventType::Message, EventType::SessionStatus]);
        assert!(parse_types(Some("message,nope")).is_err() && parse_types(Some("")).is_err());
    }
}
