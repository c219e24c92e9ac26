//! The process is first of all a guard: it starts itself again as the host proper and ends the browsers when that dies, stops or stalls.

use std::process::ExitCode;

use secrecy::ExposeSecret;
use session_host::{config::Config, guard, host};

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = std::env::args_os().filter(|a| a != guard::HOST_PROPER).collect();
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read beside clap: NAME_FILE")]
    let config = Config::read(args, |name| std::env::var_os(name)).unwrap_or_else(|why| why.exit());
    if guard::is_host_proper() {
        return host_proper(config);
    }
    // A bad setting is said once, by the guard, and nothing is started.
    if let Err(error) = config
        .timings()
        .map(drop)
        .and_then(|()| config.chromium_args().map(drop))
        .and_then(|()| config.safe().map(drop))
        .and_then(|()| config.check_secrets())
    {
        say(&error);
        return ExitCode::from(2);
    }
    let redis = config.redis_url.expose_secret().to_owned();
    guard::run(move |ended| release(&redis, &ended))
}

/// The leases of browsers that are gone: another host need not wait for them to run out.
fn release(redis: &str, ended: &[guard::Ended]) {
    let leases: Vec<(String, String)> =
        ended.iter().filter_map(|e| e.held.lease.as_ref()).map(|lease| (lease.key.clone(), lease.value.clone())).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    if let Err(error) = runtime.block_on(queue::release_after_death(redis, &leases)) {
        say(&error);
    }
}

fn host_proper(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(host::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&*error);
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, for whoever started the process.
fn say(error: &dyn std::error::Error) {
    let mut text = format!("zaguan-host: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("{text}");
}
