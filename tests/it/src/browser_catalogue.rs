//! What a walk through the product emits is what the catalogue says, type by type.

use std::collections::BTreeSet;

use contract::EventType;
use harness::{Stack, catalogue};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

/// Types that this walk does not come by, and what does.
const ELSEWHERE: [(EventType, &str); 8] = [
    (EventType::ChatMerged, "store: identity, it: browser_identity"),
    (EventType::ChatIdentityChanged, "store: identity, it: browser_identity"),
    (EventType::ContactErased, "it: privacy"),
    (EventType::JobLost, "queue: restored"),
    (EventType::LogRestored, "queue: restored, it: restored"),
    (EventType::SessionGap, "store: catalogue, it: browser_death"),
    (EventType::WebhookStatus, "it: webhooks"),
    (EventType::StreamGap, "it: streams"),
];

#[tokio::test]
async fn every_type_that_a_walk_through_the_product_emits_is_in_the_catalogue_and_says_what_it_should() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    // From before the first event to after the last one, as an ADMIN hears it: what is in no log too.
    let mut stream = ana.client.stream("/api/events/stream", &[]).await.unwrap();
    ana.link(&stack.sim, OURS).await;
    let sent = ana.client.accepted(PEER, "how much is it?").await;
    assert_eq!(ana.client.ended(&sent, SOON).await["state"], "succeeded");
    stack.sim.read(PEER, OURS).await;
    stack.sim.send(PEER, OURS, "twelve").await;
    ana.client.event("the answer", SOON, |e| e["data"]["message"]["text"] == "twelve").await;
    ana.client.event("the receipt", SOON, |e| e["type"] == "message.ack").await;
    ana.client.event("the history", SOON, |e| e["type"] == "history.synced").await;
    let person = ana.person("EMPLEADO").await;
    let chat = ana.client.job(&sent).await["chat"].as_str().unwrap().to_owned();
    let grant = ana.grant(&person.id, &chat, "write").await;
    ana.client.delete(&format!("/api/users/{}/grants/{grant}", person.id)).await.ok();
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    let stopped = |e: &Value| e["data"]["session"]["state"] == "stopped";
    ana.client.event("the stop", SOON, stopped).await;

    let mut heard = Vec::new();
    while !heard.last().is_some_and(stopped) {
        heard.push(stream.event(SOON).await);
    }
    let log = ana.client.events(0).await;
    heard.iter().chain(&log).for_each(catalogue::check);
    let durable: Vec<_> = heard.iter().filter(|e| e["seq"].is_i64()).cloned().collect();
    assert_eq!(durable, log, "the same on both transports");

    let seen: BTreeSet<&str> = heard.iter().filter_map(|e| e["type"].as_str()).collect();
    let expected: BTreeSet<&str> =
        EventType::ALL.iter().filter(|kind| !ELSEWHERE.iter().any(|(other, _)| other == *kind)).map(EventType::as_str).collect();
    assert_eq!(seen, expected);
}
