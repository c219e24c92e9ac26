//! The process that serves: what it opens, and in which order it ends.

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::Router;
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{auth, config::Serve, cors::Origins, state::AppState};

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// How long an ending process waits for answers and for accepted work.
const GRACE: Duration = Duration::from_secs(30);

/// Opens the stores. A bad start names the variable.
///
/// # Errors
/// What is missing or wrong.
pub async fn state(config: &Serve) -> Result<AppState, Box<dyn Error + Send + Sync>> {
    // The first line of every main: clients of TLS find this provider, tokens find theirs.
    let _ = rustls::crypto::ring::default_provider().install_default();
    auth::install();
    config.check_secrets()?;
    let keys = (config.tokens()?, config.master.sealer(config.zaguan_env)?);
    let url = config.database_url.expose_secret();
    let pool = match config.lambda {
        // A function starts once a caller waits; it finds out then.
        Some(_) => store::connect_lazy(url, config.database_pool),
        None => store::connect(url, config.database_pool).await,
    };
    let pool = pool.map_err(|why| format!("DATABASE_URL: {why}"))?;
    let redis = queue::Redis::connect(config.redis_url.expose_secret())
        .await
        .map_err(|why| format!("REDIS_URL: {why}"))?
        .with_firehose_bodies(config.firehose_bodies);
    let proxies = auth::address::TrustedProxies::read(&config.trusted_proxies).map_err(|why| format!("TRUSTED_PROXIES: {why}"))?;
    let origins = Origins::read(&config.cors_origins).map_err(|why| format!("CORS_ORIGINS: {why}"))?;
    let webhook_urls = config.webhook_urls()?.into();
    Ok(AppState {
        origins,
        objects: config.objects.open()?,
        webhook_urls,
        on_lambda: config.lambda.is_some(),
        proxies,
        ..AppState::new(pool, redis, keys, config.timings.clone())
    })
}

/// Serves over TCP until SIGTERM or SIGINT: no new connection, held requests answered, then what was accepted finished.
///
/// # Errors
/// Where an address cannot be bound.
pub async fn container(config: &Serve, app: Router, state: AppState) -> Done {
    service::telemetry::metrics(config.metrics_addr).map_err(|why| format!("METRICS_ADDR: {why}"))?;
    let listener = TcpListener::bind(config.api_addr).await.map_err(|why| format!("API_ADDR: {}: {why}", config.api_addr))?;
    tracing::info!(address = %config.api_addr, "serving");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = state.stopping.clone();
    let asked = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopping.cancel();
    };
    let served = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).with_graceful_shutdown(asked);
    let late = async {
        state.stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        done = served => done?,
        () = late => tracing::warn!("connections were still open at the end"),
    }
    state.tasks.close();
    if tokio::time::timeout(GRACE, state.tasks.wait()).await.is_err() {
        tracing::warn!("tasks were still running at the end");
    }
    Ok(())
}
