//! One browser against the simulator: what it does by itself, and what it reports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod devtools;
mod faults;
mod guarded;
mod kit;
mod linking;
mod messages;

use harness::{Folder, User};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Names the working directory of a test that runs as the ordinary user.
const DIR: &str = "ZAGUAN_TEST_DIR";
const SIMULATOR: &str = "zaguan-simulator";

/// Runs a test as an ordinary user, because Chromium's sandbox needs one: starts this very test again, with a copy of the simulator beside it.
#[expect(clippy::disallowed_methods, reason = "how a test tells the process it starts what to be")]
fn stage<F: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> F) {
    if let Some(dir) = env::var_os(DIR) {
        return run(test(dir.into()));
    }
    let user = User::find().unwrap();
    let folder = Folder::new(user).unwrap();
    let itself = env::current_exe().unwrap();
    let simulator = itself.parent().and_then(Path::parent).unwrap().join(SIMULATOR);
    folder.copy(&simulator).unwrap_or_else(|e| panic!("{e}: build the workspace's binaries first"));
    let mut command = user.command(folder.copy(&itself).unwrap());
    command.args(["--exact", name, "--nocapture", "--include-ignored"]);
    let status = command.env(DIR, folder.path()).env("HOME", folder.path()).current_dir(folder.path()).status().unwrap();
    assert!(status.success(), "{name}: {status}");
    // A browser that the test dropped closes by itself, and writes until then.
    let began = Instant::now();
    while fs::remove_dir_all(folder.path()).is_err() && began.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
    }
}

fn run(test: impl Future<Output = ()>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::new("session_host=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}
