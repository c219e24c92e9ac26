//! What operators and their machines ask.

use std::time::Duration;

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use store::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a store may take to answer a probe.
const WITHIN: Duration = Duration::from_secs(2);

/// What the probes look at.
#[derive(Clone)]
pub struct Probed {
    /// The truth.
    pub pool: PgPool,
    /// The way to the other workers.
    pub redis: ::queue::Redis,
    /// The numbers.
    pub metrics: PrometheusHandle,
    /// Whether the process has been asked to end.
    pub stopping: CancellationToken,
}

/// Starts counting.
///
/// # Errors
/// Where something counts already.
pub fn count() -> Result<PrometheusHandle, BuildError> {
    const SECONDS: [f64; 9] = [0.002, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?.install_recorder()
}

/// `/livez`, `/readyz`, `/metrics`.
pub fn router(probed: Probed) -> Router {
    Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(numbers)).with_state(probed)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    status: &'static str,
    postgres: bool,
    event_partitions: bool,
    redis: bool,
}

/// Whether tasks can be run now. A log without tomorrow's partition is this worker's own to mend: `degraded`.
async fn ready(State(probed): State<Probed>) -> impl IntoResponse {
    let partitions = timeout(WITHIN, store::schema::has_event_partitions(&probed.pool));
    let (partitions, redis) = tokio::join!(partitions, timeout(WITHIN, probed.redis.check()));
    let (partitions, redis) = (partitions.ok().and_then(Result::ok), redis.is_ok_and(|r| r.is_ok()));
    let (postgres, event_partitions) = (partitions.is_some(), partitions == Some(true));
    let status = match (probed.stopping.is_cancelled(), postgres && redis, event_partitions) {
        (true, _, _) => "stopping",
        (false, false, _) => "unavailable",
        (false, true, false) => "degraded",
        (false, true, true) => "ready",
    };
    let code =
        if matches!(status, "ready" | "degraded") { axum::http::StatusCode::OK } else { axum::http::StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Ready { status, postgres, event_partitions, redis }))
}

async fn numbers(State(probed): State<Probed>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], probed.metrics.render())
}
