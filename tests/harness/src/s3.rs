//! An S3 that is not ours: moto's server, which `make setup` installs beside the other tools of the tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, process::Process, until};

/// A running server. It keeps what it is given in memory.
pub struct S3 {
    url: String,
    _process: Process,
}

impl S3 {
    /// Starts one on a free port, with these buckets.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(logs: &Path, buckets: &[&str]) -> Result<Self, Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = crate::free_port().to_string();
        let mut command = Command::new(python());
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port]);
        let s3 = Self { url: format!("http://127.0.0.1:{port}"), _process: Process::start("s3", logs, command)? };
        let http = reqwest::Client::new();
        until("an S3", Duration::from_secs(30), || async { http.get(&s3.url).send().await.ok() }).await;
        for bucket in buckets {
            http.put(format!("{}/{bucket}", s3.url)).send().await?.error_for_status()?;
        }
        Ok(s3)
    }

    /// What a service is told that keeps its objects here.
    pub fn variables(&self, objects_url: &str) -> [(&'static str, String); 6] {
        let told = [
            ("OBJECTS_URL", objects_url),
            ("AWS_ENDPOINT_URL", &self.url),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        told.map(|(name, value)| (name, value.to_owned()))
    }

    /// Where it listens: `http://…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// That of the tests' tools.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python3")
}
