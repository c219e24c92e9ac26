//! A message goes out once, in order, and comes back as one event.

use std::time::Duration;

use harness::Stack;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

#[tokio::test]
async fn a_newcomer_links_a_phone_sends_follows_the_job_and_reads_the_reply() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;

    stack.sim.account(OURS).await;
    let init = ana.client.post("/api/whatsapp/init", json!({})).await;
    assert_eq!(init.status, StatusCode::ACCEPTED);
    let qr = harness::until("a code", SOON, || async {
        ana.client.get("/api/whatsapp/qr?wait=20").await.body["qr"].as_str().map(str::to_owned)
    })
    .await;
    let (status, png) = ana.client.bytes("/api/whatsapp/qr", "image/png").await;
    assert!(status.is_success() && png.starts_with(b"\x89PNG"));
    assert!(stack.sim.scan(OURS, &qr).await);
    ana.client.until_state("working", SOON).await;
    let me = ana.client.get("/api/whatsapp/status").await.ok()["me"].clone();
    assert_eq!(me["phone"], OURS);

    let answer = ana.client.send(PEER, "bom dia").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.headers["location"], format!("/api/jobs/{id}"));
    let job = ana.client.ended(&id, SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert!(job["message"]["id"].as_str().unwrap().starts_with("msg_"));
    assert!(job["evidence"]["ack"].as_i64() >= Some(1));
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["bom dia"]);

    let replied = stack.sim.send(PEER, OURS, "tudo bem?").await;
    let event = ana
        .client
        .event("the reply in the log", SOON, |e| e["type"] == "message" && e["data"]["message"]["waId"] == replied.as_str())
        .await;
    assert_eq!(event["data"]["message"]["text"], "tudo bem?");
    assert_eq!(event["data"]["message"]["fromMe"], false);
    assert_eq!(event["data"]["message"]["type"], "text");
    assert_eq!(event["chat"], job["chat"], "the reply is in the chat that was written to");

    stack.sim.read(PEER, OURS).await;
    harness::until("the read receipt in the evidence", SOON, || async {
        (ana.client.job(&id).await["evidence"]["ack"] == 3).then_some(())
    })
    .await;
    let seqs: Vec<i64> = ana.client.events(0).await.iter().map(|e| e["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "the log has no hole and no repeat");

    let chats = ana.client.get("/api/chats").await.ok();
    assert_eq!(chats["items"][0]["id"], job["chat"]);
    let shown = ana.client.get(&format!("/api/chats/{PEER}/messages")).await.ok();
    let texts: Vec<&str> = shown["items"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap_or_default()).collect();
    assert_eq!(texts, ["tudo bem?", "bom dia"]);
}

#[tokio::test]
async fn a_message_that_comes_between_the_scan_and_the_end_of_syncing_is_announced_once() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    for phone in [OURS, PEER] {
        stack.sim.account(phone).await;
    }
    let held = stack.sim.fault(json!({"kind": "sync_delay", "account": OURS})).await;
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    harness::until("a scanned code", SOON, || async {
        let qr = ana.client.get("/api/whatsapp/qr?wait=20").await;
        match qr.body["qr"].as_str() {
            Some(code) => stack.sim.scan(OURS, code).await.then_some(()),
            None => None,
        }
    })
    .await;
    ana.client.until_state("syncing", SOON).await;
    let early = stack.sim.send(PEER, OURS, "are you there?").await;
    // WhatsApp's times are whole seconds: in the one in which it came, any moment would do as that of the link.
    let second = || stack.postgres.sql("select extract(epoch from clock_timestamp())::bigint");
    let came = second();
    harness::until_true("the second after the next", SOON, || async { second() > came }).await;
    let next = second();
    harness::until_true("the second after the next", SOON, || async { second() > next }).await;
    stack.sim.clear_fault(held).await;
    ana.client.until_state("working", SOON).await;
    let is_it = |e: &Value| e["type"] == "message" && e["data"]["message"]["waId"] == early.as_str();
    ana.client.event("the early message", SOON, is_it).await;
    harness::until_true("the page to be read", SOON, || async { ana.client.get("/api/chats").await.ok()["complete"] == true }).await;
    let late = stack.sim.send(PEER, OURS, "good").await;
    ana.client.event("the next one", SOON, |e| e["data"]["message"]["waId"] == late.as_str()).await;
    assert_eq!(ana.client.events(0).await.iter().filter(|e| is_it(e)).count(), 1);
}

