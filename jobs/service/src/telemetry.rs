//! What a service says about itself: JSON lines on stderr (a host's stdout belongs to its guard), numbers on a port of their own.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` is a `tracing` filter (`info`, `api=debug,info`).
///
/// # Errors
/// Where the filter does not parse.
pub fn log(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false).with_env_filter(filter).with_writer(std::io::stderr).init();
    // A panic's message may hold anything; where it was is enough to find it.
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string);
        tracing::error!(at, "panicked");
    }));
    Ok(())
}

/// Serves `/metrics` for Prometheus.
///
/// # Errors
/// Where the address cannot be bound.
pub fn metrics(addr: SocketAddr) -> Result<(), BuildError> {
    const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0];
    PrometheusBuilder::new().with_http_listener(addr).set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?.install()
}
