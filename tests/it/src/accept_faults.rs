//! The named fault points of acceptance that need no browser: a job that was answered for exists once, whatever is cut.

use std::time::Duration;

use futures::future::join_all;
use harness::{Settings, Stack, Tenant, faults::Word, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{PEER, SOON};

async fn proxied() -> (Stack, Tenant) {
    let stack = Stack::with(Settings { proxies: true, ..Settings::default() }).await.expect("the stack starts");
    let ana = stack.tenant("ana").await;
    // The chat is there, and the statement prepared.
    send(&ana, "first", "key-0").await;
    (stack, ana)
}

/// Sends under a key, to a session that does not run: what is accepted stays queued.
async fn send(of: &Tenant, text: &str, key: &str) -> harness::client::Answer {
    let body = json!({"type": "text", "text": text, "whenUnavailable": "queue"});
    of.client.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &[("idempotency-key", key)], Some(body)).await
}

async fn rows(stack: &Stack, text: &str) -> i64 {
    let count = "select count(*) from job join message on message.job = job.id where body = $1";
    sqlx::query_scalar(count).bind(text).fetch_one(&stack.db().await).await.expect("Postgres answers")
}

/// Whether the job waits in its lane.
async fn pushed(stack: &Stack, job: &Value) -> bool {
    let lanes = format!("{:?}", stack.redis.command(&["KEYS", "zg:*:lane:*:write"]).await);
    let start = lanes.find("zg:").expect("there is a lane");
    let lane = lanes[start..].split(['\'', '"']).next().expect("a key");
    format!("{:?}", stack.redis.command(&["ZRANGE", lane, "0", "-1"]).await).contains(job.as_str().expect("an id"))
}

#[tokio::test]
async fn an_acceptance_whose_commit_was_not_answered_is_found_answered_with_202_and_pushed() {
    let (stack, ana) = proxied().await;
    let cut = stack.proxies().postgres.hold_answer("precious");
    let (answer, ()) = tokio::join!(send(&ana, "precious", "key-1"), cut.cut());
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert!(pushed(&stack, &answer.body["id"]).await);
    let again = send(&ana, "precious", "key-1").await;
    assert_eq!((again.status, &again.body["id"]), (StatusCode::ACCEPTED, &answer.body["id"]));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(rows(&stack, "precious").await, 1);
}

#[tokio::test]
async fn a_repeated_request_whose_answer_was_cut_gets_the_first_job() {
    let (stack, ana) = proxied().await;
    let first = send(&ana, "precious", "key-1").await;
    // The look for what the key made before: the statement that would accept finds it all the same.
    let cut = stack.proxies().postgres.hold_answer("key-1");
    let (answer, ()) = tokio::join!(send(&ana, "precious", "key-1"), cut.cut());
    assert_eq!((answer.status, &answer.body["id"]), (StatusCode::ACCEPTED, &first.body["id"]), "{}", answer.body);
    assert_eq!(rows(&stack, "precious").await, 1);
}

#[tokio::test]
async fn an_acceptance_that_stays_unclear_answers_503_with_the_jobs_id_and_the_same_key_leads_to_that_job() {
    let (stack, ana) = proxied().await;
    let postgres = &stack.proxies().postgres;
    let mut held = postgres.hold_answer("precious");
    let cut = async {
        held.arrived().await;
        postgres.refuse();
        postgres.cut();
    };
    let (answer, ()) = tokio::join!(send(&ana, "precious", "key-1"), cut);
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("acceptance_unknown")), "{}", answer.body);
    postgres.pass();
    let again = until("the database to be reached again", SOON, || async {
        let again = send(&ana, "precious", "key-1").await;
        again.status.is_success().then_some(again)
    })
    .await;
    assert_eq!(again.body["id"], answer.body["jobId"]);
    assert_eq!(rows(&stack, "precious").await, 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_after_the_commit_undoes_nothing() {
    let (stack, ana) = proxied().await;
    let mut armed = stack.points().arm_once("api.accept.committed");
    let hangs_up = tokio::time::timeout(Duration::from_millis(300), send(&ana, "precious", "key-1"));
    let (answer, held) = tokio::join!(hangs_up, armed.arrived());
    assert!(answer.is_err(), "it was not answered");
    let job = held.ids["job"].clone();
    held.reply(Word::Go).await;
    until("its push", SOON, || async { pushed(&stack, &job).await.then_some(()) }).await;
    assert_eq!(send(&ana, "precious", "key-1").await.body["id"], job);
}

#[tokio::test]
async fn an_api_that_stands_still_after_a_commit_keeps_no_other_api_waiting() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let mut second = stack.another_api().await;
    let [ana2, bea2] = [&ana, &bea].map(|tenant| Tenant {
        client: tenant.client.at(&second.url()),
        id: tenant.id.clone(),
        session: tenant.session.clone(),
        password: String::new(),
    });
    for tenant in [&ana2, &bea2] {
        assert_eq!(send(tenant, "warm", "key-0").await.status, StatusCode::ACCEPTED);
    }
    let mut armed = stack.points().arm_once("api.accept.committed");
    let (client, session) = (ana.client.clone(), ana.session.clone());
    let paused =
        tokio::spawn(async move { send(&Tenant { client, id: String::new(), session, password: String::new() }, "paused", "key-1").await });
    let held = armed.arrived().await;
    assert_eq!(held.pid, stack.api.process.pid());
    held.reply(Word::Stop).await;
    // In its own session as in another tenant's.
    for tenant in [&ana2, &bea2] {
        let mut took = Vec::new();
        for n in 0..5 {
            let began = std::time::Instant::now();
            assert_eq!(send(tenant, "beside", &format!("key-{n}b")).await.status, StatusCode::ACCEPTED);
            took.push(began.elapsed());
        }
        // The fastest: a lock would have stopped all five, a busy machine does not.
        assert!(took.iter().min().is_some_and(|took| *took < Duration::from_millis(100)), "{took:?}");
    }
    stack.api.process.signal(harness::process::Signal::CONT);
    assert_eq!(paused.await.expect("it does not panic").status, StatusCode::ACCEPTED);
    second.process.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn fifty_requests_with_one_key_at_once_make_one_job_one_message_and_one_answer() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let answers = join_all((0..50).map(|_| send(&ana, "precious", "key-1"))).await;
    let first = &answers[0].body;
    assert!(first["id"].is_string(), "{first}");
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (StatusCode::ACCEPTED, first));
    }
    assert_eq!(answers.iter().filter(|a| a.headers.contains_key("idempotency-replayed")).count(), 49);
    assert_eq!(rows(&stack, "precious").await, 1);
    let other = send(&ana, "another body", "key-1").await;
    assert_eq!((other.status, &other.body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency_key_reused")));
    assert_eq!(rows(&stack, "another body").await, 0);
    // The same key of another principal is another key.
    let theirs = send(&bea, "precious", "key-1").await;
    assert_eq!(theirs.status, StatusCode::ACCEPTED);
    assert!(!theirs.headers.contains_key("idempotency-replayed"));
    assert_ne!(theirs.body["id"], first["id"]);
}
