//! A host may die or leave at any instant: the account stays linked, and nothing is sent twice.

use std::time::Duration;

use harness::{Stack, process::alive, until};

use crate::{OURS, PEER, SOON};

#[tokio::test]
async fn a_host_that_restarts_asks_for_no_code_and_records_what_came_meanwhile() {
    let mut stack = Stack::start().await;
    let mut host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let refs = stack.sim.stats().await["refs"].clone();
    let status = host.leave(SOON).await.expect("the host leaves when it is told to");
    assert!(status.success(), "{}", host.process.log());
    assert!(host.browsers().is_empty());
    let missed = stack.sim.send(PEER, OURS, "while you were away").await;
    let queued = ana.client.accepted(PEER, "after all").await;

    let _host = stack.host().await;
    ana.client.until_state("working", SOON).await;
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");
    ana.client.event("what came meanwhile", SOON, |e| e["data"]["message"]["waId"] == missed.as_str()).await;
    assert_eq!(ana.client.ended(&queued, SOON).await["state"], "succeeded");
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["while you were away", "after all"]);
}

#[tokio::test]
async fn after_kill_9_no_browser_lives_for_two_seconds_and_a_second_host_sends_the_queued_job_once() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let refs = stack.sim.stats().await["refs"].clone();
    let _second = stack.host().await;
    let browsers = host.browsers();
    assert!(!browsers.is_empty());
    let mut start = stack.points().arm("host.before_start");
    let job = ana.client.accepted(PEER, "once").await;
    let _held = start.arrived().await;
    host.kill_proper();
    until("the end of its browsers", Duration::from_secs(2), || async { (!browsers.iter().any(|pid| alive(*pid))).then_some(()) }).await;
    start.arrived().await.reply(harness::faults::Word::Go).await;
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(stack.sim.texts(PEER, OURS).await, ["once"]);
    let stats = stack.sim.stats().await;
    assert_eq!((&stats["refs"], stats["duplicates"].as_u64()), (&refs, Some(0)));
}
