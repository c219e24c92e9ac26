//! The person whom some states need: starts a session that is down, and scans its code.

use std::time::Duration;

use harness::{ApiClient, simulator::Control};
use reqwest::Method;
use serde_json::{Value, json};

use crate::traffic::Account;

/// Before the person looks again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a session is; `not known` where nobody answers.
pub async fn state(client: &ApiClient, session: &str) -> String {
    let status = client.try_ask(Method::GET, &format!("/api/sessions/{session}/status"), &[], None).await;
    status.and_then(|status| status.body["state"].as_str().map(str::to_owned)).unwrap_or_else(|| "not known".to_owned())
}

/// Does what the state asks of a person, and nothing where it asks nothing.
pub async fn help(client: &ApiClient, phones: &Control, account: &Account) {
    let path = format!("/api/sessions/{}", account.session);
    match state(client, &account.session).await.as_str() {
        "stopped" | "logged_out" | "banned" | "failed" | "conflict" => {
            client.try_ask(Method::POST, &format!("{path}/start"), &[], Some(json!({}))).await;
        }
        "linking" => {
            let code = client.try_ask(Method::GET, &format!("{path}/qr?wait=2"), &[], None).await.map(|answer| answer.body["qr"].clone());
            if let Some(Value::String(code)) = code {
                phones.scan(&account.phone, &code).await;
            }
        }
        _ => {}
    }
}

/// Looks after an account until dropped.
pub async fn attend(client: ApiClient, phones: Control, account: Account) {
    loop {
        help(&client, &phones, &account).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
