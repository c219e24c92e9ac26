//! Jobs: what was accepted has one end, one message, and is told to those who may see it.

use harness::{Stack, Tenant};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

fn waiting(text: &str) -> Value {
    json!({"type": "text", "text": text, "whenUnavailable": "queue"})
}

async fn queued(ana: &Tenant, body: Value) -> String {
    let answer = ana.client.post(&format!("/api/chats/{PEER}/messages"), body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    answer.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn fifty_requests_with_one_key_are_one_job_one_message_and_one_answer() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let path = format!("/api/chats/{PEER}/messages");
    let headers = [("idempotency-key", "order-17")];
    let answers = futures::future::join_all((0..50).map(|_| ana.client.ask(Method::POST, &path, &headers, Some(waiting("once"))))).await;
    let first = answers[0].body["id"].clone();
    for answer in &answers {
        assert_eq!((answer.status, &answer.body["id"]), (StatusCode::ACCEPTED, &first), "{}", answer.body);
        assert_eq!(answer.body["message"]["id"], answers[0].body["message"]["id"]);
    }
    assert_eq!(answers.iter().filter(|a| !a.headers.contains_key("idempotency-replayed")).count(), 1, "one of them was the first");
    assert_eq!(stack.postgres.sql("select (select count(*) from job) || ' ' || (select count(*) from message)"), "1 1");

    let other = ana.client.ask(Method::POST, &path, &headers, Some(waiting("twice"))).await;
    assert_eq!((other.status, &other.body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency_key_reused")));
    // What is refused is not remembered.
    let refused = [("idempotency-key", "order-18")];
    let bad = ana.client.ask(Method::POST, &path, &refused, Some(json!({"type": "text", "text": ""}))).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    let down = ana.client.ask(Method::POST, &path, &refused, Some(json!({"type": "text", "text": "x"}))).await;
    assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ana.client.ask(Method::POST, &path, &refused, Some(waiting("new"))).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_colleagues_key_says_nothing_and_a_replay_answers_only_who_may_still_see_the_job() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let eva = stack.employee(&ana, "eva@ana.example").await;
    let headers = [("idempotency-key", "order-17")];
    let path = format!("/api/chats/{PEER}/messages");
    let first = ana.client.ask(Method::POST, &path, &headers, Some(waiting("once"))).await.ok();
    assert_eq!(eva.ask(Method::POST, &path, &headers, Some(waiting("once"))).await.status, StatusCode::NOT_FOUND);
    stack.grant("eva@ana.example", &format!("{PEER}@c.us"), "write");
    let own = eva.ask(Method::POST, &path, &headers, Some(waiting("once"))).await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
    assert_ne!(own.body["id"], first["id"], "another principal's key is another key");
    assert!(!own.headers.contains_key("idempotency-replayed"));
    assert_ne!(own.body["createdBy"], first["createdBy"]);
    stack.postgres.sql("delete from access_grant");
    assert_eq!(eva.ask(Method::POST, &path, &headers, Some(waiting("once"))).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_job_shows_what_it_is_and_what_it_waits_for_and_is_found_by_what_it_is_about() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let body = json!({"type": "text", "text": "x", "reference": "invoice 7", "whenUnavailable": "queue", "expiresIn": 60});
    let id = queued(&ana, body).await;
    let job = ana.client.job(&id).await;
    for (field, expected) in [
        ("kind", json!("sendText")),
        ("state", json!("queued")),
        ("waitingFor", json!("session")),
        ("session", json!(ana.session)),
        ("reference", json!("invoice 7")),
        ("attempts", json!(0)),
    ] {
        assert_eq!(job[field], expected, "{field}");
    }
    for field in ["startedAt", "finishedAt", "result", "evidence", "error", "resendOf"] {
        assert_eq!(job.get(field), Some(&Value::Null), "{field} is there, and says nothing yet");
    }
    assert!(job["createdBy"].as_str().is_some_and(|by| by.starts_with("usr_")));
    let other = queued(&ana, waiting("y")).await;
    ana.client.post(&format!("/api/jobs/{other}/cancel"), json!({})).await.ok();

    let chat = job["chat"].as_str().unwrap();
    let session = &ana.session;
    for (query, found) in [
        ("reference=invoice%207".to_owned(), vec![&id]),
        ("state=queued".into(), vec![&id]),
        ("state=cancelled".into(), vec![&other]),
        (format!("chat={chat}&state=queued"), vec![&id]),
        (format!("chat={PEER}"), vec![&other, &id]),
        (format!("session={session}"), vec![&other, &id]),
        ("session=default&reference=none".into(), vec![]),
        ("state=running".into(), vec![]),
    ] {
        let items = ana.client.get(&format!("/api/jobs?{query}")).await.ok()["items"].as_array().unwrap().clone();
        let ids: Vec<&Value> = items.iter().map(|j| &j["id"]).collect();
        assert_eq!(ids, found.iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>(), "{query}");
    }
    assert_eq!(ana.client.get("/api/jobs?state=lost").await.status, StatusCode::BAD_REQUEST);

    let cancelled = ana.client.job(&other).await;
    assert_eq!(cancelled["error"]["code"], "job_cancelled");
    assert_eq!(cancelled["error"]["retryable"], json!(false));
    assert!(cancelled["error"].get("userAction").is_some() && cancelled["error"]["detail"].is_string());
    let again = ana.client.post(&format!("/api/jobs/{other}/cancel"), json!({})).await;
    assert_eq!((again.status, &again.body["code"]), (StatusCode::CONFLICT, &json!("job_finished")));
    stack.postgres.sql("update job set state = 'running' where state = 'queued'");
    let running = ana.client.post(&format!("/api/jobs/{id}/cancel"), json!({})).await;
    assert_eq!((running.status, &running.body["code"]), (StatusCode::CONFLICT, &json!("job_running")));
}

#[tokio::test]
async fn a_job_that_did_not_succeed_is_sent_again_as_the_same_message_and_others_are_refused() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let id = queued(&ana, json!({"type": "text", "text": "x", "reference": "r", "whenUnavailable": "queue"})).await;
    let resend = |id: &str, key: &'static str| {
        let (client, path) = (ana.client.clone(), format!("/api/jobs/{id}/resend"));
        async move { client.ask(Method::POST, &path, &[("idempotency-key", key)], Some(json!({"whenUnavailable": "queue"}))).await }
    };
    let early = resend(&id, "a").await;
    assert_eq!((early.status, &early.body["code"]), (StatusCode::CONFLICT, &json!("job_not_resendable")));
    let first = ana.client.post(&format!("/api/jobs/{id}/cancel"), json!({})).await.ok();
    let again = resend(&id, "a").await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.body);
    assert_eq!((&again.body["resendOf"], &again.body["reference"], &again.body["chat"]), (&json!(id), &json!("r"), &first["chat"]));
    for field in ["id", "waId"] {
        assert_eq!(again.body["message"][field], first["message"][field], "the same {field}");
    }
    let replay = resend(&id, "a").await;
    assert_eq!((&replay.body["id"], replay.headers.contains_key("idempotency-replayed")), (&again.body["id"], true));
    let messages = ana.client.get(&format!("/api/chats/{PEER}/messages")).await.ok();
    assert_eq!(messages["items"].as_array().unwrap().len(), 1, "one message, whatever its jobs");
    assert_eq!((&messages["items"][0]["status"], &messages["items"][0]["job"]), (&json!("queued"), &again.body["id"]));

    stack.postgres.sql("update job set state = 'succeeded' where state = 'cancelled'");
    let done = resend(&id, "b").await;
    assert_eq!((done.status, &done.body["code"]), (StatusCode::CONFLICT, &json!("job_not_resendable")));
    assert_eq!(resend(&id, "a").await.body["id"], again.body["id"], "a replay is answered whatever has become of the job");
    let read = ana.client.post(&format!("/api/chats/{PEER}/read"), json!({"whenUnavailable": "queue"})).await.ok();
    let read = read["id"].as_str().unwrap();
    ana.client.post(&format!("/api/jobs/{read}/cancel"), json!({})).await.ok();
    assert_eq!(resend(read, "c").await.body["code"], "job_not_resendable", "it sends nothing");
    let down = ana.client.post(&format!("/api/jobs/{id}/resend"), json!({})).await;
    assert_eq!(down.status, StatusCode::CONFLICT);
    assert_eq!(ana.client.post("/api/jobs/job_00000000000000000000000000/resend", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ana.client.post("/api/jobs/nonsense/resend", json!({})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn whoever_waits_hears_of_a_failure_as_its_own_status_with_the_job() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (client, path) = (ana.client.clone(), format!("/api/chats/{PEER}/messages"));
    let waits = tokio::spawn(async move { client.ask(Method::POST, &path, &[("prefer", "wait=20")], Some(waiting("never"))).await });
    let id = harness::until("the job", crate::SOON, || async {
        ana.client.get("/api/jobs").await.ok()["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    ana.client.post(&format!("/api/jobs/{id}/cancel"), json!({})).await.ok();
    let answer = waits.await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::CONFLICT, &json!("job_cancelled")));
    assert_eq!((&answer.body["job"]["id"], &answer.body["job"]["state"]), (&json!(id), &json!("cancelled")));
    assert_eq!(answer.headers["location"], format!("/api/jobs/{id}"));
    assert_eq!(ana.client.get(&format!("/api/jobs/{id}")).await.status, StatusCode::OK, "the job itself is always there");
    let impatient =
        ana.client.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &[("prefer", "wait=1")], Some(waiting("later"))).await;
    assert_eq!((impatient.status, &impatient.body["state"]), (StatusCode::ACCEPTED, &json!("queued")));
}
