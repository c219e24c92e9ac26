//! Lanes beside BullMQ and raw Redis: the same jobs at the same pace through the same Redis server, consumers as processes of their own.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use harness::{Error, process::Process, until};

use crate::{
    consume::{Consumed, What},
    node,
    produce::{self, Producer},
    report::{Latencies, Report, median},
    stores::{Stores, grown},
};

/// Turns of each.
const ROUNDS: usize = 3;
const WARM: usize = 500;
const WITHIN: Duration = Duration::from_secs(120);
/// What clients send; the rest is what scripts call.
const SENT: [&str; 5] = ["eval", "evalsha", "brpop", "lpush", "bzpopmin"];

/// Whose consumer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Ours(What),
    BullMq,
}

/// All four.
const ALL: [Whose; 4] = [Whose::Ours(What::Whole), Whose::Ours(What::Lanes), Whose::Ours(What::Raw), Whose::BullMq];

impl Whose {
    fn name(self) -> &'static str {
        match self {
            Self::Ours(What::Whole) => "whole path",
            Self::Ours(What::Lanes) => "Redis part alone",
            Self::Ours(What::Raw) => "raw Redis list",
            Self::BullMq => "BullMQ",
        }
    }

    /// Jobs that count when a backlog is worked off: some seconds of each.
    fn backlog(self, lanes: usize) -> usize {
        match (self, lanes) {
            (Self::Ours(What::Whole), 1) => 1500,
            (Self::Ours(What::Whole), _) => 4000,
            (_, 1) => 8000,
            _ => 20_000,
        }
    }
}

/// What was measured of one consumer.
#[derive(Debug, Default)]
struct Measured {
    per_second: Vec<f64>,
    per_cpu_second: Vec<f64>,
    p50: f64,
    p99: f64,
    cpu_us: f64,
    sent: f64,
    called: f64,
}

/// The stores, and where BullMQ is.
struct Bench {
    stores: Arc<Stores>,
    bullmq: PathBuf,
}

/// Measures all.
///
/// # Errors
/// What kept it from measuring.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let bench = Bench { stores: Stores::start().await?, bullmq: node::installed("bullmq")?.join("lanes.mjs") };
    for lanes in [1, 50] {
        let mut all: HashMap<Whose, Measured> = HashMap::new();
        for _ in 0..ROUNDS {
            for whose in ALL {
                let consumed = bench.backlog(whose, lanes).await?;
                let jobs = consumed.started.len() as f64;
                let measured = all.entry(whose).or_default();
                measured.per_second.push(jobs / consumed.seconds);
                measured.per_cpu_second.push(jobs / consumed.cpu_seconds);
            }
        }
        for whose in ALL {
            bench.paced(whose, lanes, all.entry(whose).or_default()).await?;
        }
        tell(report, lanes, &all);
    }
    Ok(())
}

fn tell(report: &mut Report, lanes: usize, all: &HashMap<Whose, Measured>) {
    type Number = fn(&Measured) -> f64;
    let numbers: [(&str, &'static str, Number); 7] = [
        ("a backlog worked off", "jobs/s", |m| median(m.per_second.clone())),
        ("a backlog worked off, a second of the consumer's processor", "jobs/s", |m| median(m.per_cpu_second.clone())),
        ("push to start, p50", "ms", |m| m.p50),
        ("push to start, p99", "ms", |m| m.p99),
        ("the consumer's processor time a job, at that pace", "µs", |m| m.cpu_us),
        ("Redis commands a job that clients send", "commands", |m| m.sent),
        ("Redis commands a job, with what scripts call", "commands", |m| m.called),
    ];
    let [whole, part, raw, bullmq] = ALL;
    for (number, unit, f) in numbers {
        for (ours, theirs) in [(whole, bullmq), (part, bullmq), (part, raw)] {
            let what = format!("{lanes} at once, {}: {number}", ours.name());
            report.beside(&what, unit, f(&all[&ours]), theirs.name(), f(&all[&theirs]));
        }
    }
}

impl Bench {
    fn consumer(&self, whose: Whose, lanes: usize, count: usize) -> Result<Process, Error> {
        let stores = &self.stores;
        let numbers = [lanes, WARM, count].map(|n| n.to_string());
        match whose {
            Whose::BullMq => {
                let mut arguments = vec![self.bullmq.display().to_string(), produce::port(&stores.server.url()), "consume".to_owned()];
                arguments.extend(numbers);
                stores.node("consumer", &arguments)
            }
            Whose::Ours(what) => {
                let what = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
                let mut arguments = vec!["consume".to_owned(), what, stores.postgres.url(), stores.server.url()];
                arguments.extend(numbers);
                stores.again("consumer", &arguments)
            }
        }
    }

    async fn producer(&self, whose: Whose, lanes: usize) -> Result<Producer, Error> {
        // Whatever the last one left.
        self.stores.retire_sessions().await?;
        Ok(match whose {
            Whose::BullMq => Producer::bullmq(&self.stores, &self.bullmq),
            Whose::Ours(what) => Producer::ours(&self.stores, what, self.stores.sessions(lanes).await?),
        })
    }

    /// The consumer meets jobs that are all there.
    async fn backlog(&self, whose: Whose, lanes: usize) -> Result<Consumed, Error> {
        let count = whose.backlog(lanes);
        self.producer(whose, lanes).await?.at_once(WARM + count).await?;
        end(self.consumer(whose, lanes, count)?).await
    }

    /// Jobs come one by one to a consumer that waits for them.
    async fn paced(&self, whose: Whose, lanes: usize, measured: &mut Measured) -> Result<(), Error> {
        let (count, pause) = if lanes == 1 { (1000, Duration::from_millis(10)) } else { (2500, Duration::from_millis(4)) };
        let mut producer = self.producer(whose, lanes).await?;
        let consumer = self.consumer(whose, lanes, count)?;
        until("a consumer", WITHIN, || async { consumer.log().lines().any(|line| line == "ready").then_some(()) }).await;
        producer.paced(WARM, pause).await?;
        let before = self.stores.calls().await?;
        let pushed: HashMap<_, _> = producer.paced(count, pause).await?.into_iter().collect();
        let consumed = end(consumer).await?;
        let after = self.stores.calls().await?;
        let waited = consumed.started.iter().filter_map(|(id, at)| Some(Duration::from_nanos(at.saturating_sub(*pushed.get(id)?))));
        let waited = Latencies::from(waited.collect::<Vec<_>>());
        (measured.p50, measured.p99) = (waited.ms(0.5), waited.ms(0.99));
        measured.cpu_us = consumed.cpu_seconds * 1e6 / count as f64;
        measured.sent = grown(&before, &after, |name| SENT.contains(&name)) as f64 / count as f64;
        measured.called = grown(&before, &after, |_| true) as f64 / count as f64;
        Ok(())
    }
}

async fn end(mut consumer: Process) -> Result<Consumed, Error> {
    consumer.wait(WITHIN).await.ok_or("the consumer does not end")?;
    let said = consumer.log();
    serde_json::from_str(said.lines().last().unwrap_or_default()).map_err(|_| format!("the consumer said: {said:.2000}").into())
}
