//! Chats and messages as a real page tells them: people under two names, and what was there before the link.

use harness::{Stack, faults::Word};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

#[tokio::test]
async fn a_chat_written_to_by_number_is_known_by_both_names_when_the_page_has_told() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let job = ana.client.accepted(PEER, "hello").await;
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!((&job["result"]["message"], &job["result"]["waId"]), (&job["message"]["id"], &job["message"]["waId"]));
    let chat = ana.client.get(&format!("/api/chats/{PEER}")).await.ok();
    let lid = chat["lid"].as_str().expect("the page told the LID").to_owned();
    assert_eq!(ana.client.get(&format!("/api/chats/{lid}")).await.ok()["id"], chat["id"]);

    let replied = stack.sim.send(PEER, OURS, "hi").await;
    ana.client.event("the reply", SOON, |e| e["data"]["message"]["waId"] == replied.as_str()).await;
    let messages = ana.client.get(&format!("/api/chats/{lid}/messages")).await.ok();
    let reply = &messages["items"][0];
    assert_eq!((&reply["sender"]["lid"], &reply["sender"]["phone"]), (&json!(lid), &json!(PEER)));
    assert_eq!((&reply["source"], &reply["status"]), (&json!("phone"), &json!("received")));
    assert_eq!((&messages["items"][1]["source"], &messages["items"][1]["fromMe"]), (&json!("api"), &json!(true)));
    for form in [PEER, lid.as_str()] {
        let contact = ana.client.get(&format!("/api/contacts/{form}")).await.ok();
        assert_eq!((&contact["lid"], &contact["phone"]), (&json!(lid), &json!(PEER)));
    }
    harness::until("the end of what was there before", SOON, || async {
        (ana.client.get("/api/chats").await.ok()["complete"] == true).then_some(())
    })
    .await;
    let synced: Vec<_> = ana.client.events(0).await.into_iter().filter(|e| e["type"] == "history.synced").collect();
    assert_eq!(synced.len(), 1);
    assert_eq!(synced[0]["data"]["history"]["messages"], 0);
}

#[tokio::test]
async fn what_was_there_before_the_link_fills_the_read_model_without_a_message_event_and_ends_in_one() {
    let mut stack = Stack::start().await;
    let mut host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(OURS).await;
    let past = json!({"chats": 3, "messages": 150, "chunk": 40});
    let (_, made) = stack.sim.ask(Method::POST, &format!("/accounts/{OURS}/history"), Some(past)).await;
    let peer = made["chats"][0]["phone"].as_str().expect("a number").to_owned();
    let book = json!([{"phone": peer, "name": "Bea \u{0}\n{\"level\":\"forged\"}"}]);
    stack.sim.ask(Method::POST, &format!("/accounts/{OURS}/contacts"), Some(book)).await;
    ana.link(&stack.sim, OURS).await;
    let is_synced = |e: &Value| e["type"] == "history.synced";
    let synced = ana.client.event("the end of the past", SOON, is_synced).await;
    let told = &synced["data"]["history"];
    assert_eq!((&told["chats"], &told["messages"]), (&json!(3), &json!(450)));
    assert!(told["from"].as_str() < told["to"].as_str());
    assert!(!ana.client.events(0).await.iter().any(|e| e["type"] == "message"), "the past is not announced");
    let chats = ana.client.get("/api/chats").await.ok();
    assert_eq!((chats["items"].as_array().map(Vec::len), &chats["complete"]), (Some(3), &json!(true)));
    let mut shown = 0;
    let mut path = format!("/api/chats/{peer}/messages?limit=100");
    loop {
        let page = ana.client.get(&path).await.ok();
        shown += page["items"].as_array().map_or(0, Vec::len);
        match page["next"].as_str() {
            Some(next) => path = format!("/api/chats/{peer}/messages?limit=100&before={next}"),
            None => break,
        }
    }
    assert_eq!(shown, 150);
    let contact = ana.client.get(&format!("/api/contacts/{peer}")).await.ok();
    assert_eq!(contact["name"], json!("Bea \u{fffd}\n{\"level\":\"forged\"}"), "a name is text, whatever is in it");

    // Read again from the first row, as after a start: nothing is new, and nothing is told again.
    host.leave(SOON).await.expect("the host leaves when it is told to");
    stack.postgres.sql("update session set profile_row_id = 0");
    let _host = stack.host().await;
    let late = stack.sim.send(&peer, OURS, "and now").await;
    ana.client.event("what is new", SOON, |e| e["data"]["message"]["waId"] == late.as_str()).await;
    harness::until("the page to be read", SOON, || async { (ana.client.get("/api/chats").await.ok()["complete"] == true).then_some(()) })
        .await;
    let events = ana.client.events(0).await;
    assert_eq!(events.iter().filter(|e| is_synced(e)).count(), 1);
    assert_eq!(events.iter().filter(|e| e["type"] == "message").count(), 1);
    assert_eq!(stack.postgres.sql("select count(*) from message"), "451");
}

