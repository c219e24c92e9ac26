//! Consumers as processes of their own, so that their processor time is theirs alone: raw Redis, our lanes without Postgres, and all of ours.

use std::{io::Write, sync::Arc, time::Instant};

use clap::ValueEnum;
use contract::Lane;
use futures::StreamExt;
use harness::{Error, process};
use queue::{Lease, Redis, keys};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

use crate::{
    clock,
    host::{Host, Step},
    raw,
    stores::POOL,
};

/// What is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum What {
    /// Lists of raw Redis.
    Raw,
    /// Lanes, without Postgres.
    Lanes,
    /// Lanes as a host has them: load, start, outcome.
    Whole,
}

/// What a consumer was told to do.
#[derive(Debug, clap::Args)]
pub struct Order {
    /// What it consumes.
    what: What,
    /// Its Postgres.
    database: String,
    /// Its Redis.
    redis: String,
    /// Lanes.
    lanes: usize,
    /// Jobs before anything counts.
    warm: usize,
    /// Jobs that count.
    count: usize,
}

/// What a consumer says at its end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumed {
    /// From the first start that counts to the last end.
    pub seconds: f64,
    /// Its processor time meanwhile.
    pub cpu_seconds: f64,
    /// When which job was started, by [`clock::now`].
    pub started: Vec<(String, u64)>,
}

/// What is told of a job.
enum Told {
    Started(String, Instant),
    Ended,
}

/// Consumes as many as it was told to, and says what that took.
///
/// # Errors
/// The stores'.
pub async fn serve(order: &Order) -> Result<(), Error> {
    let (tell, told) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    match order.what {
        What::Raw => raw_lists(order, &tell, &mut tasks).await?,
        What::Lanes | What::Whole => ours(order, tell, &mut tasks).await?,
    }
    writeln!(std::io::stdout(), "ready")?;
    let consumed = tally(order, told).await?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&consumed)?)?;
    tasks.shutdown().await;
    Ok(())
}

async fn tally(order: &Order, mut told: mpsc::UnboundedReceiver<Told>) -> Result<Consumed, Error> {
    let used = || process::cpu_time(std::process::id()).ok_or("this process uses processor time");
    let (mut seen, mut ended, mut cpu) = (0, 0, used()?);
    let mut started = Vec::with_capacity(order.count);
    while ended < order.warm + order.count {
        match told.recv().await.ok_or("the consumers are gone")? {
            Told::Started(id, at) => {
                if seen == order.warm {
                    cpu = used()?;
                }
                seen += 1;
                if seen > order.warm {
                    started.push((id, clock::at(at)));
                }
            }
            Told::Ended => ended += 1,
        }
    }
    let first = started.first().map_or(0, |(_, at)| *at);
    let seconds = (clock::now() - first) as f64 / 1e9;
    Ok(Consumed { seconds, cpu_seconds: (used()? - cpu).as_secs_f64(), started })
}

async fn raw_lists(order: &Order, tell: &mpsc::UnboundedSender<Told>, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let client = redis::Client::open(order.redis.as_str())?;
    for lane in 0..order.lanes {
        let (mut pop, tell, key) = (raw::blocking(&client).await?, tell.clone(), raw_key(lane));
        tasks.spawn(async move {
            while let Ok((_, text)) = redis::cmd("BRPOP").arg(&key).arg(0).query_async::<(String, String)>(&mut pop).await {
                let at = Instant::now();
                let Ok(job) = serde_json::from_str::<Value>(&text) else { return };
                let _ = tell.send(Told::Started(job["id"].as_str().unwrap_or_default().to_owned(), at));
                let _ = tell.send(Told::Ended);
            }
        });
    }
    Ok(())
}

/// The list of a lane.
pub fn raw_key(lane: usize) -> String {
    format!("raw:{lane}")
}

async fn ours(order: &Order, tell: mpsc::UnboundedSender<Told>, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let (pool, redis) = (store::connect(&order.database, POOL).await?, Redis::connect(&order.redis).await?);
    let (host, mut steps) = Host::start(&pool, &redis).await?;
    if order.what == What::Lanes {
        host.hub.stop_taking();
    }
    host.own_all().await?;
    if order.what == What::Lanes {
        lanes(order, &redis, host.leases(), &tell, tasks).await?;
    }
    tasks.spawn(async move {
        let _host = host;
        while let Some(step) = steps.recv().await {
            let _ = match step {
                Step::Started(job, at) => tell.send(Told::Started(job.to_string(), at)),
                Step::Ended => tell.send(Told::Ended),
                Step::Owned(..) => Ok(()),
            };
        }
    });
    Ok(())
}

/// The part of a hub that talks to Redis: a wake-up, then the same script until the lane is empty. Its own hub listens too, and takes nothing.
async fn lanes(
    order: &Order,
    redis: &Redis,
    leases: Vec<Lease>,
    tell: &mpsc::UnboundedSender<Told>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let mut ears = redis::Client::open(order.redis.as_str())?.get_async_pubsub().await?;
    let mut sleepers = std::collections::HashMap::new();
    for lease in leases {
        let channel = keys::wake(lease.held().tenant(), lease.held().session());
        ears.subscribe(&channel).await?;
        let woken = Arc::new(Notify::new());
        // What is there already woke nobody.
        woken.notify_one();
        sleepers.insert(channel, woken.clone());
        tasks.spawn(drain(redis.clone(), lease, woken, tell.clone()));
    }
    tasks.spawn(async move {
        let mut heard = ears.on_message();
        while let Some(message) = heard.next().await {
            if let Some(sleeper) = sleepers.get(message.get_channel_name()) {
                sleeper.notify_one();
            }
        }
    });
    Ok(())
}

async fn drain(redis: Redis, lease: Lease, woken: Arc<Notify>, tell: mpsc::UnboundedSender<Told>) {
    loop {
        woken.notified().await;
        let mut ended = Vec::new();
        while let Ok(Some(entry)) = lease.take(&redis, Lane::Write, &ended).await {
            let at = Instant::now();
            if !ended.is_empty() {
                let _ = tell.send(Told::Ended);
            }
            let _ = tell.send(Told::Started(entry.clone(), at));
            ended = vec![entry];
        }
        if !ended.is_empty() {
            let _ = tell.send(Told::Ended);
        }
    }
}
