//! `make bench`: ours beside the least that could do the same, in one run on one machine. Only ratios of one run mean anything.

mod api;
mod bare;
mod browser;
mod cdp;
mod clock;
mod consume;
mod fanout;
mod fleet;
mod hooks;
mod host;
mod idle;
mod lag;
mod lanes;
mod lanes_beside;
mod latency;
mod leases;
mod load;
mod member;
mod node;
mod produce;
mod raw;
mod report;
mod stores;
mod takeover;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use harness::{Error, Settings, Stack};

use crate::report::Report;

/// Side-by-side benchmarks, results as ratios.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Only these parts; all of the first group where none is named.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Where the results go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Accepting, starting and ending jobs, beside a raw Redis loop and pgbench.
    Lanes,
    /// The API, beside a bare axum + JWT + EVALSHA handler.
    Api,
    /// Sending through the browser, beside wa-js called from a bare CDP client.
    Browser,
    /// What a thousand idle sessions cost.
    Idle,
    /// Telling webhooks, beside a bare HTTP client.
    Hooks,
    /// A tenant's webhook while another tenant's is down, hangs, or catches up.
    Lag,
    /// One event and a thousand clients, beside a bare socket.io (Node).
    Fanout,
    /// From a phone's message to a webhook and a stream, beside wa-js telling a bare CDP client.
    Latency,
    /// The queue's own (`make bench-queue`): how long sessions are without an owner when a host without browsers is killed or leaves.
    Takeover,
    /// The same of hosts with browsers, until they work again.
    Fleet,
    /// Lanes beside BullMQ (Node) and raw Redis.
    Beside,
    /// What a thousand and five thousand leases cost.
    Leases,
}

#[derive(Subcommand)]
enum Command {
    /// The bare handler that the API is compared with, as a process of its own.
    Bare {
        /// Where it listens.
        addr: SocketAddr,
        /// Its Redis.
        redis: String,
        /// The public key of the tokens, base64.
        key: String,
    },
    /// The least that can receive webhooks.
    Receive {
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The least that could send them.
    Post {
        /// Where to.
        addr: SocketAddr,
        /// Over how many connections.
        connections: i64,
    },
    /// A host without browsers.
    Host {
        /// Its Postgres.
        database: String,
        /// Its Redis.
        redis: String,
    },
    /// A consumer of jobs.
    Consume(consume::Order),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Command::Bare { addr, redis, key }) => bare::serve(*addr, redis, key).await,
        Some(Command::Receive { addr }) => hooks::receive(*addr).await,
        Some(Command::Post { addr, connections }) => hooks::post(*addr, *connections).await,
        Some(Command::Host { database, redis }) => member::serve(database, redis).await,
        Some(Command::Consume(order)) => consume::serve(order).await,
        None => run(&args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zaguan-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let mut report = Report::default();
    if wanted(Part::Lanes) {
        lanes::measure(&mut report).await?;
    }
    if wanted(Part::Idle) {
        idle::measure(&mut report).await?;
    }
    if wanted(Part::Hooks) {
        hooks::measure(&mut report).await?;
    }
    if wanted(Part::Lag) {
        lag::measure(&mut report).await?;
    }
    if wanted(Part::Fanout) {
        let stack = Stack::with(Settings { timings: "{}".into(), faults: false, ..Settings::default() }).await?;
        fanout::measure(&stack, &mut report).await?;
    }
    if wanted(Part::Latency) {
        let mut stack = Stack::with(Settings { timings: "{}".into(), faults: false, ..Settings::default() }).await?;
        latency::measure(&mut stack, &mut report).await?;
    }
    if wanted(Part::Api) || wanted(Part::Browser) {
        let mut stack = Stack::with(Settings { timings: "{}".into(), faults: false, ..Settings::default() }).await?;
        // Loads here are beyond what a tenant may have.
        stack.postgres.sql("update usage_limit set value = 1000000000");
        if wanted(Part::Api) {
            api::measure(&mut stack, &mut report).await?;
        }
        if wanted(Part::Browser) {
            browser::measure(&mut stack, &mut report).await?;
        }
    }
    queue(args, &mut report).await?;
    report.print();
    report.write(&args.json)
}

/// What only runs when it is named.
async fn queue(args: &Args, report: &mut Report) -> Result<(), Error> {
    if args.only.contains(&Part::Beside) {
        lanes_beside::measure(report).await?;
    }
    if args.only.contains(&Part::Leases) {
        leases::measure(report).await?;
    }
    if args.only.contains(&Part::Takeover) {
        takeover::measure(report).await?;
    }
    if args.only.contains(&Part::Fleet) {
        // The first snapshot of a link replaces the browser once, a minute after it: not in the middle of this.
        let timings = r#"{"snapshotAfterLinkMs": 3600000}"#.to_owned();
        let mut stack = Stack::with(Settings { timings, faults: false, ..Settings::default() }).await?;
        fleet::measure(&mut stack, report).await?;
    }
    Ok(())
}