#[tokio::test]
async fn a_chat_that_goes_to_its_hidden_id_between_two_attempts_hides_no_message() {
    for rekey in [false, true] {
        let mut stack = Stack::start().await;
        let _first = stack.host().await;
        let ana = stack.tenant("ana").await;
        stack.sim.account(PEER).await;
        ana.link(&stack.sim, OURS).await;
        let _second = stack.host().await;
        let mut flip = stack.points().arm("page.lid_flip");
        let job = ana.client.accepted(PEER, "once").await;
        let taken = flip.arrived().await;
        harness::until("the message to be out", SOON, || async { (stack.sim.texts(PEER, OURS).await == ["once"]).then_some(()) }).await;
        let to = json!({"to": "lid", "rekey": rekey});
        let (status, flipped) = stack.sim.ask(Method::POST, &format!("/accounts/{OURS}/chats/{PEER}/flip"), Some(to)).await;
        assert!(status.is_success(), "{flipped}");
        taken.reply(Word::Die).await;
        drop(flip);
        let job = ana.client.ended(&job, SOON).await;
        assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(2)), "{job}");
        let next = ana.client.accepted(PEER, "next").await;
        assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
        assert_eq!(stack.sim.texts(PEER, OURS).await, ["once", "next"]);
        assert_eq!(stack.sim.stats().await["duplicates"], 0);
        let chats = ana.client.get("/api/chats").await.ok();
        assert_eq!(chats["items"].as_array().map(Vec::len), Some(1), "one chat under both names");
    }
}

#[tokio::test]
async fn a_number_that_went_to_another_person_gets_nothing_that_was_meant_for_the_one_before() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    let eva = stack.employee(&ana, "eva@ana.example").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let job = ana.client.accepted(PEER, "for the first").await;
    let old = ana.client.ended(&job, SOON).await["chat"].clone();
    stack.grant("eva@ana.example", &format!("{PEER}@c.us"), "write");
    assert_eq!(eva.get(&format!("/api/chats/{PEER}")).await.ok()["id"], old);

    let mut start = stack.points().arm("host.before_resolve");
    let waiting = ana.client.accepted(PEER, "for the first too").await;
    let held = start.arrived().await;
    let (status, moved) = stack.sim.ask(Method::POST, &format!("/accounts/{PEER}/move-lid"), Some(json!({}))).await;
    assert!(status.is_success(), "{moved}");
    let hello = stack.sim.send(PEER, OURS, "I am new here").await;
    let event = ana.client.event("the newcomer", SOON, |e| e["data"]["message"]["waId"] == hello.as_str()).await;
    held.reply(Word::Go).await;
    drop(start);
    assert_ne!(event["chat"], old);
    let changed = ana.client.event("the change", SOON, |e| e["type"] == "chat.identity_changed").await;
    assert_eq!((&changed["chat"], &changed["data"]["movedTo"]), (&old, &event["chat"]));
    let job = ana.client.ended(&waiting, SOON).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("recipient_changed")), "{job}");
    assert_eq!(eva.get(&format!("/api/chats/{PEER}")).await.status, StatusCode::NOT_FOUND, "nobody granted the new chat");
    assert_eq!(eva.get(&format!("/api/chats/{}", old.as_str().unwrap())).await.ok()["id"], old);
    let next = ana.client.accepted(PEER, "welcome").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    assert!(!stack.sim.texts(PEER, OURS).await.contains(&"for the first too".to_owned()));
}
