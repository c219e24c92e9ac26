//! A disk without room below a profile: what the page cannot keep costs neither the link nor a second message.

use std::time::Duration;

use harness::{Stack, small_disk::SmallDisk, until_true};
use serde_json::Value;

use crate::{OURS, PEER, SOON};

/// Deadlines of calls and of starts pass before all is whole.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
#[ignore = "needs the right to mount in a namespace of its own"]
async fn a_full_disk_below_a_profile_costs_no_link_and_no_text_that_arrives_and_sends_none_twice() {
    let mut stack = Stack::start().await;
    let shared = stack.told(stack.postgres.url(), stack.redis.url());
    let data = stack.folder().join("small");
    std::fs::create_dir(&data).unwrap();
    shared.user.own(&data).unwrap();
    // It was linked elsewhere, and there is a snapshot of that.
    let mut first = stack.host_elsewhere("first").await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let refs = stack.sim.stats().await["refs"].clone();
    assert!(first.leave(SOON).await.is_some_and(|status| status.success()), "{}", first.process.log());
    let (mut host, disk) = SmallDisk::host(&shared, "host-small", &data, &stack.sim.browser_args(), 64).await.expect("a host starts");
    ana.client.until_state("working", LONG).await;
    let mut texts: Vec<(&str, String)> = Vec::new();
    let mut accepted = async |text| texts.push((text, ana.client.accepted(PEER, text).await));
    let ended = async |job: &str| ana.client.ended(job, LONG).await["state"].as_str().unwrap_or_default().to_owned();
    accepted("with room").await;
    disk.fill().expect("it can be filled");
    accepted("full 1").await;
    let came = stack.sim.send(PEER, OURS, "to a full disk").await;
    accepted("full 2").await;
    // A browser that met a full disk does not open its databases any more, also when there is room again.
    let given_up = "the page cannot read its own rows";
    until_true("the browser to be given up", LONG, || async { host.process.log().contains(given_up) }).await;
    disk.clear().expect("it can be cleared");
    accepted("room again").await;
    let mut states = Vec::new();
    for (_, job) in &texts {
        states.push(ended(job).await);
    }
    ana.client.until_state("working", LONG).await;

    assert!(host.leave(SOON).await.is_some_and(|status| status.success()), "{}", host.process.log());
    let _next = stack.host_elsewhere("large").await;
    let last = ana.client.accepted(PEER, "elsewhere").await;
    states.push(ended(&last).await);
    texts.push(("elsewhere", last));
    let shown = stack.sim.texts(PEER, OURS).await;
    for ((text, _), state) in texts.iter().zip(&states) {
        let times = shown.iter().filter(|shown| shown == text).count();
        match state.as_str() {
            "succeeded" => assert_eq!(times, 1, "{text}: {states:?} {shown:?}"),
            "unknown" => assert!(times <= 1, "{text}"),
            _ => assert_eq!(times, 0, "{text}: {states:?} {shown:?}"),
        }
    }
    assert_eq!([&states[3], &states[4]], ["succeeded"; 2], "{states:?} {shown:?}");
    // What came is one event, or lies in an announced gap.
    let told = ana.client.events(0).await;
    let count = |fits: &dyn Fn(&Value) -> bool| told.iter().filter(|event| fits(event)).count();
    let events = count(&|e| e["data"]["message"]["waId"] == came.as_str() && e["type"] == "message");
    assert!(events == 1 || events == 0 && count(&|e| e["type"] == "session.gap") == 1, "{events} events");
    let stats = stack.sim.stats().await;
    assert_eq!((&stats["refs"], stats["duplicates"].as_u64()), (&refs, Some(0)), "no code was asked for");
}
