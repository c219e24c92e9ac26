//! Both halves of webhooks together: made over HTTP, told by a worker, taken by a receiver, seen over HTTP.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Stack,
    receiver::{Got, Receiver, Reply},
    until,
};
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const QUICK: &str = r#"{"leaseMs": 2000, "lookEveryMs": 200, "retryAfterMs": [100, 100, 100, 100, 100]}"#;

/// Whether one of the request's signatures was made with this secret.
fn is_signed_with(got: &Got, secret: &str) -> bool {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a secret is base64");
    let signed = [got.header("webhook-id").as_bytes(), b".", got.header("webhook-timestamp").as_bytes(), b".", &got.raw].concat();
    let right = format!("v1,{}", STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed)));
    got.header("webhook-signature").split(' ').any(|one| one == right)
}

#[tokio::test]
async fn what_is_made_over_http_is_told_signed_seen_sent_again_and_replayed() {
    let mut stack = Stack::start().await;
    let _worker = stack.teller(QUICK).await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let body = json!({"name": "crm", "url": receiver.url("/in"), "headers": {"X-Team": "blue"}, "types": ["session.status"]});
    let made = ana.client.post("/api/webhooks", body).await.ok();
    let (path, first) = (format!("/api/webhooks/{}", made["id"].as_str().unwrap()), made["secret"].as_str().unwrap().to_owned());
    let events = async || ana.client.events(0).await.into_iter().filter(|e| e["type"] == "session.status").collect::<Vec<_>>();
    let post = async |to: &str, body: Value| ana.client.post(&format!("{path}{to}"), body).await;

    // An event is the same as in the log, signed, with the tenant's header; the log of deliveries says so.
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    let got = receiver.until("the first event", SOON, |all| !all.is_empty()).await;
    let event = events().await[0].clone();
    assert_eq!((&got[0].body, got[0].header("webhook-id")), (&event, event["id"].as_str().unwrap()));
    assert_eq!((got[0].header("x-team"), got[0].header("zaguan-replay"), got[0].path.as_str()), ("blue", "", "/in"));
    assert!(is_signed_with(&got[0], &first));
    let delivery = until("its delivery", SOON, || async {
        let page = ana.client.get(&format!("{path}/deliveries?state=delivered&type=session.status")).await.ok();
        page["items"].get(0).cloned()
    })
    .await;
    assert_eq!((&delivery["event"], &delivery["kind"], &delivery["status"]), (&event["id"], &json!("live"), &json!(200)));
    assert_eq!(ana.client.get(&path).await.ok()["cursor"], event["seq"]);

    // One event again.
    let again = post(&format!("/deliveries/{}/redeliver", delivery["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.body);
    let got = receiver.until("the redelivery", SOON, |all| all.len() >= 2).await;
    assert_eq!((got[1].header("webhook-id"), &got[1].raw), (got[0].header("webhook-id"), &got[0].raw));
    until("the redelivery's end", SOON, || async {
        let row = ana.client.get(&format!("{path}/deliveries/{}", again.body["id"].as_str().unwrap())).await.ok();
        (row["state"] == "delivered" && row["kind"] == "redelivery").then_some(())
    })
    .await;

    // While the secret changes, both sign.
    let second = post("/secret", json!({"overlap": 3600})).await.ok()["secret"].as_str().unwrap().to_owned();
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    let got = receiver.until("the second event", SOON, |all| all.len() >= 3).await;
    // By the new one as soon as its worker has heard of it.
    assert!(is_signed_with(&got[2], &first));

    // From the first event on again, in order, marked: what had been settled by then.
    until("the second event to be settled", SOON, || async {
        (ana.client.get(&path).await.ok()["cursor"].as_i64() >= Some(got[2].seq())).then_some(())
    })
    .await;
    let back = post("/replay", json!({"seq": event["seq"]})).await.ok();
    assert_eq!(back["id"], made["id"]);
    let got = receiver.until("the replay", SOON, |all| all.len() >= 5).await;
    assert_eq!([got[3].seq(), got[4].seq()], [got[0].seq(), got[2].seq()]);
    assert!(got[3..5].iter().all(|g| g.header("zaguan-replay") == "true" && is_signed_with(g, &first) && is_signed_with(g, &second)));
    assert_eq!(got[3].header("webhook-id"), got[0].header("webhook-id"));
}

#[tokio::test]
async fn a_test_call_answers_what_the_receiver_said_and_410_disables_until_somebody_resumes() {
    let mut stack = Stack::start().await;
    let _worker = stack.teller(QUICK).await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let made = ana.client.post("/api/webhooks", json!({"name": "crm", "url": receiver.url("/in")})).await.ok();
    let (path, secret) = (format!("/api/webhooks/{}", made["id"].as_str().unwrap()), made["secret"].as_str().unwrap().to_owned());
    let test = async || ana.client.ask(Method::POST, &format!("{path}/test"), &[("prefer", "wait=20")], None).await;

    let answer = test().await;
    assert_eq!((answer.status, &answer.body["state"], &answer.body["status"]), (StatusCode::OK, &json!("delivered"), &json!(200)));
    let got = receiver.got();
    assert_eq!(
        (got.len(), &got[0].body["type"], got[0].header("webhook-id")),
        (1, &json!("webhook.test"), answer.body["event"].as_str().unwrap())
    );
    assert!(is_signed_with(&got[0], &secret));
    receiver.answers(|_| Reply::Full(503, Vec::new(), b"not today".to_vec()));
    let answer = test().await;
    assert_eq!((answer.status, &answer.body["state"], &answer.body["attempts"]), (StatusCode::OK, &json!("dead"), &json!(1)), "tried once");
    assert_eq!((&answer.body["status"], &answer.body["answer"]), (&json!(503), &json!("not today")));

    receiver.answers(|_| Reply::Status(410));
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    let told = ana.client.event("the webhook's end", SOON, |e| e["type"] == "webhook.status").await;
    assert_eq!(told["data"], json!({"webhook": made["id"], "state": "disabled", "reason": "gone"}));
    assert_eq!(ana.client.get(&path).await.ok()["reason"], "gone");
    receiver.answers(|_| Reply::Status(200));
    let before = receiver.got().len();
    ana.client.patch(&path, json!({"state": "active"})).await.ok();
    let got =
        receiver.until("what happened meanwhile", SOON, |all| all[before..].iter().any(|g| g.body["data"]["state"] == "active")).await;
    let seqs: Vec<_> = got[before..].iter().map(Got::seq).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert!(got[before..].iter().any(|g| g.body["id"] == told["id"]), "nothing that happened meanwhile is lost");
}
