//! A caller of the API, as a test sees it.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::until;

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
    /// Logs in.
    pub async fn login(url: &str, email: &str, password: &str) -> Self {
        let http = reqwest::Client::new();
        let client = Self { http, url: url.to_owned(), token: String::new() };
        let tokens = client.post("/api/auth/login", json!({"email": email, "password": password})).await.ok();
        Self { token: tokens["accessToken"].as_str().unwrap_or_default().to_owned(), ..client }
    }

    /// The same caller without a token.
    pub fn stranger(&self) -> Self {
        Self { token: String::new(), ..self.clone() }
    }

    /// Any request.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
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
        let answer = request.send().await.expect("the API answers");
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, body: answer.json().await.unwrap_or(Value::Null) }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], Some(body)).await
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
