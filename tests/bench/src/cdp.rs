//! wa-js, called from the barest client there can be: a Chromium, one DevTools socket, one call at a time.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use harness::{Error, Stack, User, process::Process, services::Host, until};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const SITE: &str = "https://web.whatsapp.com/";
/// As published; `make page` installs it.
const BUNDLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../session-host/page/node_modules/@wppconnect/wa-js/dist/wppconnect-wa.js");
const CONFIG: &str = "window.WPPConfig = { disableGoogleAnalytics: true, linkPreviewApiServers: [] };";
const LOADED: &str =
    "(() => { for (const id of ['WAWebSocketModel', 'WAWebStreamModel', 'WAWebCollections', 'WAWebCmd']) window.require(id);
                      return !!window.Debug?.VERSION })()";
const READY: &str = "!!WPP.isFullReady && (void WPP.whatsapp.MsgKey, true)";
const CODE: &str = "WPP.conn.getAuthCode().then((code) => code && code.fullCode)";
const CONNECTED: &str = "(() => { const { mode, info } = WPP.conn.getStreamData();
                         return mode === 'MAIN' && info === 'NORMAL' && WPP.whatsapp.Socket.state === 'CONNECTED' })()";
const SOON: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(60);

/// A page with wa-js in it, linked to an account.
pub struct WaJs {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    /// What the page told while something else was waited for.
    told: VecDeque<String>,
    _browser: Process,
}

impl WaJs {
    /// Starts a browser with the switches of the host's own, and links it.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(stack: &Stack, host: &Host, phone: &str) -> Result<Self, Error> {
        let profile = stack.folder().join("bare-profile");
        fs::create_dir(&profile)?;
        let user = User::find()?;
        user.own(&profile)?;
        let mut switches = switches_of(host)?.into_iter();
        let mut command = user.tied(switches.next().ok_or("a browser has a program")?, "KILL");
        command.current_dir(&profile).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &profile).env("LANG", "C.UTF-8");
        command.arg(format!("--user-data-dir={}", profile.display())).args(switches);
        let browser = Process::start("bare-browser", stack.folder(), command)?;
        let socket = connect_async(page_of(&profile).await?).await?.0;
        let mut page = Self { socket, calls: 0, told: VecDeque::new(), _browser: browser };
        page.call("Page.navigate", json!({"url": SITE})).await?;
        page.becomes("the page's modules", LOADED).await?;
        for script in [CONFIG, &fs::read_to_string(BUNDLE)?] {
            page.evaluate(script).await?;
        }
        page.becomes("wa-js", READY).await?;
        stack.sim.account(phone).await;
        let end = Instant::now() + SOON;
        loop {
            if let Some(code) = page.evaluate(CODE).await?.as_str()
                && stack.sim.scan(phone, code).await
            {
                break;
            }
            if Instant::now() > end {
                return Err("no code was shown that could be scanned".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        page.becomes("the linked page", CONNECTED).await?;
        Ok(page)
    }

    /// Sends a text; answered when the server has acknowledged it.
    ///
    /// # Errors
    /// What the page said.
    pub async fn send(&mut self, to: &str, text: &str) -> Result<(), Error> {
        let options = "{ waitForAck: true, linkPreview: false, markIsRead: false, detectMentioned: false }";
        let sent = format!(
            "WPP.chat.sendTextMessage({}, {}, {options}).then((sent) => sent.sendMsgResult).then(() => true)",
            json!(to),
            json!(text)
        );
        match self.evaluate(&sent).await? {
            Value::Bool(true) => Ok(()),
            other => Err(format!("the page answered {other}").into()),
        }
    }

    /// Has the page tell each message that comes.
    ///
    /// # Errors
    /// What the page said.
    pub async fn listen(&mut self) -> Result<(), Error> {
        self.call("Runtime.enable", json!({})).await?;
        self.call("Runtime.addBinding", json!({"name": "told"})).await?;
        self.evaluate("void WPP.on('chat.new_message', (message) => told(String(message.body)))").await?;
        Ok(())
    }

    /// Waits until the page has told of a message with this text.
    ///
    /// # Errors
    /// Where the browser is gone, or says nothing for long.
    pub async fn hears(&mut self, text: &str) -> Result<(), Error> {
        while self.told.pop_front().as_deref() != Some(text) {
            if self.told.is_empty() {
                self.read(SOON).await?;
            }
        }
        Ok(())
    }

    async fn becomes(&mut self, what: &str, expression: &str) -> Result<(), Error> {
        let end = Instant::now() + SOON;
        while !matches!(self.evaluate(expression).await, Ok(Value::Bool(true))) {
            if Instant::now() > end {
                return Err(format!("waited {SOON:?} for {what}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn evaluate(&mut self, expression: &str) -> Result<Value, Error> {
        let answer = self.call("Runtime.evaluate", json!({"expression": expression, "awaitPromise": true, "returnByValue": true})).await?;
        match answer.get("exceptionDetails") {
            Some(thrown) => Err(thrown.to_string().into()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, Error> {
        self.calls += 1;
        let id = self.calls;
        self.socket.send(Message::text(json!({"id": id, "method": method, "params": params}).to_string())).await?;
        loop {
            let mut answer = self.read(CALL).await?;
            if answer["id"] == id {
                return if answer["error"].is_null() { Ok(answer["result"].take()) } else { Err(answer["error"].to_string().into()) };
            }
        }
    }

    /// The next message of the browser; what the page tells is kept.
    async fn read(&mut self, within: Duration) -> Result<Value, Error> {
        loop {
            let message = tokio::time::timeout(within, self.socket.next()).await?;
            let Message::Text(text) = message.ok_or("the browser is gone")?? else { continue };
            let said: Value = serde_json::from_str(&text)?;
            if said["method"] == "Runtime.bindingCalled" {
                self.told.extend(said["params"]["payload"].as_str().map(str::to_owned));
            }
            return Ok(said);
        }
    }
}

/// Program and switches of the host's browser, without those that name its directory and its pipe.
fn switches_of(host: &Host) -> Result<Vec<String>, Error> {
    for pid in host.browsers() {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let words: Vec<_> = line.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if !words.iter().any(|word| word.starts_with("--type=")) {
            return Ok(words
                .into_iter()
                .filter(|word| !word.starts_with("--user-data-dir=") && word != "--remote-debugging-pipe")
                .collect());
        }
    }
    Err("the host has no browser".into())
}

/// The DevTools address of the only tab.
async fn page_of(profile: &Path) -> Result<String, Error> {
    let file = profile.join("DevToolsActivePort");
    Ok(until("a tab of the bare browser", SOON, || async {
        let port = fs::read_to_string(&file).ok()?.lines().next()?.to_owned();
        let tabs: Value = reqwest::get(format!("http://127.0.0.1:{port}/json/list")).await.ok()?.json().await.ok()?;
        let tab = tabs.as_array()?.iter().find(|tab| tab["type"] == "page")?;
        tab["webSocketDebuggerUrl"].as_str().map(str::to_owned)
    })
    .await)
}
