//! What a caller of the API does, step by step, as JSON: knows no type of ours, so that a changed shape breaks a test.

use std::{ops::Deref, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    http::{Answer, Http},
    simulator::Simulator,
    wait::until,
};

/// The states in which a job has ended.
const ENDED: [&str; 5] = ["succeeded", "failed", "cancelled", "expired", "unknown"];

/// The API under one identity. `get`, `post` and the rest come from [`Http`].
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: Http,
}

impl Deref for ApiClient {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

impl ApiClient {
    /// Logs in.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn login(http: &Http, email: &str, password: &str) -> Self {
        let answer = http.post("/api/auth/login", json!({ "email": email, "password": password })).await.expect(200);
        let token = answer["accessToken"].as_str().expect("a login answers a token");
        Self { http: http.bearer(token) }
    }

    /// Asks for the default session to be started.
    pub async fn init(&self) -> Value {
        self.post("/api/whatsapp/init", json!({})).await.expect(202)
    }

    /// The default session.
    pub async fn status(&self) -> Value {
        self.get("/api/whatsapp/status").await.expect(200)
    }

    /// Waits for the default session to reach `state`.
    ///
    /// # Panics
    /// After `within`.
    pub async fn reaches(&self, state: &str, within: Duration) -> Value {
        let mut last = Value::Null;
        let end = tokio::time::Instant::now() + within;
        while tokio::time::Instant::now() < end {
            last = self.status().await;
            if last["state"] == state {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited {within:?} for the session to be {state}; it is {last}");
    }

    /// The code to scan, as soon as there is one.
    ///
    /// # Panics
    /// After `within`.
    pub async fn qr(&self, within: Duration) -> String {
        until("a code to scan", within, || async {
            let answer = self.get("/api/whatsapp/qr").await;
            match answer.status.as_u16() {
                200 => Some(answer.json["qr"].as_str().expect("an answer with a code").to_owned()),
                503 => None,
                _ => panic!("{} answered {}: {}", answer.request, answer.status, answer.text()),
            }
        })
        .await
    }

    /// Starts the default session, scans its code with `phone`, and waits until it works.
    ///
    /// # Panics
    /// When that takes more than a minute and a half.
    pub async fn link(&self, sim: &Simulator, phone: &str) {
        self.init().await;
        let qr = self.qr(Duration::from_secs(60)).await;
        sim.scan(phone, &qr).await;
        self.reaches("working", Duration::from_secs(30)).await;
    }

    /// Sends a text, and answers whatever came.
    pub async fn try_send_text(&self, chat: &str, text: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, &format!("/api/chats/{chat}/messages"), Some(json!({ "type": "text", "text": text })), headers).await
    }

    /// Sends a text, and answers the accepted job.
    ///
    /// # Panics
    /// When it is not accepted, or `Location` does not name the job.
    pub async fn send_text(&self, chat: &str, text: &str) -> Value {
        let answer = self.try_send_text(chat, text, &[]).await;
        let location = answer.header("location").to_owned();
        let job = answer.expect(202);
        assert_eq!(Some(location.as_str()), job["id"].as_str().map(|id| format!("/api/jobs/{id}")).as_deref());
        job
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/jobs/{id}")).await.expect(200)
    }

    /// Waits until `is` holds of a job.
    ///
    /// # Panics
    /// After `within`; the message shows the job as it was last.
    pub async fn job_until(&self, job: &Value, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Value {
        let id = job["id"].as_str().expect("a job has an id");
        let end = tokio::time::Instant::now() + within;
        loop {
            let now = self.job(id).await;
            if is(&now) {
                return now;
            }
            assert!(tokio::time::Instant::now() < end, "waited {within:?} for {what}; the job is {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a job's end.
    ///
    /// # Panics
    /// After `within`.
    pub async fn job_ended(&self, job: &Value, within: Duration) -> Value {
        self.job_until(job, "the job's end", within, |job| ENDED.iter().any(|state| job["state"] == *state)).await
    }

    /// Waits for a job to succeed.
    ///
    /// # Panics
    /// When it ends otherwise, or after `within`.
    pub async fn job_succeeded(&self, job: &Value, within: Duration) -> Value {
        let ended = self.job_ended(job, within).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        ended
    }

    /// All events after `seq`, oldest first.
    pub async fn events(&self, after: u64) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let page = self.get(&format!("/api/events?after={after}&limit=200")).await.expect(200);
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let Some(last) = items.last().and_then(|event| event["seq"].as_u64()) else { return all };
            after = last;
            all.extend(items);
        }
    }

    /// Waits for the first event after `seq` of which `is` holds.
    ///
    /// # Panics
    /// After `within`.
    pub async fn event(&self, after: u64, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Value {
        until(what, within, || async { self.events(after).await.into_iter().find(|event| is(event)) }).await
    }

    /// The `seq` of the last event.
    pub async fn last_seq(&self) -> u64 {
        self.events(0).await.last().and_then(|event| event["seq"].as_u64()).unwrap_or(0)
    }
}
