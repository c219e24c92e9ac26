//! Logs as JSON lines on stderr (stdout belongs to the guard), metrics for Prometheus.

use std::net::SocketAddr;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts both. Called once, within the runtime.
///
/// # Errors
/// Where the metrics address cannot be bound.
pub fn start(metrics: SocketAddr) -> Result<(), metrics_exporter_prometheus::BuildError> {
    tracing_subscriber::registry()
        .with(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
        .init();
    metrics_exporter_prometheus::PrometheusBuilder::new().with_http_listener(metrics).install()
}
