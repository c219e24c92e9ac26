//! The process: what it opens, and in which order it ends.

use std::{error::Error, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    hooks::{
        connect::Connector,
        desk::{self, Desk},
    },
    probes::{self, Probed},
    queue::{self, Carrier},
    schedule,
    tasks::Tools,
};

/// How long an ending process waits for the tasks that run. What is cut off runs again elsewhere.
const GRACE: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting; the variable is named.
pub async fn run(config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (sealer, objects) = (Arc::new(config.check()?), config.objects.open()?);
    service::telemetry::log(&config.rust_log).map_err(|why| format!("RUST_LOG: {why}"))?;
    let metrics = probes::count()?;
    let pool =
        store::connect(config.database_url.expose_secret(), config.database_pool).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    let url = config.redis_url.expose_secret();
    let redis = ::queue::Redis::connect(url).await.map_err(|why| format!("REDIS_URL: {why}"))?.with_firehose_bodies(config.firehose_bodies);
    let carrier = Carrier::new(url, &config.schedule).map_err(|why| format!("REDIS_URL: {why}"))?;
    let listener = TcpListener::bind(config.metrics_addr).await.map_err(|why| format!("METRICS_ADDR: {}: {why}", config.metrics_addr))?;

    let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
    let probed = Probed { pool: pool.clone(), redis: redis.clone(), metrics, stopping: stopping.clone() };
    let serving = tasks.spawn(async move {
        if let Err(why) = axum::serve(listener, probes::router(probed)).await {
            tracing::error!(cause = %why, "probes are not served");
        }
    });
    let (days, streams_kept, exports_kept) = (config.days(), config.streams_kept(), config.exports_kept());
    let https_only = config.zaguan_env.is_production();
    let connector = Connector::new(config.webhook_allow, https_only, config.webhook_timings.connect_within());
    let news = ::queue::hooks::listen(&redis, &tasks).map_err(|why| format!("REDIS_URL: {why}"))?;
    let desk = Desk::new((pool.clone(), redis.clone()), (connector, sealer.clone()), config.webhook_timings, tasks.clone());
    let telling = tasks.spawn(desk::run(desk, news, stopping.clone()));
    let tools = Tools { pool, redis, carrier, days, streams_kept, objects, sealer, exports_kept };
    let releasing = tasks.spawn(schedule::release(tools.clone(), config.schedule.clone(), stopping.clone()));
    let working = tasks.spawn(queue::work(tools, config.schedule, stopping.clone()));
    tracing::info!(address = %config.metrics_addr, "worker started");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
    }
    stopping.cancel();
    let ended = async { tokio::join!(releasing, working, telling) };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("tasks were still running at the end: they run again");
    }
    serving.abort();
    Ok(())
}
