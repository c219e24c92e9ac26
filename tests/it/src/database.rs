//! What the database says is told apart: a row that went, a mistake of ours, and a database that does not answer.

use harness::Stack;
use reqwest::StatusCode;
use serde_json::json;

use crate::PEER;

#[tokio::test]
async fn what_the_database_refuses_is_a_failure_of_ours_and_nothing_to_try_again() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    stack.postgres.sql("alter table job rename column reference to reference_of_a_later_version");
    let answer = ana.client.get("/api/jobs").await;
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("internal")));
    assert_eq!(answer.headers.get("retry-after"), None);
    assert!(!answer.body.to_string().contains("reference"), "the detail stays in the log");
    assert!(stack.api.process.log().contains("reference"), "and is there");
}

#[tokio::test]
async fn a_row_that_went_in_between_is_not_found() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    stack.postgres.sql("delete from lane_position");
    for key in [None, Some("k")] {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        let body = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
        let answer = ana.client.ask(reqwest::Method::POST, &format!("/api/chats/{PEER}/messages"), &headers, Some(body)).await;
        assert_eq!((answer.status, &answer.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{key:?}");
    }
}
