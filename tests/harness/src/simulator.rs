//! The simulator as a process, and its control API.

use std::{ops::Deref, path::Path, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Error, User, process::Process, until};

/// The control API of a simulator: what phones do, and what befalls pages.
#[derive(Debug, Clone)]
pub struct Control {
    /// Where it is, without `/control`.
    pub url: String,
    http: reqwest::Client,
}

/// A running simulator.
pub struct Simulator {
    /// Its process.
    pub process: Process,
    control: Control,
    /// Today's page, `host:port`.
    pub page: String,
    /// The page with older keys, `host:port`.
    pub page_legacy: String,
    /// Hash of its certificate's key.
    pub spki: String,
}

impl Deref for Simulator {
    type Target = Control;

    /// Whoever has a simulator plays its phones.
    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Simulator {
    /// The control, to play phones beside whoever owns the process.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Starts it on free ports.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(user: User, program: &Path, logs: &Path) -> Result<Self, Error> {
        let process = Process::start("simulator", logs, user.tied(program, "KILL"))?;
        let line = until("the simulator", Duration::from_secs(20), || async {
            process.log().lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|v| v["spki"].is_string()))
        })
        .await;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            control: Control { url: text("control"), http: reqwest::Client::new() },
            page: text("page"),
            page_legacy: text("pageLegacy"),
            spki: text("spki"),
            process,
        })
    }

    /// The browser switches that lead web.whatsapp.com to it, and nothing anywhere else.
    pub fn browser_args(&self) -> String {
        json!([
            format!("--host-resolver-rules=MAP web.whatsapp.com {},MAP * ~NOTFOUND", self.page),
            format!("--ignore-certificate-errors-spki-list={}", self.spki),
        ])
        .to_string()
    }
}

impl Control {
    /// Any request of the control API.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}/control{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the simulator answers");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// Makes an account.
    pub async fn account(&self, phone: &str) {
        self.done(Method::POST, "/accounts", Some(json!({"phone": phone}))).await;
    }

    /// A phone scans a code. `false`: the code is not shown (any more).
    pub async fn scan(&self, phone: &str, qr: &str) -> bool {
        self.ask(Method::POST, &format!("/accounts/{phone}/scan"), Some(json!({"qr": qr}))).await.0.is_success()
    }

    /// A phone's owner types in a pairing code. `false`: no page shows it for this number.
    pub async fn enter_code(&self, phone: &str, code: &str) -> bool {
        self.ask(Method::POST, &format!("/accounts/{phone}/enter-code"), Some(json!({"code": code}))).await.0.is_success()
    }

    /// A phone sends a text; answers the id.
    pub async fn send(&self, from: &str, to: &str, text: &str) -> String {
        let sent = self.done(Method::POST, &format!("/accounts/{from}/send"), Some(json!({"to": to, "type": "text", "text": text}))).await;
        sent["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A phone reads a chat.
    pub async fn read(&self, phone: &str, chat: &str) {
        self.done(Method::POST, &format!("/accounts/{phone}/read"), Some(json!({"chat": chat}))).await;
    }

    /// What a phone shows in a chat.
    pub async fn messages(&self, phone: &str, peer: &str) -> Vec<Value> {
        let shown = self.done(Method::GET, &format!("/accounts/{phone}/chats/{peer}/messages"), None).await;
        shown.as_array().cloned().unwrap_or_default()
    }

    /// The texts a phone shows in a chat, in order.
    pub async fn texts(&self, phone: &str, peer: &str) -> Vec<String> {
        self.messages(phone, peer).await.iter().map(|m| m["body"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Gives a phone a past, to be handed over to devices that are linked from then on; answers the new chats: `{phone, lid, name, ids}`.
    pub async fn history(&self, phone: &str, past: Value) -> Vec<Value> {
        let made = self.done(Method::POST, &format!("/accounts/{phone}/history"), Some(past)).await;
        made["chats"].as_array().cloned().unwrap_or_default()
    }

    /// Writes into a phone's address book: `[{phone, name?, pushname?, lid?}]`.
    pub async fn contacts(&self, phone: &str, book: Value) {
        self.done(Method::POST, &format!("/accounts/{phone}/contacts"), Some(book)).await;
    }

    /// A chat goes to the hidden id (`lid`) or back to the number; answers its id from then on.
    pub async fn flip(&self, phone: &str, peer: &str, lid: bool) -> String {
        let to = json!({"to": if lid { "lid" } else { "phone" }});
        let chat = self.done(Method::POST, &format!("/accounts/{phone}/chats/{peer}/flip"), Some(to)).await;
        chat["chat"].as_str().unwrap_or_default().to_owned()
    }

    /// All private chats of an account go to hidden ids.
    pub async fn migrate_to_lid(&self, phone: &str) {
        self.done(Method::POST, &format!("/accounts/{phone}/lid-migration"), Some(json!({"migrated": true}))).await;
    }

    /// A number gets another hidden id; answers it.
    pub async fn move_lid(&self, phone: &str) -> String {
        let moved = self.done(Method::POST, &format!("/accounts/{phone}/move-lid"), Some(json!({}))).await;
        moved["lid"].as_str().unwrap_or_default().to_owned()
    }

    /// The devices linked to an account.
    pub async fn devices(&self, phone: &str) -> Vec<String> {
        let devices = self.done(Method::GET, &format!("/accounts/{phone}/devices"), None).await;
        devices.as_array().into_iter().flatten().filter_map(|d| d["id"].as_str().map(str::to_owned)).collect()
    }

    /// WhatsApp keeps an account out for so many minutes; 0 ends it.
    pub async fn ban(&self, phone: &str, minutes: u64) {
        let path = if minutes == 0 { "unban" } else { "ban" };
        self.done(Method::POST, &format!("/accounts/{phone}/{path}"), Some(json!({"minutes": minutes}))).await;
    }

    /// What pages asked for that the real site does not have: `{names, requests, unserved, stubs}`.
    pub async fn strays(&self) -> Value {
        self.done(Method::GET, "/strict", None).await
    }

    /// Removes a linked device, as its owner does on the phone.
    pub async fn remove_device(&self, phone: &str, device: &str) {
        self.done(Method::DELETE, &format!("/accounts/{phone}/devices/{device}"), None).await;
    }

    /// Takes a phone off the net: what is sent to it stays at one tick and is not shown.
    pub async fn offline(&self, phone: &str) {
        self.done(Method::POST, &format!("/accounts/{phone}/offline"), None).await;
    }

    /// Brings a phone back: what was sent to it meanwhile is shown and confirmed as delivered.
    pub async fn online(&self, phone: &str) {
        self.done(Method::POST, &format!("/accounts/{phone}/online"), None).await;
    }

    /// Arms a fault; answers its id.
    pub async fn fault(&self, fault: Value) -> u64 {
        self.done(Method::POST, "/faults", Some(fault)).await["id"].as_u64().expect("an armed fault has an id")
    }

    /// Ends a fault.
    pub async fn clear_fault(&self, fault: u64) {
        self.done(Method::DELETE, &format!("/faults/{fault}"), None).await;
    }

    /// The counters.
    pub async fn stats(&self) -> Value {
        self.done(Method::GET, "/stats", None).await
    }
}
