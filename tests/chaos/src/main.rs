//! `zaguan-chaos`: what `make chaos` runs.

use std::process::ExitCode;

use chaos::{
    plan::{Shape, plan},
    run::run,
};
use clap::Parser;

/// Breaks a whole installation at random, by seeds, and says what should not have happened.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// How many seeds, one after another.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How long traffic goes on, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many faults fall into that time.
    #[arg(long, default_value_t = 12)]
    faults: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let shape = Shape { seconds: args.seconds, faults: args.faults, ..Shape::default() };
    let mut failed = Vec::new();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        match run(&plan(seed, &shape), &shape).await {
            Ok(report) => {
                print!("{}", report.text);
                for violation in &report.violations {
                    println!("  VIOLATION: {violation}");
                }
                if !report.violations.is_empty() {
                    failed.push(seed);
                    println!("  again: make chaos SEEDS=1 FROM={seed} ARGS='--seconds {} --faults {}'", args.seconds, args.faults);
                }
            }
            Err(error) => {
                eprintln!("zaguan-chaos: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if failed.is_empty() {
        println!("{} seeds, no violation", args.seeds);
        ExitCode::SUCCESS
    } else {
        println!("violations in the seeds {failed:?}");
        ExitCode::FAILURE
    }
}
