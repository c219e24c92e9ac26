//! A Socket.IO client that says exactly what a test wants said: the protocol by hand, over a WebSocket.

use std::{collections::VecDeque, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message},
};

use crate::ApiClient;

/// What a socket said.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// An event and its arguments.
    Event(String, Vec<Value>),
    /// The answer to a question of that number.
    Ack(u64, Value),
    /// The server took us out of the namespace.
    Disconnected,
    /// The connection is closed; why, where it says so.
    Closed(Option<String>),
}

/// A socket that was let into a namespace.
pub struct Socket {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    namespace: String,
    asked: u64,
    aside: VecDeque<Said>,
    /// The last `seq` that was heard of.
    pub cursor: i64,
}

impl Socket {
    /// Opens a connection. The error is the status of the answer and its problem.
    ///
    /// # Errors
    /// The answer that refused it.
    pub async fn dial(url: &str, query: &str) -> Result<Self, (u16, Value)> {
        let url = format!("{}/socket.io/?{query}", url.replacen("http", "ws", 1));
        match tokio_tungstenite::connect_async(url).await {
            Ok((ws, _)) => {
                let mut socket = Self { ws, namespace: "/".into(), asked: 0, aside: VecDeque::new(), cursor: -1 };
                assert!(socket.raw().await.is_some_and(|open| open.starts_with('0')), "a handshake");
                Ok(socket)
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().and_then(|b| serde_json::from_slice(b).ok());
                Err((answer.status().as_u16(), body.unwrap_or(Value::Null)))
            }
            Err(why) => panic!("the API answers: {why}"),
        }
    }

    /// Opens a connection and enters a namespace. The error is the `connect_error`.
    ///
    /// # Errors
    /// Its body.
    pub async fn connect(url: &str, namespace: &str, auth: &Value) -> Result<Self, Value> {
        let mut socket = Self::dial(url, "EIO=4&transport=websocket").await.expect("a connection");
        socket.enter(namespace, auth).await?;
        Ok(socket)
    }

    /// Enters a namespace.
    ///
    /// # Errors
    /// The body of the `connect_error`.
    pub async fn enter(&mut self, namespace: &str, auth: &Value) -> Result<(), Value> {
        self.namespace = namespace.to_owned();
        let auth = if auth.is_null() { String::new() } else { auth.to_string() };
        self.send(&format!("40{}{auth}", self.prefix())).await;
        let answer = self.raw().await.expect("an answer");
        let (kind, rest) = answer.split_at(2);
        let rest = rest.strip_prefix(&self.prefix()).unwrap_or(rest);
        let body: Value = serde_json::from_str(rest).unwrap_or(Value::Null);
        match kind {
            "40" => Ok(()),
            "44" => Err(body),
            _ => panic!("neither let in nor refused: {answer}"),
        }
    }

    fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    /// Sends a packet as it is. What cannot be sent any more is not.
    pub async fn send(&mut self, packet: &str) {
        let _ = self.ws.send(Message::Text(packet.into())).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        let _ = self.ws.send(Message::Binary(bytes.into())).await;
    }

    /// The next packet as it is, pings answered; none: the connection is closed.
    async fn raw(&mut self) -> Option<String> {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3").await,
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => {
                    // The answer, for which the other side waits a while.
                    let _ = self.ws.flush().await;
                    self.aside.push_back(Said::Closed(frame.map(|f| f.reason.as_str().to_owned())));
                    return None;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn read(&mut self) -> Said {
        let Some(packet) = self.raw().await else { return self.aside.pop_back().unwrap_or(Said::Closed(None)) };
        let (kind, rest) = packet.split_at(2);
        let rest = rest.strip_prefix(&self.prefix()).unwrap_or(rest);
        match kind {
            "41" => Said::Disconnected,
            "42" => {
                let mut all: Vec<Value> = serde_json::from_str(rest).expect("an event");
                let name = all.remove(0).as_str().expect("a name").to_owned();
                let seq = |v: &Value| v["seq"].as_i64();
                if let Some(seq) = all.last().and_then(seq) {
                    self.cursor = seq;
                }
                Said::Event(name, all)
            }
            "43" => {
                let (number, answer) = rest.split_at(rest.find('[').expect("arguments"));
                let mut answer: Vec<Value> = serde_json::from_str(answer).expect("an answer");
                Said::Ack(number.parse().expect("a number"), answer.remove(0))
            }
            _ => panic!("unexpected: {packet}"),
        }
    }

    /// What it says next.
    ///
    /// # Panics
    /// When nothing comes within `within`.
    pub async fn next(&mut self, within: Duration) -> Said {
        match self.aside.pop_front() {
            Some(said) => said,
            None => tokio::time::timeout(within, self.read()).await.unwrap_or_else(|_| panic!("the socket says nothing for {within:?}")),
        }
    }

    /// The next event that is no cursor: its name and arguments.
    ///
    /// # Panics
    /// When none comes within `within`, or the connection ends.
    pub async fn event(&mut self, within: Duration) -> (String, Vec<Value>) {
        loop {
            match self.next(within).await {
                Said::Event(name, _) if name == "cursor" => {}
                Said::Event(name, arguments) => return (name, arguments),
                other => panic!("no event, but {other:?}"),
            }
        }
    }

    /// The next event of the log: its envelope.
    pub async fn envelope(&mut self, within: Duration) -> Value {
        let (name, mut arguments) = self.event(within).await;
        let envelope = arguments.pop().expect("an envelope");
        assert_eq!(envelope["type"], name);
        envelope
    }

    /// Until its cursor has come to `seq`, with nothing but cursors on the way.
    pub async fn passes(&mut self, seq: i64, within: Duration) {
        while self.cursor < seq {
            match self.next(within).await {
                Said::Event(name, _) if name == "cursor" => {}
                other => panic!("not only cursors, but {other:?}"),
            }
        }
    }

    /// Asks for something and waits for the answer; what comes in between is kept.
    pub async fn ask(&mut self, name: &str, data: Value, within: Duration) -> Value {
        self.asked += 1;
        let number = self.asked;
        self.send(&format!("42{}{number}{}", self.prefix(), json!([name, data]))).await;
        let mut aside = std::mem::take(&mut self.aside);
        let answer = loop {
            match self.next(within).await {
                Said::Ack(of, answer) if of == number => break answer,
                closed @ Said::Closed(_) => panic!("no answer, but {closed:?}"),
                other => aside.push_back(other),
            }
        };
        self.aside = aside;
        answer
    }

    /// All that still comes until the connection is closed.
    pub async fn rest(&mut self, within: Duration) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            let said = self.next(within).await;
            let closed = matches!(said, Said::Closed(_));
            all.push(said);
            if closed {
                return all;
            }
        }
    }
}

impl ApiClient {
    /// Opens a socket of this caller in the root namespace; `asked` is added to what it says of itself.
    ///
    /// # Errors
    /// The body of the `connect_error`.
    pub async fn socket(&self, asked: Value) -> Result<Socket, Value> {
        self.socket_in("/", asked).await
    }

    /// The same in another namespace.
    ///
    /// # Errors
    /// The body of the `connect_error`.
    pub async fn socket_in(&self, namespace: &str, mut asked: Value) -> Result<Socket, Value> {
        let name = if self.token().starts_with("zgk_") { "apiKey" } else { "token" };
        asked[name] = json!(self.token());
        Socket::connect(self.url(), namespace, &asked).await
    }
}
