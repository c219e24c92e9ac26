//! The stand-in for WhatsApp's side: starts it, and speaks its control API.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    folder::Folder,
    http::{Answer, Http},
    process::{Process, Program},
    services::binary,
    user::User,
    wait::until,
};

/// Where the simulator listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Control API, `http://host:port`.
    pub control: String,
    /// The page in its current profile, `host:port`, TLS.
    pub page: String,
    /// The page in its legacy profile, `host:port`, TLS.
    pub page_legacy: String,
    /// Hash of the certificate's public key, as Chromium takes it.
    pub spki: String,
}

/// Which ports to listen on; 0 is any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// Control API.
    pub control: u16,
    /// Current profile.
    pub page: u16,
    /// Legacy profile.
    pub page_legacy: u16,
}

/// A running simulator.
#[derive(Debug)]
pub struct Simulator {
    addresses: Addresses,
    control: Http,
    process: Process,
}

impl Simulator {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not say where it listens.
    pub async fn start(folder: &Folder, user: User, logs: &Path, ports: Ports) -> Self {
        let home = folder.private("simulator").expect("the stack's folder takes folders");
        let program = folder.adopt(&binary("zaguan-simulator")).expect("the simulator can be copied");
        let at = |port: u16| format!("127.0.0.1:{port}");
        let program = Program::new("simulator", program, &home, logs).args([
            "--control",
            &at(ports.control),
            "--page",
            &at(ports.page),
            "--page-legacy",
            &at(ports.page_legacy),
        ]);
        let (process, out) = program.spawn_piped(user).expect("the simulator can be started");
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(Duration::from_secs(20), line).await.expect("the simulator says where it listens within 20 s");
        let line = line.expect("reading does not panic").expect("its standard output can be read");
        let mut addresses: Addresses =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("simulator said {line:?} ({error}); {}", process.tail(40)));
        if !addresses.control.starts_with("http") {
            addresses.control = format!("http://{}", addresses.control);
        }
        Self { control: Http::new(&addresses.control), addresses, process }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Switches that make a Chromium take the simulator for the real site and reach nothing else.
    pub fn chromium_args(&self, legacy: bool) -> Vec<String> {
        let page = if legacy { &self.addresses.page_legacy } else { &self.addresses.page };
        vec![
            format!("--host-resolver-rules=MAP web.whatsapp.com {page},MAP * ~NOTFOUND"),
            format!("--ignore-certificate-errors-spki-list={}", self.addresses.spki),
        ]
    }

    /// A request to the control API, `path` below `/control`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.control.post(&format!("/control{path}"), body).await
    }

    /// A look through the control API, `path` below `/control`.
    pub async fn get(&self, path: &str) -> Answer {
        self.control.get(&format!("/control{path}")).await
    }

    /// Gives `phone` an account.
    pub async fn account(&self, phone: &str) -> Value {
        ok(self.post("/accounts", json!({ "phone": phone, "name": format!("Phone {phone}") })).await)
    }

    /// The phone scans a code from a screen.
    pub async fn scan(&self, phone: &str, qr: &str) -> Value {
        ok(self.post(&format!("/accounts/{phone}/scan"), json!({ "qr": qr })).await)
    }

    /// The phone sends a text. Answers its id.
    ///
    /// # Panics
    /// When the answer has none.
    pub async fn send(&self, phone: &str, to: &str, text: &str) -> String {
        let sent = ok(self.post(&format!("/accounts/{phone}/send"), json!({ "to": to, "type": "text", "text": text })).await);
        sent["id"].as_str().expect("a sent message has an id").to_owned()
    }

    /// The phone reads a chat.
    pub async fn read(&self, phone: &str, chat: &str) -> Value {
        ok(self.post(&format!("/accounts/{phone}/read"), json!({ "chat": chat })).await)
    }

    /// What the phone shows in its chat with `peer`, oldest first.
    pub async fn messages(&self, phone: &str, peer: &str) -> Vec<Value> {
        let answer = ok(self.get(&format!("/accounts/{phone}/chats/{peer}/messages")).await);
        answer.as_array().cloned().unwrap_or_default()
    }

    /// The texts among them.
    pub async fn texts(&self, phone: &str, peer: &str) -> Vec<String> {
        self.messages(phone, peer).await.iter().filter_map(|message| message["body"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until the phone shows `text` in its chat with `peer`.
    ///
    /// # Panics
    /// After `within`.
    pub async fn shows(&self, phone: &str, peer: &str, text: &str, within: Duration) -> Value {
        until(&format!("{phone} to show {text:?} from {peer}"), within, || async {
            self.messages(phone, peer).await.into_iter().find(|message| message["body"] == text)
        })
        .await
    }

    /// How often a message that the phone already had came again, over its whole chat with `peer`.
    pub async fn duplicates(&self, phone: &str, peer: &str) -> u64 {
        self.messages(phone, peer).await.iter().filter_map(|message| message["duplicates"].as_u64()).sum()
    }

    /// Linked devices of an account.
    pub async fn devices(&self, phone: &str) -> Vec<Value> {
        ok(self.get(&format!("/accounts/{phone}/devices")).await).as_array().cloned().unwrap_or_default()
    }

    /// Makes it misbehave. Answers the fault's id.
    pub async fn fault(&self, fault: Value) -> Value {
        ok(self.post("/faults", fault).await)["id"].clone()
    }

    /// Ends a fault.
    pub async fn heal(&self, fault: &Value) {
        let id = fault.as_str().map_or_else(|| fault.to_string(), str::to_owned);
        let answer = self.control.delete(&format!("/control/faults/{id}")).await;
        assert!(answer.status.is_success(), "{}: {}", answer.request, answer.text());
    }

    /// Its counters.
    pub async fn stats(&self) -> Value {
        ok(self.get("/stats").await)
    }
}

fn ok(answer: Answer) -> Value {
    assert!(answer.status.is_success(), "{} answered {}: {}", answer.request, answer.status, answer.text());
    answer.json
}
