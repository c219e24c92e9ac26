//! The steps that tests elsewhere take, on a stack in which every part is the real one, WhatsApp's side aside.

use std::time::Duration;

use harness::Stack;
use serde_json::json;

const SHOP: &str = "5511900000001";
const FRIEND: &str = "5511900000002";
const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn with_a_browser_callers_and_phones_take_their_steps_and_a_removed_device_is_logged_out() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let shop = stack.tenant("shop").await;
    stack.sim.account(FRIEND).await;
    assert!(shop.client.chats().await.is_empty());
    assert!(shop.client.events_held(0, 1).await.is_empty());
    shop.link(&stack.sim, SHOP).await;

    stack.sim.offline(FRIEND).await;
    let sent = shop.client.send_once(FRIEND, "oi", "key-1").await.ok();
    let job = shop.client.ended(sent["id"].as_str().unwrap(), SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(shop.client.send_once(FRIEND, "oi", "key-1").await.ok()["id"], sent["id"]);
    assert_eq!(job["evidence"]["ack"], 1, "a phone off the net confirms nothing: {job}");
    stack.sim.online(FRIEND).await;
    let id = sent["id"].as_str().unwrap();
    harness::until("the second tick", SOON, || async { (shop.client.job(id).await["evidence"]["ack"] == 2).then_some(()) }).await;
    assert_eq!(stack.sim.texts(FRIEND, SHOP).await, ["oi"], "the key sent it once");
    assert_eq!(shop.client.chats().await.len(), 1);
    assert_eq!(shop.client.messages(FRIEND).await[0]["text"], "oi");
    assert!(!shop.client.events_held(0, 1).await.is_empty());

    let fault = stack.sim.fault(json!({"kind": "slow_modules", "gapMs": 200})).await;
    stack.sim.clear_fault(fault).await;

    let devices = stack.sim.devices(SHOP).await;
    assert_eq!(devices.len(), 1);
    stack.sim.remove_device(SHOP, &devices[0]).await;
    assert!(stack.sim.devices(SHOP).await.is_empty());
    shop.client.until_state("logged_out", SOON).await;
}
