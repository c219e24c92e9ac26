//! How long sessions are without an owner: after `kill -9` of a host without browsers, and when one leaves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use contract::SessionId;
use futures::{StreamExt, TryStreamExt, stream};
use harness::{
    Error,
    process::{Process, Signal},
    until,
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    clock,
    host::{Host, Step},
    member::{self, Left},
    report::{Latencies, Report, median},
    stores::Stores,
};

/// Hosts that are killed, or leave, one after the other.
const ROUNDS: usize = 5;
/// How far apart in the rhythm of renewals and looks their ends are: from all at once nothing would follow for other moments.
const APART: Duration = Duration::from_millis(1300);
/// Far more than any of it takes.
const WITHIN: Duration = Duration::from_secs(60);

/// Measures both.
///
/// # Errors
/// What kept it from measuring.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    for sessions in [100, 500] {
        killed(report, sessions).await?;
        left(report, sessions).await?;
    }
    Ok(())
}

/// A host that owns sessions as a process of its own, and another that waits for them in this one.
struct Pair {
    stores: Arc<Stores>,
    sessions: Vec<SessionId>,
    old: Process,
    steps: mpsc::UnboundedReceiver<Step>,
    _placing: JoinSet<()>,
}

impl Pair {
    async fn start(stores: &Arc<Stores>, sessions: usize) -> Result<Self, Error> {
        stores.retire_sessions().await?;
        let all = stores.sessions(sessions).await?;
        let old = stores.again("host", &member::arguments(&stores.postgres.url(), &stores.server.url()))?;
        until("an owner for each session", WITHIN, || async { (stores.owned().await.ok()? == sessions).then_some(()) }).await;
        let (host, steps) = Host::start(&stores.pool, &stores.redis).await?;
        let mut placing = JoinSet::new();
        placing.spawn(member::place(Arc::new(host)));
        Ok(Self { stores: stores.clone(), sessions: all, old, steps, _placing: placing })
    }

    /// When each lease runs out, by [`clock::now`].
    async fn ends(&self) -> Result<HashMap<SessionId, u64>, Error> {
        let mut redis = redis::Client::open(self.stores.server.url())?.get_multiplexed_async_connection().await?;
        let mut ask = redis::pipe();
        for session in &self.sessions {
            ask.cmd("PTTL").arg(queue::keys::lease(self.stores.tenant, *session));
        }
        let left: Vec<i64> = ask.query_async(&mut redis).await?;
        let now = clock::now();
        Ok(self.sessions.iter().copied().zip(left.into_iter().map(|ms| now + u64::try_from(ms).unwrap_or(0) * 1_000_000)).collect())
    }

    /// A job for each.
    async fn jobs(&self) -> Result<HashMap<contract::JobId, SessionId>, Error> {
        stream::iter(&self.sessions)
            .map(|session| async move {
                let job = self.stores.job(*session);
                queue::accept_and_push(&self.stores.pool, &self.stores.redis, &job, None).await?;
                Ok::<_, Error>((job.id, *session))
            })
            .buffer_unordered(8)
            .try_collect()
            .await
    }
}

/// Moments of each session, by [`clock::now`].
type Moments = HashMap<SessionId, u64>;

fn since(later: &Moments, earlier: impl Fn(&SessionId) -> u64) -> Vec<Duration> {
    later.iter().map(|(session, at)| Duration::from_nanos(at.saturating_sub(earlier(session)))).collect()
}

fn span_ms(first: &Moments, last: &Moments) -> f64 {
    let (first, last) = (first.values().min().copied().unwrap_or(0), last.values().max().copied().unwrap_or(0));
    Duration::from_nanos(last.saturating_sub(first)).as_secs_f64() * 1e3
}

async fn killed(report: &mut Report, sessions: usize) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let (mut owned, mut started, mut owned_late, mut started_late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut looked, mut spans) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut pair = Pair::start(&stores, sessions).await?;
        tokio::time::sleep(APART * u32::try_from(round)?).await;
        pair.old.signal(Signal::KILL);
        let at = clock::now();
        let ends = pair.ends().await?;
        let jobs = pair.jobs().await?;
        let (owners, starts) = taken(&mut pair.steps, sessions, &jobs).await?;
        owned.extend(since(&owners, |_| at));
        started.extend(since(&starts, |_| at));
        let ended = |session: &SessionId| ends.get(session).copied().unwrap_or(0);
        owned_late.extend(since(&owners, ended));
        started_late.extend(since(&starts, ended));
        let last = ends.values().max().copied().unwrap_or(0);
        looked.push(Duration::from_nanos(owners.values().min().copied().unwrap_or(0).saturating_sub(last)).as_secs_f64() * 1e3);
        spans.push(span_ms(&owners, &starts));
    }
    let mut both = |what: &str, all: Vec<Duration>| {
        let all = Latencies::from(all);
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            report.note(&format!("kill -9 of a host with {sessions} sessions: {what}, {name}"), "ms", all.ms(share));
        }
    };
    both("kill to the next owner", owned);
    both("kill to the start of the next job", started);
    both("end of the lease to the next owner", owned_late);
    both("end of the lease to the start of the next job", started_late);
    let who = format!("kill -9 of a host with {sessions} sessions");
    report.note(&format!("{who}: from the last lease's end to the first claim that succeeds, median of {ROUNDS}"), "ms", median(looked));
    report.note(&format!("{who}: from the first claim to the last session's job, median of {ROUNDS}"), "ms", median(spans));
    Ok(())
}

async fn taken(
    steps: &mut mpsc::UnboundedReceiver<Step>,
    sessions: usize,
    jobs: &HashMap<contract::JobId, SessionId>,
) -> Result<(Moments, Moments), Error> {
    let (mut owners, mut starts) = (Moments::new(), Moments::new());
    while owners.len() < sessions || starts.len() < sessions {
        match tokio::time::timeout(WITHIN, steps.recv()).await?.ok_or("the host ended")? {
            Step::Owned(session, at) => drop(owners.insert(session, clock::at(at))),
            Step::Started(job, at) => drop(jobs.get(&job).and_then(|session| starts.insert(*session, clock::at(at)))),
            Step::Ended => {}
        }
    }
    Ok((owners, starts))
}

async fn left(report: &mut Report, sessions: usize) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let (mut gaps, mut all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut pair = Pair::start(&stores, sessions).await?;
        pair.old.signal(Signal::TERM);
        let told = clock::now();
        let mut owners = Moments::new();
        while owners.len() < sessions {
            if let Step::Owned(session, at) = tokio::time::timeout(WITHIN, pair.steps.recv()).await?.ok_or("the host ended")? {
                owners.insert(session, clock::at(at));
            }
        }
        pair.old.wait(WITHIN).await.ok_or("the host does not leave")?;
        let said = pair.old.log();
        let left: Left = serde_json::from_str(said.lines().last().unwrap_or_default())?;
        let released: Moments = left.released.into_iter().collect();
        gaps.extend(since(&owners, |session| released.get(session).copied().unwrap_or(0)));
        all.extend(since(&owners, |_| told));
    }
    let (gaps, all) = (Latencies::from(gaps), Latencies::from(all));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let who = format!("SIGTERM to a host with {sessions} sessions");
        report.note(&format!("{who}: from let go of to the next owner, {name}"), "ms", gaps.ms(share));
        report.note(&format!("{who}: from the signal to the next owner, {name}"), "ms", all.ms(share));
    }
    Ok(())
}
