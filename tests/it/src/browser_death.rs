//! A host may die or leave at any instant: the account stays linked, and nothing is sent twice.

use std::time::Duration;

use contract::ProfileId;
use harness::{
    Stack,
    process::{alive, send},
    until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

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

    // A directory that no session has named for days.
    let (profiles, stray) = (host.data.join("profiles"), ProfileId::new());
    std::fs::create_dir(profiles.join(stray.to_string())).unwrap();
    let note = std::fs::File::create(profiles.join(format!("{stray}.stray"))).unwrap();
    note.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();

    let _host = stack.host().await;
    ana.client.until_state("working", SOON).await;
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");
    until("the stray directory to go", SOON, || async { (!profiles.join(stray.to_string()).exists()).then_some(()) }).await;
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

/// As events write it.
fn now(stack: &Stack) -> String {
    stack.postgres.sql("select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")
}

#[tokio::test]
async fn a_profile_that_is_lost_is_announced_and_never_in_silence() {
    let mut stack = Stack::start().await;
    let mut host = stack.host().await;
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    let before = now(&stack);
    host.kill_proper();
    host.process.wait(SOON).await.expect("the guard ends with its host");
    std::fs::remove_dir_all(host.data.join("profiles")).unwrap();
    let gap = |e: &Value, earliest: i64| e["type"] == "session.gap" && e["seq"].as_i64() > Some(earliest);
    let _host = stack.host().await;
    let lost = ana.client.event("the gap", SOON, |e| gap(e, 0)).await;
    assert!(lost["data"]["gap"]["from"].as_str().unwrap() < before.as_str(), "it begins before the host died: {lost}");
    ana.client.until_state("logged_out", SOON).await;
    // A new start begins with an empty directory, and links: what came in between is missing too.
    let unlinked = now(&stack);
    ana.link(&stack.sim, OURS).await;
    let relinked = ana.client.event("the gap", SOON, |e| gap(e, lost["seq"].as_i64().unwrap())).await;
    assert!(relinked["data"]["gap"]["to"].as_str().unwrap() > unlinked.as_str(), "{relinked}");
}

#[tokio::test]
async fn a_browser_that_is_deaf_to_signals_is_gone_before_the_lease_that_was_lost_would_have_ended() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    let browsers = host.browsers();
    browsers.iter().for_each(|pid| send(*pid, Signal::STOP));
    stack.postgres.sql("update session set epoch = epoch + 1, owner = gen_random_uuid(), host = gen_random_uuid() where state = 'working'");
    let lease = Duration::from_secs(2);
    until("the end of its browser", lease, || async { (!browsers.iter().any(|pid| alive(*pid))).then_some(()) }).await;
    // It is claimed again once the lease has run out, and needs no code.
    ana.client.until_state("working", SOON).await;
}

#[tokio::test]
async fn a_host_that_leaves_starts_no_browser_any_more() {
    let mut stack = Stack::start().await;
    let mut host = stack.host().await;
    let ana = stack.tenant("ana").await;
    for name in ["second", "third", "fourth"] {
        ana.client.post("/api/sessions", json!({"name": name})).await.ok();
    }
    for name in ["default", "second", "third", "fourth"] {
        ana.client.post(&format!("/api/sessions/{name}/start"), json!({})).await;
    }
    let profiles = host.data.join("profiles");
    let directories = || std::fs::read_dir(&profiles).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    until("all directories", SOON, || async { (directories().count() == 4).then_some(()) }).await;
    // Two start at a time: the others wait for their turn, and are not to get it.
    assert!(host.leave(SOON).await.is_some_and(|status| status.success()));
    let used = directories().filter(|dir| std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some())).count();
    assert!(used <= 2, "{used} browsers were started");
    assert!(host.browsers().is_empty());
}
