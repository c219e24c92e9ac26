//! The binary.

use std::{io::Write, process::ExitCode};

use worker::{config::Config, serve};

fn main() -> ExitCode {
    // Clients of TLS find this provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read beside clap: NAME_FILE")]
    let config = Config::read(std::env::args_os().collect(), |name| std::env::var_os(name)).unwrap_or_else(|why| why.exit());
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
