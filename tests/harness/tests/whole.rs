//! The stack as a whole, as tests elsewhere use it: every part is the real one, WhatsApp's side aside.

use std::time::Duration;

use harness::{Host, Stack, procs};

const SHOP: &str = "5511900000001";
const FRIEND: &str = "5511900000002";
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_stack_comes_up_with_a_tenant_and_two_phones_that_talk() {
    let stack = Stack::start().await;
    assert_eq!(stack.client().status().await["state"], "stopped");
    let other = stack.tenant("globex").await;
    assert_ne!(other.id, stack.tenant.id);

    stack.sim.account(SHOP).await;
    stack.sim.account(FRIEND).await;
    stack.sim.send(SHOP, FRIEND, "oi").await;
    let shown = stack.sim.shows(FRIEND, SHOP, "oi", SOON).await;
    assert_eq!(shown["duplicates"], 0);
    stack.sim.read(FRIEND, SHOP).await;
    assert_eq!(stack.sim.texts(SHOP, FRIEND).await, ["oi"]);
}

#[tokio::test]
async fn a_browser_links_sends_and_is_gone_with_its_host_and_the_stack() {
    let stack = Stack::start().await;
    let host = stack.host().await;
    stack.sim.account(SHOP).await;
    stack.sim.account(FRIEND).await;
    stack.client().link(&stack.sim, SHOP).await;
    let job = stack.client().send_text(FRIEND, "Olá").await;
    stack.client().job_succeeded(&job, SOON).await;
    assert_eq!(stack.sim.duplicates(FRIEND, SHOP).await, 0);

    assert_eq!(host.browsers().len(), 1);
    let browsers = host.browser_processes();
    assert!(browsers.len() > 3, "a browser is a tree: {browsers:?}");
    host.kill9();
    Host::gone(&browsers, Duration::from_secs(2)).await;

    let folder = stack.folder().to_owned();
    drop(host);
    drop(stack);
    assert_eq!(procs::that_name(&folder), []);
    assert!(!folder.exists());
}
