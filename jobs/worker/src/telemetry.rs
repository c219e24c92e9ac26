//! Logs as JSON lines on stderr, numbers for Prometheus.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Starts the log. `filter` is a `tracing` filter (`info`, `worker=debug,info`).
///
/// # Errors
/// Where the filter does not parse.
pub fn log(filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false).with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

/// Starts counting.
///
/// # Errors
/// Where something counts already.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    const SECONDS: [f64; 8] = [0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?.install_recorder()
}
