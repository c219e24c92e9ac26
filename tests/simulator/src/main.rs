//! `zaguan-simulator`: a stand-in for web.whatsapp.com, its server and its phones, for tests and `make run`.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use simulator::{Addresses, Simulator};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for web.whatsapp.com on loopback. Prints one line of JSON with its addresses, then logs to stderr.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Where the control API listens (plain HTTP).
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Where the page of today is served (TLS).
    #[arg(long, default_value = "127.0.0.1:0")]
    page: SocketAddr,
    /// Where the page with the older message keys is served (TLS).
    #[arg(long, default_value = "127.0.0.1:0")]
    page_legacy: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let addresses = Addresses { control: args.control, page: args.page, page_legacy: args.page_legacy };
    let simulator = match Simulator::start(addresses).await {
        Ok(simulator) => simulator,
        Err(error) => {
            eprintln!("zaguan-simulator: {error}");
            return ExitCode::FAILURE;
        }
    };
    #[expect(clippy::print_stdout, reason = "the line that whoever started it waits for")]
    {
        println!("{}", simulator.announcement());
    }
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return ExitCode::FAILURE;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    ExitCode::SUCCESS
}
