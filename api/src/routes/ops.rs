//! What operators and their machines ask.

use axum::{Json, extract::State, response::IntoResponse};
use http::{StatusCode, header};
use serde::Serialize;
use tokio::time::timeout;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::AppState;

/// How long a store may take to answer a probe.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// At the root.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(keys))
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Live {
    status: &'static str,
}

/// Whether a request can be served now, and what is in the way.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Ready {
    /// `ready`, `degraded` (serves, but something needs an operator), `stopping` or `unavailable`.
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Checks {
    /// The truth: without it nothing is served.
    postgres: Check,
    /// The event log's partitions of today and tomorrow.
    event_partitions: Check,
    /// The fast path: without it sends are accepted and wait. It must not evict what it was given.
    redis: Check,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Check {
    ok: bool,
    detail: &'static str,
}

impl Check {
    const fn of(ok: bool, otherwise: &'static str) -> Self {
        Self { ok, detail: if ok { "ok" } else { otherwise } }
    }
}

/// The process lives.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operations", responses((status = 200, body = Live)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Whether requests can be served. Redis away is `degraded`, not unavailable: reads and acceptance go on.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operations",
    responses((status = 200, body = Ready), (status = 503, body = Ready)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn ready(State(app): State<AppState>) -> impl IntoResponse {
    let postgres = timeout(WITHIN, store::schema::has_event_partitions(&app.pool));
    let (postgres, redis) = tokio::join!(postgres, timeout(WITHIN, app.redis.check()));
    // Late is as good as not at all.
    let (partitions, redis) = (postgres.ok().and_then(Result::ok), redis.ok().and_then(Result::ok));
    let stopping = app.stopping.is_cancelled();
    let serves = partitions.is_some() && !stopping;
    let checks = Checks {
        postgres: Check::of(partitions.is_some(), "does not answer"),
        event_partitions: Check::of(partitions == Some(true), "missing: run migrate, or see the worker's housekeeping"),
        redis: Check::of(redis.is_some(), "does not answer, or its maxmemory-policy is not noeviction"),
    };
    let all = checks.event_partitions.ok && checks.redis.ok;
    let (code, status) = match (serves, all) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, if stopping { "stopping" } else { "unavailable" }),
    };
    (code, Json(Ready { status, checks }))
}

/// The public keys of our access tokens.
#[utoipa::path(get, path = "/.well-known/jwks.json", operation_id = "jwks", tag = "auth",
    responses((status = 200, body = serde_json::Value)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn keys(State(app): State<AppState>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(app.tokens.jwks()))
}
