//! Which sessions are ours: leases, placement, drain.

mod placement;
mod renewal;
mod roster;
mod sweep;
mod watch;

use std::{sync::Arc, time::Duration};

use contract::{HostId, SessionId};
use queue::{Hub, LaneBackend, Redis, hosts::HostRecord};
use secrecy::ExposeSecret;
use store::lane_jobs::LaneJob;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch as channel},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    browser::{BrowserConfig, BrowserEnv, BrowserTimings, end_leftovers},
    config::Config,
    guard::GuardPipe,
    session::{self, Ending, Services},
};
use roster::Roster;

/// Browsers that start at the same time on one host.
const STARTS_AT_ONCE: usize = 2;

/// How long a claim that is under way may take when the host leaves.
const CLAIM_WITHIN: Duration = Duration::from_secs(8);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs a host until it is told to leave, or its guard is gone.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config) -> Result<(), Error> {
    let pipe = Arc::new(GuardPipe::open()?);
    service::telemetry::log(&config.rust_log).map_err(|why| format!("RUST_LOG: {why}"))?;
    service::telemetry::metrics(config.metrics_addr).map_err(|why| format!("METRICS_ADDR: {why}"))?;
    let timings = Arc::new(config.timings()?);
    let browsers = BrowserEnv::check(BrowserConfig {
        chromium: config.chromium_bin.clone(),
        chromedriver: config.chromedriver_bin.clone(),
        extra_args: config.chromium_args()?,
        data_dir: config.host_data_dir.clone(),
        timings: BrowserTimings { beat: timings.page_beat(), ready_within: timings.page_ready_within(), ..BrowserTimings::default() },
    })
    .await?;
    let ended = end_leftovers(&config.host_data_dir).await?;
    if !ended.is_empty() {
        tracing::warn!(count = ended.len(), "ended browsers of an earlier host");
    }
    let pool = store::connect(config.database_url.expose_secret(), 10).await?;
    let redis = Redis::connect(config.redis_url.expose_secret()).await?.with_firehose_bodies(config.firehose_bodies);
    let (id, tasks) = (HostId::new(), TaskTracker::new());
    let (hub, backend) = Hub::start(redis.clone(), pool.clone(), id, (*timings).clone(), tasks.clone()).await?;
    let (sealer, objects) = config.safe()?;
    let sealer = Arc::new(sealer);
    let services =
        Services { pool, redis, hub, browsers, timings, objects, sealer, starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)), tasks };
    let roster = Arc::new(Roster::new(services.clone(), config.host_slots));
    tracing::info!(host = %id, slots = config.host_slots, browser = services.browsers.version(), "host started");

    let stopping = CancellationToken::new();
    let worker = services.tasks.spawn(work(services.hub.clone(), backend, roster.clone(), id));
    let renewal = renewal::start(services.clone(), roster.clone(), pipe.clone())?;
    let live = channel::Sender::new(None);
    let placing = placement::run(services.clone(), roster.clone(), id, live.subscribe(), stopping.clone());
    let mut placing = services.tasks.spawn(placing);
    let beating = services.tasks.spawn(placement::heart(services.clone(), roster.clone(), id, stopping.clone(), live));
    let reconciling = services.tasks.spawn(reconcile(services.clone(), stopping.clone()));
    let sweeping = services.tasks.spawn(sweep::run(services.clone()));
    let watching = services.tasks.spawn(watch::run(services.clone(), roster.clone(), config.recycle_above_mb));

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("leaving: SIGTERM"),
        _ = interrupt.recv() => tracing::info!("leaving: SIGINT"),
        () = pipe.guard_gone() => tracing::error!("leaving: the guard is gone"),
    }
    stopping.cancel();
    // A claim under way is finished and then drained like the others; cut off, its lease would be renewed for nobody.
    let _ = tokio::time::timeout(CLAIM_WITHIN, &mut placing).await;
    drain(&services, &roster, id).await;
    for task in [worker, placing, beating, reconciling, sweeping, watching] {
        task.abort();
    }
    renewal.stop();
    Ok(())
}

/// The apalis worker over the lanes: one a host, for all its sessions.
async fn work(hub: Arc<Hub>, backend: LaneBackend, roster: Arc<Roster>, id: HostId) {
    let handler = move |session: SessionId, job: Arc<LaneJob>| {
        let roster = roster.clone();
        async move {
            match roster.get(session) {
                Some(shared) => session::execute(shared, job).await,
                None => queue::Done::Again,
            }
        }
    };
    hub.worker(backend, format!("host-{id}"), handler).await;
}

/// One round at a time over all hosts: what a wake-up missed.
async fn reconcile(services: Services, stopping: CancellationToken) {
    let mut seen = queue::reconcile::Seen::default();
    loop {
        if let Err(error) = queue::reconcile::round(&services.pool, &services.redis, &mut seen).await {
            tracing::warn!(%error, "reconciliation round failed");
        }
        if let Err(error) = queue::tidy::round(&services.pool, &services.redis, &services.timings).await {
            tracing::warn!(%error, "sessions without an owner not tidied up");
        }
        tokio::select! {
            () = tokio::time::sleep(services.timings.reconcile_every()) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Stop taking, finish what runs, close browsers cleanly, hand over.
async fn drain(services: &Services, roster: &Roster, id: HostId) {
    if let Err(error) = queue::hosts::heartbeat(&services.redis, id, &HostRecord::LEAVING, services.timings.host_stale()).await {
        tracing::debug!(%error, "no farewell");
    }
    services.hub.stop_taking();
    let all = async {
        let jobs = services.hub.idle();
        if tokio::time::timeout(services.timings.drain_jobs_within(), jobs).await.is_err() {
            tracing::warn!("jobs still running: they are settled by the next owner");
        }
        roster.end_all(Ending::Drain);
        roster.empty().await;
    };
    if tokio::time::timeout(services.timings.drain_within(), all).await.is_err() {
        tracing::warn!("drain took too long");
        roster.end_all(Ending::Fence);
        let _ = tokio::time::timeout(Duration::from_secs(2), roster.empty()).await;
    }
}
