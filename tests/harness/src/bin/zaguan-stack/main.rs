//! `zaguan-stack`: everything on one machine, for whoever develops or tries Zaguan (`make run`, `make stop`, `make sqlx`).

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

mod record;
mod run;

/// Runs Zaguan with the simulator on this machine. Everything listens on 127.0.0.1 and is gone at the end.
#[derive(Parser)]
#[command(name = "zaguan-stack")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and stay in the foreground until Ctrl-C or `zaguan-stack stop`.
    Run {
        /// How many session hosts.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
        hosts: u8,
    },
    /// End what `run` started from this folder.
    Stop,
    /// Run a command with DATABASE_URL naming a fresh, migrated Postgres.
    Postgres {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // The harness reports by panic, as tests want it; here only the message is of interest.
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("failed");
        eprintln!("zaguan-stack: {message}");
    }));
    let here = Path::new(".run");
    match Cli::parse().command {
        Command::Run { hosts } => run::run(here, hosts).await,
        Command::Stop => record::stop(here),
        Command::Postgres { command } => with_postgres(&command).await,
    }
}

async fn with_postgres(command: &[String]) -> ExitCode {
    let stores = harness::Stores::start().await;
    let mut child = std::process::Command::new(&command[0]);
    child.args(&command[1..]).env("DATABASE_URL", stores.postgres.url());
    match child.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zaguan-stack: {}: {error}", command[0]);
            ExitCode::FAILURE
        }
    }
}
