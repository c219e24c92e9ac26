//! A person with a browser of their own, who knows nothing of the API: opens a page, reads it, types and clicks.

use std::{path::Path, time::Duration};

use fantoccini::{Client, ClientBuilder, Locator, error::CmdError, wd::Capabilities};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

use crate::{Error, Folder, User, process::Process, until};

/// A browser the size of a phone. It ends with its driver.
pub struct Visitor {
    client: Client,
    _driver: Process,
}

impl Visitor {
    /// Starts one that prefers a language.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn open(user: User, folder: &Folder, logs: &Path, language: &str) -> Result<Self, Error> {
        let port = crate::free_port();
        let home = folder.sub(&format!("visitor-{port}"))?;
        let mut command = user.tied("/usr/bin/chromedriver", "KILL");
        command.arg(format!("--port={port}")).env("HOME", &home).env("TMPDIR", &home);
        let driver = Process::start(&format!("visitor-{port}"), logs, command)?;
        let options = json!({
            "binary": "/usr/lib/chromium/chromium",
            "args": ["--headless=new", "--disable-gpu", "--no-first-run", "--force-device-scale-factor=2", "--window-size=390,844",
                format!("--user-data-dir={}", home.join("profile").display()), format!("--lang={language}"), format!("--accept-lang={language}")],
        });
        let capabilities: Capabilities = [("goog:chromeOptions".to_owned(), options)].into_iter().collect();
        let address = format!("http://127.0.0.1:{port}");
        let client = until("a visitor's browser", Duration::from_secs(30), || {
            let capabilities = capabilities.clone();
            let address = address.clone();
            async move { ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&address).await.ok() }
        })
        .await;
        Ok(Self { client, _driver: driver })
    }

    /// Opens a page.
    pub async fn visit(&self, url: &str) {
        self.client.goto(url).await.expect("the page opens");
    }

    /// What an element shows; `None` where it is not there or not visible.
    pub async fn shown(&self, css: &str) -> Option<String> {
        let element = self.client.find(Locator::Css(css)).await.ok()?;
        let visible = element.is_displayed().await.unwrap_or(false);
        if visible { element.text().await.ok() } else { None }
    }

    /// Until an element is visible.
    pub async fn until_shown(&self, css: &str, within: Duration) -> String {
        until(&format!("{css} to be shown"), within, || self.shown(css)).await
    }

    /// Clicks.
    ///
    /// # Errors
    /// Where there is nothing to click.
    pub async fn click(&self, css: &str) -> Result<(), CmdError> {
        self.client.find(Locator::Css(css)).await?.click().await
    }

    /// Types into a field.
    ///
    /// # Errors
    /// Where there is no such field.
    pub async fn write(&self, css: &str, text: &str) -> Result<(), CmdError> {
        self.client.find(Locator::Css(css)).await?.send_keys(text).await
    }

    /// What a script answers, as text.
    pub async fn script(&self, script: &str) -> serde_json::Value {
        self.client.execute(script, Vec::new()).await.expect("the script runs")
    }

    /// A picture of the window, PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.client.screenshot().await.expect("a picture")
    }

    /// Closes the browser.
    pub async fn close(self) {
        let _ = self.client.close().await;
    }
}
