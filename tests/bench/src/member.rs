//! A host without browsers as a process of its own, which lives among others: heartbeats, claims and hand-over as `zaguan-host` has them.

use std::{io::Write, sync::Arc, time::Duration};

use contract::{HostId, SessionId, Timings};
use futures::{StreamExt, stream};
use harness::Error;
use queue::{
    Redis,
    hosts::{self, HostRecord},
};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{clock, host::Host, stores::POOL};

/// More than it will own.
const SLOTS: usize = 10_000;
/// As in `placement.rs`.
const SOONEST: Duration = Duration::from_millis(25);

/// What it says when it has left: when it let go of which session, by [`clock::now`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Left {
    /// A moment a session.
    pub released: Vec<(SessionId, u64)>,
}

/// Runs one until it is told to leave.
///
/// # Errors
/// The stores'.
pub async fn serve(database: &str, redis: &str) -> Result<(), Error> {
    let (pool, redis) = (store::connect(database, POOL).await?, Redis::connect(redis).await?);
    let mut terminate = signal(SignalKind::terminate())?;
    let (host, mut steps) = Host::start(&pool, &redis).await?;
    let host = Arc::new(host);
    let mut placing = JoinSet::new();
    placing.spawn(place(host.clone()));
    placing.spawn(reconcile(host.clone()));
    placing.spawn(async move { while steps.recv().await.is_some() {} });
    terminate.recv().await;
    placing.shutdown().await;
    hosts::heartbeat(&redis, host.id, &HostRecord::LEAVING, Timings::default().host_stale()).await?;
    host.hub.stop_taking();
    host.hub.idle().await;
    let leases = host.leases();
    let releases = leases.iter().map(|lease| async {
        let session = lease.held().session();
        let last = clock::now();
        host.hub.release(session).await.map(|()| (session, last))
    });
    let released = stream::iter(releases).buffer_unordered(SLOTS).collect::<Vec<_>>().await;
    let left = Left { released: released.into_iter().collect::<Result<_, _>>()? };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&left)?)?;
    Ok(())
}

/// Claims what is free, when it is called and at every heartbeat: the loop of the real host's `placement.rs`, without ranks, because whoever
/// runs beside it here leaves or dies.
pub async fn place(host: Arc<Host>) {
    let live = watch::Sender::new(Vec::new());
    tokio::join!(heart(&host, &live), claim(&host, live.subscribe()));
}

async fn heart(host: &Host, live: &watch::Sender<Vec<HostId>>) {
    let timings = Timings::default();
    let mut every = tokio::time::interval(timings.heartbeat_every());
    loop {
        every.tick().await;
        let record = HostRecord { slots: SLOTS, used: host.leases().len(), draining: false, browser: i32::MAX };
        if let Ok(hosts) = hosts::heartbeat(&host.redis, host.id, &record, timings.host_stale()).await {
            live.send_replace(hosts);
        }
    }
}

async fn claim(host: &Host, mut live: watch::Receiver<Vec<HostId>>) {
    let mut wanted = hosts::wanted_changes(&host.redis).await;
    let mut again = None::<Instant>;
    loop {
        let called = tokio::select! {
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => Vec::new(),
            beat = live.changed() => if beat.is_err() { return } else { Vec::new() },
            called = wanted.changed() => called,
        };
        again = None;
        let others: Vec<_> = live.borrow_and_update().iter().copied().filter(|id| *id != host.id).collect();
        let held: Vec<_> = host.leases().iter().map(|lease| *lease.held()).collect();
        let _ = store::leases::still_held(&host.pool, &held).await;
        let Ok(free) = store::leases::claimable(&host.pool, &others, &called, i32::MAX).await else { continue };
        let free: Vec<_> = free.into_iter().filter(|claim| !held.iter().any(|held| held.session() == claim.session)).collect();
        if free.is_empty() || hosts::live(&host.redis, Timings::default().host_stale()).await.is_err() {
            continue;
        }
        again = host.claim(&free).await.ok().flatten().map(|left| Instant::now() + left.max(SOONEST));
    }
}

async fn reconcile(host: Arc<Host>) {
    let (timings, mut seen) = (Timings::default(), queue::reconcile::Seen::default());
    loop {
        let _ = queue::reconcile::round(&host.pool, &host.redis, &mut seen).await;
        let _ = queue::tidy::round(&host.pool, &host.redis, &timings).await;
        tokio::time::sleep(timings.reconcile_every()).await;
    }
}

/// What starts one.
pub fn arguments(database: &str, redis: &str) -> Vec<String> {
    ["host", database, redis].map(str::to_owned).into()
}
