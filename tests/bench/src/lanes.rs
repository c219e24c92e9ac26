//! From acceptance to start, and jobs a second through lanes: `queue` as host and API use it, with a handler that records.

use std::{sync::Arc, time::Instant};

use contract::SessionId;
use futures::{StreamExt, stream};
use harness::Error;
use tokio::sync::mpsc;

use crate::{
    host::{Host, Step},
    raw,
    report::{Latencies, Report, median},
    stores::Stores,
};

/// Alternating rounds of ours and theirs.
const ROUNDS: usize = 3;
/// Jobs one after the other, a round.
const ALONE: usize = 500;
/// Lanes side by side, and jobs in each, a round.
const LANES: usize = 16;
const EACH: usize = 100;
/// Seconds of pgbench, a round.
const SECONDS: u64 = 3;

/// Measures both.
///
/// # Errors
/// What the stores or pgbench said.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let sessions = stores.sessions(LANES).await?;
    let (host, mut steps) = Host::start(&stores.pool, &stores.redis).await?;
    host.own_all().await?;
    // Statements are prepared and connections made before anything counts.
    throughput(&stores, &sessions, 20, &mut steps).await?;
    latency(report, &stores, sessions[0], &mut steps).await?;

    let (mut accepts, mut ours, mut redis, mut inserts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (accepted, ended) = throughput(&stores, &sessions, EACH, &mut steps).await?;
        accepts.push(accepted);
        ours.push(ended);
        redis.push(raw::redis_throughput(&stores.server.url(), LANES, EACH * 10).await?);
        inserts.push(raw::pgbench(&stores.pool, &stores.postgres.url(), LANES, SECONDS).await?.per_second);
    }
    let (redis, inserts) = (median(redis), median(inserts));
    report.beside(
        "jobs accepted (16 at once, lanes running beside)",
        "jobs/s",
        median(accepts),
        "pgbench single-row insert, 16 clients",
        inserts,
    );
    let ours = median(ours);
    report.beside("jobs through 16 lanes: accept, start, outcome", "jobs/s", ours, "pgbench single-row insert, 16 clients", inserts);
    report.beside("jobs through 16 lanes: accept, start, outcome", "jobs/s", ours, "raw Redis list, 16 lanes", redis);
    Ok(())
}

async fn latency(
    report: &mut Report,
    stores: &Arc<Stores>,
    session: SessionId,
    steps: &mut mpsc::UnboundedReceiver<Step>,
) -> Result<(), Error> {
    let (mut starts, mut accepts, mut raw_ms, mut raw_tail, mut insert) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut accept = Vec::new();
        let mut start = Vec::new();
        for _ in 0..ALONE {
            let job = stores.job(session);
            let began = Instant::now();
            queue::accept_and_push(&stores.pool, &stores.redis, &job, None).await?;
            accept.push(began.elapsed());
            loop {
                match steps.recv().await.ok_or("the worker ended")? {
                    Step::Started(id, at) if id == job.id => start.push(at - began),
                    Step::Started(..) | Step::Owned(..) => {}
                    Step::Ended => break,
                }
            }
        }
        accepts.push(Latencies::from(accept).mean_ms());
        starts.push(Latencies::from(start));
        let raw = raw::redis_latency(&stores.server.url(), ALONE).await?;
        raw_ms.push(raw.ms(0.5));
        raw_tail.push(raw.ms(0.99));
        insert.push(raw::pgbench(&stores.pool, &stores.postgres.url(), 1, SECONDS).await?.ms);
    }
    let of = |share: f64| median(starts.iter().map(|s| s.ms(share)).collect());
    let mean = median(starts.iter().map(Latencies::mean_ms).collect());
    report.beside("accept to start, p50", "ms", of(0.5), "raw Redis push to pop", median(raw_ms));
    report.beside("accept to start, p99", "ms", of(0.99), "raw Redis push to pop", median(raw_tail));
    let insert = median(insert);
    report.beside("accept to start, mean", "ms", mean, "pgbench single-row insert, 1 client", insert);
    report.beside("accept and push, mean", "ms", median(accepts), "pgbench single-row insert, 1 client", insert);
    Ok(())
}

/// Accepts `each` jobs a session, all sessions at once and one after the other within each; answers accepted and ended jobs a second.
async fn throughput(
    stores: &Arc<Stores>,
    sessions: &[SessionId],
    each: usize,
    steps: &mut mpsc::UnboundedReceiver<Step>,
) -> Result<(f64, f64), Error> {
    let began = Instant::now();
    let accepting = stream::iter(sessions)
        .map(|session| async move {
            for _ in 0..each {
                queue::accept_and_push(&stores.pool, &stores.redis, &stores.job(*session), None).await?;
            }
            Ok::<_, store::StoreError>(Instant::now())
        })
        .buffer_unordered(sessions.len())
        .collect::<Vec<_>>();
    let ending = async {
        let mut ended = 0;
        while ended < sessions.len() * each {
            match steps.recv().await {
                Some(Step::Ended) => ended += 1,
                Some(Step::Started(..) | Step::Owned(..)) => {}
                None => return Err("the worker ended"),
            }
        }
        Ok(())
    };
    let (accepted, ended) = tokio::join!(accepting, ending);
    ended?;
    let finished = began.elapsed();
    let mut last = began;
    for at in accepted {
        last = last.max(at?);
    }
    let all = (sessions.len() * each) as f64;
    Ok((all / (last - began).as_secs_f64(), all / finished.as_secs_f64()))
}