#[tokio::test]
async fn twenty_messages_arrive_once_and_in_the_order_of_their_acceptance() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(ana.client.accepted(PEER, &format!("text {n}")).await);
    }
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    let expected: Vec<String> = (0..20).map(|n| format!("text {n}")).collect();
    assert_eq!(stack.sim.texts(PEER, OURS).await, expected);
    assert_eq!(stack.sim.stats().await["duplicates"], 0);
}

#[tokio::test]
async fn the_same_idempotency_key_sends_nothing_again_and_another_body_is_refused() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let send = |text: &'static str| {
        let client = ana.client.clone();
        async move {
            let headers = [("idempotency-key", "order-17"), ("prefer", "wait=20")];
            client.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &headers, Some(json!({"type": "text", "text": text}))).await
        }
    };
    let first = send("once").await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    let answers = futures::future::join_all((0..5).map(|_| send("once"))).await;
    for again in answers {
        assert_eq!(again.body["id"], first.body["id"]);
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert_eq!(send("twice").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["once"]);
}

#[tokio::test]
async fn bundles_that_arrive_late_still_end_in_a_session_that_receives() {
    for gap in [200, 2_000, 5_000] {
        let mut stack = Stack::start().await;
        stack.sim.fault(json!({"kind": "slow_modules", "gapMs": gap})).await;
        let _host = stack.host().await;
        let ana = stack.tenant("ana").await;
        stack.sim.account(PEER).await;
        ana.link(&stack.sim, OURS).await;
        let id = stack.sim.send(PEER, OURS, "are you there?").await;
        ana.client
            .event(&format!("the message in the log with a gap of {gap} ms"), SOON, |e: &Value| e["data"]["message"]["waId"] == id.as_str())
            .await;
    }
}

#[tokio::test]
async fn what_the_page_has_and_nobody_was_told_of_is_found_while_the_session_goes_on_working() {
    let mut stack = Stack::with(harness::Settings::timed(&json!({"compareEveryMs": 2000}))).await.expect("a stack starts");
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let announced = async |id: &str| {
        let events = ana.client.events(0).await;
        events.into_iter().filter(|e| e["type"] == "message" && e["data"]["message"]["waId"] == id).collect::<Vec<_>>()
    };
    // From here on nothing but the comparison reads rows.
    harness::until_true("the page to be read", SOON, || async { ana.client.get("/api/chats").await.ok()["complete"] == true }).await;
    let (state, browsers) = (ana.client.state().await, host.browsers());
    // As if it had never been recorded, before a comparison came past it; one that did does not look there again.
    let mut found = None;
    for _ in 0..6 {
        let id = stack.sim.send(PEER, OURS, "missed").await;
        harness::until_true("the message", SOON, || async { !announced(&id).await.is_empty() }).await;
        stack.postgres.sql(&format!("delete from message where wa_id = '{id}'; update session set profile_row_id = 0"));
        let twice = harness::until_true("it to be found", SOON, || async { announced(&id).await.len() == 2 });
        if tokio::time::timeout(Duration::from_secs(5), twice).await.is_ok()
            && announced(&id).await[1]["data"]["message"]["recovered"] == true
        {
            found = Some(id);
            break;
        }
    }
    let missed = found.expect("one of them is found");
    let told = announced(&missed).await;
    assert_eq!(told[1]["data"]["message"]["recovered"], true, "{told:?}");
    assert_eq!((state.as_str(), ana.client.state().await.as_str()), ("working", "working"));
    assert_eq!(host.browsers(), browsers, "nothing was connected anew");
}
