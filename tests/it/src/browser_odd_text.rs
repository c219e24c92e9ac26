//! Text that no ordinary client writes reaches callers, and stops nothing that comes after it.

use harness::Stack;
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

fn is_message(event: &Value, wa_id: &str) -> bool {
    event["type"] == "message" && event["data"]["message"]["waId"] == wa_id
}

#[tokio::test]
async fn a_text_that_is_cut_inside_a_character_does_not_deafen_the_session() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    // One unit, then pairs: the page's limit of 65,536 units falls into the middle of one.
    let text = format!("a{}", "\u{1F600}".repeat(40_000));
    let job = ana.client.accepted(PEER, &text).await;
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let back = stack.sim.send(PEER, OURS, &text).await;
    let reply = stack.sim.send(PEER, OURS, "what was that?").await;
    let cut = ana.client.event("the long text in the log", SOON, |e| is_message(e, &back)).await;
    assert!(cut["data"]["message"]["text"].as_str().unwrap().starts_with("a\u{1F600}"));
    ana.client.event("the reply in the log", SOON, |e| is_message(e, &reply)).await;
    // What was missed is read from the page's rows: they hold the same text.
    drop(host);
    let missed = stack.sim.send(PEER, OURS, "while you were away").await;
    let _host = stack.host().await;
    ana.client.event("what came meanwhile", SOON, |e| is_message(e, &missed)).await;
}

#[tokio::test]
async fn a_text_with_a_nul_is_told_and_so_is_what_comes_after_it() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let odd = stack.sim.send(PEER, OURS, "a\0b forged-by-a-stranger").await;
    let next = stack.sim.send(PEER, OURS, "next").await;
    let told = ana.client.event("the odd text in the log", SOON, |e| is_message(e, &odd)).await;
    assert_eq!(told["data"]["message"]["text"], "a\u{FFFD}b forged-by-a-stranger");
    ana.client.event("the next text in the log", SOON, |e| is_message(e, &next)).await;
    // It came through page, host and API, and stays out of what they say.
    for entry in std::fs::read_dir(stack.folder().join("logs")).unwrap().flatten() {
        let log = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        assert!(!log.contains("forged-by-a-stranger") && !log.contains(PEER), "{}", entry.path().display());
    }
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    ana.client.until_state("stopped", SOON).await;
}

#[tokio::test]
async fn a_message_that_the_database_refuses_is_told_without_its_content_and_holds_nothing_up() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    stack.postgres.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception using errcode = '22021'; end $$;
         create trigger refuse before insert on message for each row when (new.body = 'refused') execute function refuse()",
    );
    // Together they are one batch.
    let mut ids = Vec::new();
    for text in ["one", "refused", "two"] {
        ids.push(stack.sim.send(PEER, OURS, text).await);
    }
    for (id, text) in ids.iter().zip([json!("one"), Value::Null, json!("two")]) {
        let told = ana.client.event("each message in the log", SOON, |e| is_message(e, id)).await;
        assert_eq!(told["data"]["message"]["text"], text);
    }
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    ana.client.until_state("stopped", SOON).await;
}

#[tokio::test]
async fn a_message_of_a_type_that_the_page_does_not_know_is_told_without_content() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let sent = stack.sim.ask(reqwest::Method::POST, &format!("/accounts/{PEER}/send"), Some(json!({"to": OURS, "type": "unknown"}))).await;
    let id = sent.1["id"].as_str().expect("it is sent").to_owned();
    let told = ana.client.event("the message in the log", SOON, |e| is_message(e, &id)).await;
    assert_eq!((&told["data"]["message"]["type"], &told["data"]["message"]["text"]), (&json!("unknown"), &Value::Null));
}
