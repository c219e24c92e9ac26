//! A caller of the API, as a test sees it.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::{catalogue, sse::EventStream, until};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, `null` where it is not JSON.
    pub body: Value,
}

impl Answer {
    /// The body, of an answer that must be a success.
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl ApiClient {
    /// Nobody, at this address.
    pub fn nobody(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.to_owned(), token: String::new() }
    }

    /// Logs in.
    pub async fn login(url: &str, email: &str, password: &str) -> Self {
        let client = Self::nobody(url);
        let tokens = client.post("/api/auth/login", json!({"email": email, "password": password})).await.ok();
        Self { token: tokens["accessToken"].as_str().unwrap_or_default().to_owned(), ..client }
    }

    /// Opens a stream of events, or says why not.
    ///
    /// # Errors
    /// The answer that refused it.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<EventStream, Answer> {
        self.try_stream(path, headers).await.expect("the API answers")
    }

    /// The same of an API that may be dead. `None`: no answer came.
    ///
    /// # Errors
    /// The answer that refused it.
    pub async fn try_stream(&self, path: &str, headers: &[(&str, &str)]) -> Option<Result<EventStream, Answer>> {
        let mut request = self.http.get(format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Some(if status.is_success() {
            Ok(EventStream::new(answer))
        } else {
            Err(Answer { status, headers, body: answer.json().await.unwrap_or(Value::Null) })
        })
    }

    /// The same caller at another address of the API.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same caller without a token.
    pub fn stranger(&self) -> Self {
        Self { token: String::new(), ..self.clone() }
    }

    /// The same service with this token or API key.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub(crate) fn with_http(&self, http: reqwest::Client) -> Self {
        Self { http, ..self.clone() }
    }

    /// Where it calls.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token or key it shows.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Tries a password.
    pub async fn try_login(&self, email: &str, password: &str) -> Answer {
        self.stranger().post("/api/auth/login", json!({"email": email, "password": password})).await
    }

    /// Any request.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        self.try_ask(method, path, headers, body).await.expect("the API answers")
    }

    /// Any request of an API that may die of it. `None`: no answer came.
    pub async fn try_ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Option<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).timeout(Duration::from_secs(40));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Some(Answer { status, headers, body: answer.json().await.unwrap_or(Value::Null) })
    }

    /// A request whose path goes out as it is written, where another client would tidy it up. Answers the status and the body.
    ///
    /// # Panics
    /// Where the API does not answer with HTTP.
    pub async fn raw(&self, method: &str, path: &str) -> (u16, Value) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = self.url.trim_start_matches("http://");
        let mut socket = tokio::net::TcpStream::connect(host).await.expect("the API is there");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            self.token
        );
        socket.write_all(head.as_bytes()).await.expect("the request goes out");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an answer comes");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let body = answer.find('{').and_then(|at| serde_json::Deserializer::from_str(&answer[at..]).into_iter().next()?.ok());
        (status, body.unwrap_or(Value::Null))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// PATCH with a merge patch.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], None).await
    }

    /// GET as bytes, with an `Accept`.
    pub async fn bytes(&self, path: &str, accept: &str) -> (StatusCode, Vec<u8>) {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).header("accept", accept);
        let answer = request.send().await.expect("the API answers");
        (answer.status(), answer.bytes().await.expect("a whole body").to_vec())
    }

    /// Sends a text to a chat of the default session; the answer is 202 or a problem.
    pub async fn send(&self, chat: &str, text: &str) -> Answer {
        self.post(&format!("/api/chats/{chat}/messages"), json!({"type": "text", "text": text})).await
    }

    /// The same under an idempotency key.
    pub async fn send_once(&self, chat: &str, text: &str, key: &str) -> Answer {
        let body = json!({"type": "text", "text": text});
        self.ask(Method::POST, &format!("/api/chats/{chat}/messages"), &[("idempotency-key", key)], Some(body)).await
    }

    /// The id of an accepted job.
    pub async fn accepted(&self, chat: &str, text: &str) -> String {
        let answer = self.send(chat, text).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        answer.body["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/jobs/{id}")).await.ok()
    }

    /// A job once it has ended.
    pub async fn ended(&self, id: &str, within: Duration) -> Value {
        until(&format!("the end of {id}"), within, || async {
            let job = self.job(id).await;
            (!matches!(job["state"].as_str(), Some("queued" | "running"))).then_some(job)
        })
        .await
    }

    /// The default session's state.
    pub async fn state(&self) -> String {
        self.get("/api/whatsapp/status").await.ok()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Until the default session is in a state.
    pub async fn until_state(&self, state: &str, within: Duration) {
        until(&format!("the session to be {state}"), within, || async { (self.state().await == state).then_some(()) }).await;
    }

    /// All events after a `seq`.
    pub async fn events(&self, after: i64) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let page = self.get(&format!("/api/events?after={after}&limit=200")).await.ok();
            let items = items(&page);
            items.iter().for_each(catalogue::check);
            let Some(last) = items.last().and_then(|event| event["seq"].as_i64()) else { return all };
            after = last;
            all.extend(items);
        }
    }

    /// One page of events after a `seq`; while there is none, the answer is held back up to `wait` seconds (25 at most).
    pub async fn events_held(&self, after: i64, wait: u32) -> Vec<Value> {
        items(&self.get(&format!("/api/events?after={after}&wait={wait}")).await.ok())
    }

    /// The chats of the default session, the latest first.
    pub async fn chats(&self) -> Vec<Value> {
        items(&self.get("/api/chats?limit=200").await.ok())
    }

    /// A chat's messages, the latest first.
    pub async fn messages(&self, chat: &str) -> Vec<Value> {
        items(&self.get(&format!("/api/chats/{chat}/messages?limit=200")).await.ok())
    }

    /// The first event for which `fits`, once it is there.
    pub async fn event(&self, what: &str, within: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        until(what, within, || async { self.events(0).await.into_iter().find(|e| fits(e)) }).await
    }
}

/// The items of a list.
fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().cloned().unwrap_or_else(|| panic!("a list has items: {page}"))
}
