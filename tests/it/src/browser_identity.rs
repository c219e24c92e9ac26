//! Chats and messages as a real page tells them: people under two names, and what was there before the link.

use harness::Stack;
use serde_json::json;

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
