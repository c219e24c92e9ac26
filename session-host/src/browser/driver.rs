//! The WebDriver side: one chromedriver beside each browser, attached to it and replaced when it dies.
use super::{BrowserEnv, spawn::mortal};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use std::{io, path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const START_WITHIN: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why there is no WebDriver session.
#[derive(Debug, thiserror::Error)]
enum DriverError {
    #[error("chromedriver cannot be started")]
    Io(#[from] io::Error),
    #[error("chromedriver named no port")]
    NoPort,
    #[error("chromedriver did not attach")]
    Attach(#[source] Box<fantoccini::error::NewSessionError>),
    #[error("the attached session cannot be kept")]
    Keep(#[source] Box<fantoccini::error::CmdError>),
}

/// The WebDriver session of one browser. It is re-made when chromedriver dies and after a renderer's crash, which fantoccini's session never survives.
pub(crate) struct Driver {
    client: watch::Receiver<Option<Client>>,
    again: Arc<Notify>,
    stop: CancellationToken,
}

impl Driver {
    /// Starts keeping a chromedriver attached to the browser on `port`, until `stop`.
    pub(crate) fn keep(env: Arc<BrowserEnv>, port: u16, home: PathBuf, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (slot, client) = watch::channel(None);
        let again = Arc::new(Notify::new());
        let keeper = Keeper { env, port, home, slot, again: again.clone(), tasks: tasks.clone() };
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = keeper.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { client, again, stop }
    }

    /// The session, waiting for it while it is being made.
    pub(crate) async fn client(&self, within: Duration) -> Option<Client> {
        let mut client = self.client.clone();
        let found = tokio::time::timeout(within, client.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Ends chromedriver, and makes no new session.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// To ask for a new session from elsewhere.
    pub(crate) fn again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// Asks for a new session; the present one is of no use any more.
    pub(crate) fn attach_again(&self) {
        self.again.notify_one();
    }
}

struct Keeper {
    env: Arc<BrowserEnv>,
    port: u16,
    home: PathBuf,
    slot: watch::Sender<Option<Client>>,
    again: Arc<Notify>,
    tasks: TaskTracker,
}

impl Keeper {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attached().await {
                Ok((mut child, client)) => {
                    pause = FIRST_PAUSE;
                    self.slot.send_replace(Some(client));
                    tokio::select! {
                        status = child.wait() => tracing::warn!(?status, "chromedriver ended; a new one is attached"),
                        () = self.again.notified() => {
                            let _ = child.kill().await;
                        }
                    }
                    self.slot.send_replace(None);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no WebDriver session");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attached(&self) -> Result<(Child, Client), DriverError> {
        let (child, address) = self.start().await?;
        let options = json!({"debuggerAddress": format!("127.0.0.1:{}", self.port)});
        let capabilities =
            [("pageLoadStrategy", json!("none")), ("unhandledPromptBehavior", json!("dismiss")), ("goog:chromeOptions", options)];
        let capabilities = capabilities.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let client = ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&address).await;
        let client = client.map_err(|e| DriverError::Attach(Box::new(e)))?;
        // First of all: without it, dropping the last clone would end the session (fantoccini's documentation).
        client.persist().await.map_err(|e| DriverError::Keep(Box::new(e)))?;
        Ok((child, client))
    }

    /// chromedriver prints "… on port 0" before the line that counts.
    async fn start(&self) -> Result<(Child, String), DriverError> {
        let mut command = mortal(&self.env.config().chromedriver, &self.home);
        command.env("TMPDIR", self.env.temp()).arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = self.env.spawner().spawn(command).await?;
        let mut lines = BufReader::new(child.stdout.take().ok_or(DriverError::NoPort)?).lines();
        let port = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(port) = parse_port(&line) {
                    return Ok(port);
                }
            }
            Err(DriverError::NoPort)
        };
        let port = tokio::time::timeout(START_WITHIN, port).await.unwrap_or(Err(DriverError::NoPort))?;
        self.tasks.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} }); // a full pipe would stop it
        Ok((child, format!("http://127.0.0.1:{port}")))
    }
}

fn parse_port(line: &str) -> Option<u16> {
    let (_, port) = line.rsplit_once("started successfully on port ")?;
    port.trim().trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_after_the_start_names_the_port() {
        assert_eq!(parse_port("Starting ChromeDriver 156.0.8078.79 on port 0"), None);
        assert_eq!(parse_port("ChromeDriver was started successfully on port 40513."), Some(40513));
    }
}
