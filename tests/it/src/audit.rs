//! What was done to a session is in the audit log, whoever did it and whether or not they waited for the answer.

use std::time::Duration;

use harness::{Stack, people::link_token, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::SOON;

async fn of(ana: &harness::Tenant, operation: &str) -> Vec<Value> {
    let log = ana.client.get("/api/audit?limit=200").await.ok();
    let all = log["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|a| a["detail"]["operation"] == operation).collect()
}

#[tokio::test]
async fn what_a_caller_did_who_hung_up_is_noted() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    stack.sql("update session set state = 'working', wanted = 'running', account = '5511999990000'").await.unwrap();
    let host = stack.api.url().trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&host).await.unwrap();
    let request = format!(
        "POST /api/whatsapp/restart HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nprefer: wait=2\r\ncontent-length: 0\r\n\r\n",
        ana.client.token()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let accepted =
        || async { (ana.client.get("/api/jobs").await.ok()["items"].as_array().is_some_and(|all| all.len() == 1)).then_some(()) };
    until("the restart to be accepted", SOON, accepted).await;
    assert!(of(&ana, "restart").await.is_empty(), "its caller still waits");
    drop(socket);
    until("the note", Duration::from_secs(10), || async { (of(&ana, "restart").await.len() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn what_the_holder_of_a_link_did_is_noted_with_who_made_the_link() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let link = ana.client.post("/api/whatsapp/link-page", json!({})).await.ok();
    let (token, me) = (link_token(&link), ana.client.get("/api/me").await.ok()["id"].clone());
    stack.sql("update session set state = 'stopped', reason = 'qr_timeout', wanted = 'stopped'").await.unwrap();
    let started = ana.client.stranger().ask(Method::POST, "/api/link/start", &[("zaguan-link", &token)], None).await;
    assert_eq!(started.status.as_u16(), 204, "{}", started.body);
    let noted = of(&ana, "startByLink").await;
    assert_eq!((noted.len(), &noted[0]["actor"], &noted[0]["detail"]["linkOf"]), (1, &Value::Null, &me));
    assert_eq!(noted[0]["target"], json!(ana.session));
}
