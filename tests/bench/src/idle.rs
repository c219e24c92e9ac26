//! What idle sessions cost: counted by Redis itself.

use std::{collections::BTreeMap, time::Duration};

use harness::{Error, until};
use redis::FromRedisValue;

use crate::{
    report::Report,
    stores::{Host, Step, Stores},
};

const SESSIONS: usize = 1000;
/// Three renewals.
const FOR: Duration = Duration::from_secs(10);
/// What a renewal consists of; `info` is our own question.
const RENEWAL: [&str; 4] = ["eval", "get", "pexpire", "info"];

/// Counts for a while.
///
/// # Errors
/// What the stores said.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let sessions = stores.sessions(SESSIONS).await?;
    let (host, mut steps) = Host::start(&stores).await?;
    host.own_all(&stores).await?;
    // Every lane has been looked at when a job behind each has ended.
    for session in &sessions {
        queue::accept_and_push(&stores.pool, &stores.redis, &stores.job(*session), None).await?;
    }
    let mut ended = 0;
    while ended < SESSIONS {
        ended += usize::from(matches!(steps.recv().await.ok_or("the worker ended")?, Step::Ended));
    }
    until("an idle host", Duration::from_secs(20), || async { tokio::time::timeout(Duration::from_millis(1), host.hub.idle()).await.ok() })
        .await;
    let before = calls(&stores).await?;
    tokio::time::sleep(FOR).await;
    let after = calls(&stores).await?;
    let grown = |renewal: bool| -> u64 {
        let new = after.iter().map(|(name, n)| (name, n - before.get(name).copied().unwrap_or(0)));
        new.filter(|(name, _)| RENEWAL.contains(&name.as_str()) == renewal).map(|(_, n)| n).sum()
    };
    report.note("Redis commands of 1,000 idle sessions in 10 s, renewals aside", "commands", grown(false) as f64);
    report.note("of their renewals, in 10 s (EVAL, GET, PEXPIRE)", "commands", grown(true) as f64);
    Ok(())
}

async fn calls(stores: &Stores) -> Result<BTreeMap<String, u64>, Error> {
    let info = String::from_redis_value(stores.server.command(&["INFO", "commandstats"]).await)?;
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    // Each look makes a connection of its own, which introduces itself.
    Ok(info.lines().filter_map(calls).filter(|(name, _)| !name.starts_with("client|") && name != "hello").collect())
}
