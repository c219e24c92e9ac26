//! A request that comes again with its key makes nothing twice, and shows no secret twice.

use futures::future::join_all;
use harness::{Stack, Tenant, client::Answer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

async fn post(tenant: &Tenant, path: &str, key: &str, body: Value) -> Answer {
    tenant.client.ask(Method::POST, path, &[("idempotency-key", key)], Some(body)).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|v| v == "true")
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.body["code"].as_str()), (status, Some(code)), "{}", answer.body);
}

/// Asks five times at once: all are answered alike, but for `secret`, which the first one gets.
async fn made_once(tenant: &Tenant, path: &str, key: &str, body: Value, secret: Option<&str>) -> Value {
    let mut other = body.clone();
    other["name"] = json!("another");
    let answers = join_all((0..5).map(|_| post(tenant, path, key, body.clone()))).await;
    assert!(answers.iter().all(|a| a.status == StatusCode::CREATED), "{path}: {answers:?}");
    assert_eq!(answers.iter().filter(|a| is_replayed(a)).count(), 4, "{path}");
    let first = answers.iter().find(|a| !is_replayed(a)).expect("one of them made it").clone();
    for answer in answers {
        assert_eq!((&answer.body["id"], &answer.headers["location"]), (&first.body["id"], &first.headers["location"]), "{path}");
        if let Some(secret) = secret {
            assert_eq!(answer.body[secret].is_null(), is_replayed(&answer), "{path}: shown to the first only");
        }
    }
    refused(&post(tenant, path, key, other).await, 422, "idempotency_key_reused");
    first.body
}

#[tokio::test]
async fn sessions_people_and_keys_are_made_once_a_key_and_answered_as_they_are_now() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let session = made_once(&ana, "/api/sessions", "k", json!({"name": "ventas"}), None).await;
    let session = session["id"].as_str().unwrap();
    ana.client.patch(&format!("/api/sessions/{session}"), json!({"name": "soporte"})).await.ok();
    assert_eq!(post(&ana, "/api/sessions", "k", json!({"name": "ventas"})).await.ok()["name"], "soporte", "as it is now");
    let person = json!({"email": "new@ana.example", "name": "New", "rol": "EMPLEADO"});
    let user = made_once(&ana, "/api/users", "k", person, Some("invitation")).await;
    assert!(user["invitation"]["url"].is_string());
    let key = made_once(&ana, "/api/keys", "k", json!({"name": "m", "scopes": ["media"]}), Some("secret")).await;
    assert!(key["secret"].is_string());
    assert_eq!(
        stack.postgres.sql("select (select count(*) from session), (select count(*) from app_user), (select count(*) from api_key)"),
        "2|2|1"
    );

    // Another principal's key is another one; a refusal is not remembered; what is gone stays gone.
    let other = ana.person("ADMIN").await;
    let theirs = other.client.ask(Method::POST, "/api/sessions", &[("idempotency-key", "k")], Some(json!({"name": "soporte"}))).await;
    refused(&theirs, 409, "session_name_taken");
    refused(&post(&ana, "/api/sessions", "k2", json!({"name": "soporte"})).await, 409, "session_name_taken");
    assert_eq!(ana.client.delete(&format!("/api/sessions/{session}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&ana, "/api/sessions", "k2", json!({"name": "soporte"})).await.status, StatusCode::CREATED);
    refused(&post(&ana, "/api/sessions", "k", json!({"name": "ventas"})).await, 404, "not_found");
}

#[tokio::test]
async fn grants_are_given_once_a_key_and_a_grant_taken_back_is_not_given_again() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("EMPLEADO").await.id;
    let key = ana.key(json!({"scopes": ["chats:read"], "chats": []})).await.id;
    for path in [format!("/api/users/{person}/grants"), format!("/api/keys/{key}/grants")] {
        let body = json!({"session": "default", "chat": PEER, "access": "read"});
        let answers = join_all((0..5).map(|_| post(&ana, &path, "k", body.clone()))).await;
        assert_eq!(answers.iter().filter(|a| a.status == StatusCode::CREATED && is_replayed(a)).count(), 4, "{answers:?}");
        let grant = answers[0].body["id"].as_str().unwrap().to_owned();
        assert!(answers.iter().all(|a| a.body["id"] == json!(grant)));
        refused(
            &post(&ana, &path, "k", json!({"session": "default", "chat": PEER, "access": "write"})).await,
            422,
            "idempotency_key_reused",
        );
        refused(&post(&ana, &path, "k2", json!({"session": "nope", "chat": PEER, "access": "read"})).await, 404, "not_found");
        assert_eq!(ana.client.delete(&format!("{path}/{grant}")).await.status, StatusCode::NO_CONTENT);
        refused(&post(&ana, &path, "k", body).await, 404, "not_found");
        assert_eq!(ana.client.get(&path).await.ok()["items"], json!([]));
    }
}

#[tokio::test]
async fn a_secret_that_was_shown_is_neither_shown_nor_replaced_by_a_repeated_request() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (invited, _) = ana.invite("new@ana.example", "EMPLEADO").await;
    let (invited, active) = (invited["id"].as_str().unwrap().to_owned(), ana.person("EMPLEADO").await.id);
    for path in [
        format!("/api/users/{invited}/invitation"),
        format!("/api/users/{active}/password-reset"),
        "/api/whatsapp/link-page".to_owned(),
        "/api/events/ticket".to_owned(),
    ] {
        let answers = join_all((0..5).map(|_| post(&ana, &path, "k", json!({})))).await;
        assert_eq!(answers.iter().filter(|a| a.status == StatusCode::CREATED).count(), 1, "{path}: {answers:?}");
        let kept = || {
            stack.postgres.sql("select string_agg(encode(hash, 'hex'), ',' order by hash) from (select hash from user_link union select token_hash from link_page) h")
        };
        let before = kept();
        refused(&post(&ana, &path, "k", json!({})).await, 409, "secret_shown_once");
        assert_eq!(kept(), before, "{path}: the first one still counts");
        assert_eq!(post(&ana, &path, "k2", json!({})).await.status, StatusCode::CREATED, "{path}");
    }
    // A link that could not be made is not remembered.
    let path = format!("/api/users/{invited}/password-reset");
    refused(&post(&ana, &path, "k", json!({})).await, 409, "user_state");
    stack.postgres.sql("update app_user set state = 'active', password_hash = 'x' where email = 'new@ana.example'");
    assert_eq!(post(&ana, &path, "k", json!({})).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_chat_is_marked_as_read_once_a_key() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let path = format!("/api/chats/{PEER}/read");
    let body = json!({"whenUnavailable": "queue"});
    let answers = join_all((0..5).map(|_| post(&ana, &path, "k", body.clone()))).await;
    assert!(answers.iter().all(|a| a.status == StatusCode::ACCEPTED && a.body["id"] == answers[0].body["id"]), "{answers:?}");
    assert_eq!(answers.iter().filter(|a| is_replayed(a)).count(), 4);
    refused(&post(&ana, &path, "k", json!({})).await, 422, "idempotency_key_reused");
}
