//! The CDP side of one page: how it is set up, how its driver gets in, and the few commands that we need.
use super::cdp::{Cdp, CdpError, CdpEvent};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The only site that we drive.
pub(crate) const SITE: &str = "https://web.whatsapp.com/";
/// Deadline of a command that involves no business of the page.
pub(crate) const SHORT: Duration = Duration::from_secs(10);

const GATE: &str = include_str!(concat!(env!("OUT_DIR"), "/gate.js"));
const DRIVER: &str = include_str!(concat!(env!("OUT_DIR"), "/driver.js"));

/// Whether the page bundle was built into this program.
pub(crate) fn has_bundle() -> bool {
    !GATE.is_empty() && !DRIVER.is_empty()
}

/// The identifier that both scripts leave open for [`Settings`]: a script at document start takes no arguments.
const OPEN: &str = "__ZAGUAN_SETTINGS__";

/// What the scripts in the page are told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The random name of the binding, and with it of all that we leave in the page.
    pub(crate) binding: String,
    pub(crate) beat: Duration,
    pub(crate) ready_within: Duration,
}

impl Settings {
    fn fill(&self, script: &str, document: &str) -> String {
        let settings =
            json!({"binding": self.binding, "beatMs": millis(self.beat), "readyMs": millis(self.ready_within), "document": document});
        script.replace(OPEN, &settings.to_string())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A CDP session on the browser's one page.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) cdp: Cdp,
    pub(crate) session: String,
}

/// What a document's driver answered when it was put in.
pub(crate) enum Driven {
    /// The object that calls go to.
    Api(String),
    /// It threw.
    Threw(String),
}

impl Link {
    /// Connects and prepares the page. The order matters: `Runtime.enable` and the binding come before the script at document start, and
    /// all of it before the navigation; otherwise the first document hears nothing (measured).
    pub(crate) async fn open(
        socket: &str,
        settings: &Settings,
        agent: &Value,
        tasks: &TaskTracker,
    ) -> Result<(Self, mpsc::Receiver<CdpEvent>), CdpError> {
        let (cdp, events) = Cdp::connect(socket, SHORT, tasks).await?;
        let link = match Self::attach(cdp.clone()).await {
            Ok(link) => link,
            Err(e) => {
                cdp.hang_up();
                return Err(e);
            }
        };
        let steps: [(&'static str, Value); 6] = [
            ("Page.enable", json!({})),
            ("Inspector.enable", json!({})),
            ("Runtime.enable", json!({})),
            ("Emulation.setUserAgentOverride", agent.clone()),
            ("Runtime.addBinding", json!({"name": settings.binding})),
            ("Page.addScriptToEvaluateOnNewDocument", json!({"source": settings.fill(GATE, "")})),
        ];
        for (method, params) in steps {
            if let Err(e) = link.command(method, params).await {
                link.cdp.hang_up();
                return Err(e);
            }
        }
        Ok((link, events))
    }

    async fn attach(cdp: Cdp) -> Result<Self, CdpError> {
        let targets = cdp.call("Target.getTargets", json!({}), None, SHORT).await?;
        let page = targets["targetInfos"].as_array().into_iter().flatten().find(|t| t["type"] == "page");
        let id = page.and_then(|t| t["targetId"].as_str());
        let id = id.ok_or_else(|| CdpError::Protocol { method: "Target.getTargets", message: "the browser has no page".into() })?;
        let answer = cdp.call("Target.attachToTarget", json!({"targetId": id, "flatten": true}), None, SHORT).await?;
        Ok(Self { cdp, session: answer["sessionId"].as_str().unwrap_or_default().to_owned() })
    }

    pub(crate) async fn command(&self, method: &'static str, params: Value) -> Result<Value, CdpError> {
        self.cdp.call(method, params, Some(&self.session), SHORT).await
    }

    /// Begins a navigation to the site; `Err` with the network's reason when it fails at once.
    pub(crate) async fn navigate(&self) -> Result<(), CdpError> {
        let answer = self.command("Page.navigate", json!({"url": SITE})).await?;
        match answer["errorText"].as_str() {
            Some(reason) => Err(CdpError::Protocol { method: "Page.navigate", message: reason.to_owned() }),
            None => Ok(()),
        }
    }

    /// Puts wa-js and the adapter into the context that opened the gate.
    pub(crate) async fn drive(&self, settings: &Settings, context: &Value, document: &str) -> Result<Driven, CdpError> {
        let done = self.command("Runtime.evaluate", json!({"expression": settings.fill(DRIVER, document), "contextId": context})).await?;
        let thrown = done["exceptionDetails"]["exception"]["description"].as_str().or(done["exceptionDetails"]["text"].as_str());
        Ok(match (thrown, done["result"]["objectId"].as_str()) {
            (None, Some(id)) => Driven::Api(id.to_owned()),
            (thrown, _) => Driven::Threw(thrown.unwrap_or("it answered no object").chars().take(300).collect()),
        })
    }

    /// After a lost socket: the object that an earlier connection put in, and its document, if that document still stands.
    pub(crate) async fn find_driver(&self, settings: &Settings) -> Result<Option<(String, String)>, CdpError> {
        let place = format!("globalThis[Symbol.for({})]", json!(settings.binding));
        let found = self.command("Runtime.evaluate", json!({"expression": place})).await?;
        let Some(api) = found["result"]["objectId"].as_str() else { return Ok(None) };
        let document = self.on(api, "function(){return this.document}", json!([]), SHORT).await?;
        Ok(document["result"]["value"].as_str().map(|d| (api.to_owned(), d.to_owned())))
    }

    /// Runs a function with the driver's object as `this`, and answers by value.
    pub(crate) async fn on(&self, api: &str, function: &str, arguments: Value, deadline: Duration) -> Result<Value, CdpError> {
        let params =
            json!({"objectId": api, "functionDeclaration": function, "arguments": arguments, "awaitPromise": true, "returnByValue": true});
        self.cdp.call("Runtime.callFunctionOn", params, Some(&self.session), deadline).await
    }
}
