//! A second connection to the browser under test, for doing it harm.
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::path::Path;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

pub struct Devtools {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    next: u64,
}

impl Devtools {
    /// Attaches to the page of the browser that works in this directory.
    pub async fn attach(profile: &Path) -> Self {
        let port = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap();
        let (port, path) = port.split_once('\n').unwrap();
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}{}", path.trim())).await.unwrap();
        let mut devtools = Self { socket, session: None, next: 0 };
        let targets = devtools.command("Target.getTargets", json!({})).await;
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|t| t["type"] == "page").unwrap().clone();
        let attached = devtools.command("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true})).await;
        devtools.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        devtools.command("Page.enable", json!({})).await;
        devtools
    }

    /// Sends a command without waiting for its answer: some are never answered.
    pub async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        self.next
    }

    pub async fn command(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        loop {
            let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}
