//! The binary.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use worker::{config::Config, serve};

fn main() -> ExitCode {
    // Clients of TLS find this provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::parse();
    let done =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|r| r.block_on(serve::run(config)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The log may not have been started.
            let _ = writeln!(std::io::stderr(), "zaguan-worker: {why}");
            ExitCode::FAILURE
        }
    }
}
