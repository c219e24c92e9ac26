//! A small HTTP client for tests: JSON in, JSON out, and a failure that shows the whole answer.

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `POST /api/…`, for messages.
    pub request: String,
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// The body as JSON, null where it is none.
    pub json: Value,
}

impl Answer {
    /// The body, when the status is the expected one.
    ///
    /// # Panics
    /// On any other status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{} answered {}: {}", self.request, self.status, self.text());
        self.json
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// A header's value, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Requests to one server, under one identity.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
    bearer: Option<String>,
}

impl Http {
    /// A client for `base` (`http://127.0.0.1:8080`).
    ///
    /// # Panics
    /// When the platform gives no client.
    pub fn new(base: impl Into<String>) -> Self {
        // A client cannot be built without a provider, not even for plain HTTP; installing it twice is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(std::time::Duration::from_secs(60)).build().expect("a client can be built");
        Self { base: base.into(), client, bearer: None }
    }

    /// The same, with a token.
    pub fn bearer(&self, token: impl Into<String>) -> Self {
        Self { bearer: Some(token.into()), ..self.clone() }
    }

    /// Where it talks to.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token it sends.
    pub fn token(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// `GET`.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    /// `DELETE`.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, &[]).await
    }

    /// Any request.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let request = format!("{method} {path}");
        let answer = self.try_send(method, path, body, headers).await;
        answer.unwrap_or_else(|error| panic!("{request}: {error:?}"))
    }

    /// Any request, for a server that may be gone.
    ///
    /// # Errors
    /// No whole answer came.
    pub async fn try_send(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await?.to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { request: format!("{method} {path}"), status, headers, bytes, json })
    }
}
