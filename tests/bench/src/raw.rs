//! The least that moves a job: a list in Redis, and one row in Postgres.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{Error, Folder};
use tokio::task::JoinSet;

use crate::report::Latencies;

/// Pushes and pops one entry at a time: from before the push until the popper has it.
///
/// # Errors
/// Redis' own.
pub async fn redis_latency(url: &str, count: usize) -> Result<Latencies, Error> {
    let client = redis::Client::open(url)?;
    let (mut push, mut pop) = (client.get_multiplexed_async_connection().await?, blocking(&client).await?);
    let (popped, mut pops) = tokio::sync::mpsc::unbounded_channel();
    let popper = tokio::spawn(async move {
        for _ in 0..count {
            let (_, _): (String, String) = redis::cmd("BRPOP").arg("raw").arg(0).query_async(&mut pop).await?;
            let _ = popped.send(Instant::now());
        }
        Ok::<_, redis::RedisError>(())
    });
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        let began = Instant::now();
        redis::cmd("LPUSH").arg("raw").arg(n).exec_async(&mut push).await?;
        all.push(pops.recv().await.ok_or("the popper ended")? - began);
    }
    popper.await??;
    Ok(all.into())
}

/// Entries a second through `lanes` lists, each with a pusher and a popper of its own.
///
/// # Errors
/// Redis' own.
pub async fn redis_throughput(url: &str, lanes: usize, each: usize) -> Result<f64, Error> {
    let client = Arc::new(redis::Client::open(url)?);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        let client = client.clone();
        tasks.spawn(async move {
            let (mut push, mut pop) = (client.get_multiplexed_async_connection().await?, blocking(&client).await?);
            let key = format!("raw:{lane}");
            let pushing = async {
                for n in 0..each {
                    redis::cmd("LPUSH").arg(&key).arg(n).exec_async(&mut push).await?;
                }
                Ok::<_, redis::RedisError>(())
            };
            let popping = async {
                for _ in 0..each {
                    let (_, _): (String, String) = redis::cmd("BRPOP").arg(&key).arg(0).query_async(&mut pop).await?;
                }
                Ok(())
            };
            tokio::try_join!(pushing, popping).map(drop)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((lanes * each) as f64 / began.elapsed().as_secs_f64())
}

/// A connection whose answers may take for ever.
///
/// # Errors
/// Redis' own.
pub async fn blocking(client: &redis::Client) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// What pgbench says of single-row inserts.
#[derive(Debug, Clone, Copy)]
pub struct Inserts {
    /// Mean latency in milliseconds.
    pub ms: f64,
    /// Inserts a second.
    pub per_second: f64,
}

const TABLE: &str = "create table if not exists bench_row (id uuid primary key, session uuid not null, body text not null,
                     at timestamptz not null default clock_timestamp())";
const INSERT: &str = "insert into bench_row (id, session, body) values (gen_random_uuid(), gen_random_uuid(), 'a text of some length');\n";

/// Runs pgbench's own loop over one insert, prepared, with so many clients.
///
/// # Errors
/// What pgbench said.
pub async fn pgbench(pool: &sqlx::PgPool, url: &str, clients: usize, seconds: u64) -> Result<Inserts, Error> {
    sqlx::query(TABLE).execute(pool).await?;
    let folder = Folder::new(harness::User::find()?)?;
    let script = folder.path().join("insert.sql");
    std::fs::write(&script, INSERT)?;
    let mut pgbench = tokio::process::Command::new("pgbench");
    pgbench.args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", "2", "-T", &seconds.to_string(), "-f"]);
    let done = tokio::time::timeout(
        Duration::from_secs(seconds + 20),
        pgbench.arg(&script).arg(url).stdin(Stdio::null()).kill_on_drop(true).output(),
    );
    let output = done.await??;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = |name: &str| {
        let rest = said.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    match (number("latency average = "), number("tps = ")) {
        (Some(ms), Some(per_second)) => Ok(Inserts { ms, per_second }),
        _ => Err(format!("pgbench: {said}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
