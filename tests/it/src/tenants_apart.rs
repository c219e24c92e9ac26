//! Tenants never see each other: what is not yours answers 404.

use harness::Stack;
use reqwest::StatusCode;
use serde_json::json;

use crate::PEER;

#[tokio::test]
async fn neither_of_two_tenants_sees_the_others_session_chats_jobs_or_events() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let body = json!({"type": "text", "text": "secret", "whenUnavailable": "queue"});
    let sent = ana.client.post(&format!("/api/chats/{PEER}/messages"), body.clone()).await.ok();
    let (job, chat) = (sent["id"].as_str().unwrap(), sent["chat"].as_str().unwrap());
    ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
    assert_eq!(ana.client.events(0).await.len(), 1);

    let session = &ana.session;
    for path in [
        format!("/api/jobs/{job}"),
        format!("/api/chats/{chat}"),
        format!("/api/chats/{chat}/messages"),
        format!("/api/sessions/{session}"),
        format!("/api/sessions/{session}/status"),
        format!("/api/sessions/{session}/qr"),
        format!("/api/sessions/{session}/chats"),
        format!("/api/sessions/{session}/chats/{chat}/messages"),
        format!("/api/events?session={session}"),
    ] {
        let answer = bea.client.get(&path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.body);
        assert_ne!(ana.client.get(&path).await.status, StatusCode::NOT_FOUND, "{path} is there for its owner");
        assert_eq!(bea.client.stranger().get(&path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    for (path, body) in [
        (format!("/api/jobs/{job}/cancel"), json!({})),
        (format!("/api/sessions/{session}/start"), json!({})),
        (format!("/api/sessions/{session}/stop"), json!({})),
        (format!("/api/chats/{chat}/messages"), body.clone()),
        (format!("/api/sessions/{session}/chats/{PEER}/messages"), body),
    ] {
        assert_eq!(bea.client.post(&path, body).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert!(bea.client.events(0).await.is_empty());
    assert_eq!(bea.client.get("/api/jobs").await.ok()["items"], json!([]));
    assert_eq!(bea.client.get("/api/chats").await.ok()["items"], json!([]));
}
