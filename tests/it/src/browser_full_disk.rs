//! A disk without room below a profile: what the page cannot keep costs neither the link nor a second message.

use harness::{Stack, small_disk::SmallDisk};
use serde_json::json;

use crate::{OURS, PEER, SOON};

#[tokio::test]
#[ignore = "a snapshot of such a browser opens on no other host yet"]
async fn a_full_disk_below_a_profile_costs_no_link_and_no_text_that_arrives_and_sends_none_twice() {
    let mut stack = Stack::start().await;
    let shared = stack.told(stack.postgres.url(), stack.redis.url());
    let data = stack.folder().join("small");
    std::fs::create_dir(&data).unwrap();
    shared.user.own(&data).unwrap();
    let (mut host, disk) = SmallDisk::host(&shared, "host-small", &data, &stack.sim.browser_args(), 64).await.expect("a host starts");
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let refs = stack.sim.stats().await["refs"].clone();
    let mut texts = Vec::new();
    let mut send = async |text: &str| {
        let job = ana.client.accepted(PEER, text).await;
        texts.push((text.to_owned(), ana.client.ended(&job, SOON).await["state"].as_str().unwrap_or_default().to_owned()));
    };
    send("with room").await;
    disk.fill().expect("it can be filled");
    send("full 1").await;
    let came = stack.sim.send(PEER, OURS, "to a full disk").await;
    send("full 2").await;
    disk.clear().expect("it can be cleared");
    // A browser that met a full disk does not open its databases any more.
    let restart = ana.client.post("/api/whatsapp/restart", json!({})).await.ok()["id"].clone();
    assert_eq!(ana.client.ended(restart.as_str().expect("an id"), SOON).await["state"], "succeeded");
    send("room again").await;

    assert!(host.leave(SOON).await.is_some_and(|status| status.success()), "{}", host.process.log());
    let _next = stack.host_elsewhere("large").await;
    send("elsewhere").await;
    ana.client.event("what came", SOON, |e| e["data"]["message"]["waId"] == came.as_str()).await;
    let shown = stack.sim.texts(PEER, OURS).await;
    for (text, state) in &texts {
        let times = shown.iter().filter(|shown| *shown == text).count();
        match state.as_str() {
            "succeeded" => assert_eq!(times, 1, "{text}: {texts:?} {shown:?}"),
            "unknown" => assert!(times <= 1, "{text}"),
            _ => assert_eq!(times, 0, "{text}: {texts:?} {shown:?}"),
        }
    }
    let with_room: Vec<_> = texts.iter().filter(|(text, _)| !text.starts_with("full")).map(|(_, state)| state.as_str()).collect();
    assert_eq!(with_room, ["succeeded"; 3], "{texts:?}");
    let told = ana.client.events(0).await;
    assert_eq!(told.iter().filter(|e| e["data"]["message"]["waId"] == came.as_str() && e["type"] == "message").count(), 1);
    let stats = stack.sim.stats().await;
    assert_eq!((&stats["refs"], stats["duplicates"].as_u64()), (&refs, Some(0)), "no code was asked for");
}
