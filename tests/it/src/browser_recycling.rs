//! A browser that is replaced by the next one, in the middle of everything else: jobs wait, and go on once and in order.

use harness::{Settings, Stack, faults::Word, s3::S3, until_true};
use rustix::process::Signal;
use serde_json::json;

use crate::{OURS, PEER, SOON};

/// How long the session worked each time before its browser was replaced, in the order of the log.
async fn worked(ana: &harness::Tenant) -> Vec<chrono::TimeDelta> {
    let (mut since, mut worked) = (chrono::DateTime::UNIX_EPOCH, Vec::new());
    for event in ana.client.events(0).await.iter().filter(|e| e["type"] == "session.status") {
        let at: chrono::DateTime<chrono::Utc> = event["timestamp"].as_str().expect("a time").parse().expect("a time");
        let status = &event["data"]["session"];
        if status["state"] == "working" {
            since = at;
        } else if status["reason"] == "recycling" {
            worked.push(at - since);
        }
    }
    worked
}

#[tokio::test]
async fn a_host_that_leaves_in_the_middle_of_a_recycle_closes_and_keeps_once_and_the_next_goes_on_without_a_gap() {
    let mut stack = Stack::with(Settings::timed(&json!({"snapshotAfterLinkMs": 1000}))).await.expect("a stack starts");
    // And its profile is kept by an S3.
    let s3 = S3::start(&stack.folder().join("logs"), &["profiles"]).await.expect("an S3 starts");
    stack.tell(s3.variables("s3://profiles/zaguan"));
    let mut uploading = stack.points().arm_once("snapshot.uploading");
    let mut a = stack.host_elsewhere("a").await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let refs = stack.sim.stats().await["refs"].clone();
    let mut jobs = vec![ana.client.accepted(PEER, "before").await];

    // The browser has closed for the next one, and its profile is on its way.
    let held = uploading.arrived().await;
    assert!(a.browsers().is_empty());
    let hellos = stack.sim.stats().await["hellos"].clone();
    jobs.push(ana.client.accepted(PEER, "meanwhile").await);
    a.process.signal(Signal::TERM);
    until_true("the host to hear that it is to leave", SOON, async || a.process.log().contains("leaving: SIGTERM")).await;
    held.reply(Word::Go).await;
    let status = a.process.wait(SOON).await.expect("the host leaves when it is told to");
    assert!(status.success(), "{}", a.process.log());
    assert_eq!(stack.sim.stats().await["hellos"], hellos, "no other browser was started to be closed again");
    assert_eq!(stack.postgres.sql("select count(*), count(*) filter (where refused is null) from profile_snapshot"), "1|1");
    assert_eq!(stack.postgres.sql("select owner is null from session where account is not null"), "t", "released");

    jobs.push(ana.client.accepted(PEER, "while nobody was there").await);
    let missed = stack.sim.send(PEER, OURS, "to nobody").await;
    let _b = stack.host_elsewhere("b").await;
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    ana.client.event("what came meanwhile", SOON, |e| e["data"]["message"]["waId"] == missed.as_str()).await;
    let mut sent = stack.sim.texts(PEER, OURS).await;
    sent.retain(|text| text != "to nobody");
    assert_eq!(sent, ["before", "meanwhile", "while nobody was there"], "in order, each once");
    let events = ana.client.events(0).await;
    assert!(!events.iter().any(|e| e["type"] == "session.gap"), "nothing is missing");
    assert_eq!(worked(&ana).await.len(), 1);
    let stats = stack.sim.stats().await;
    assert_eq!((&stats["refs"], stats["duplicates"].as_u64()), (&refs, Some(0)), "no code was asked for");
}

#[tokio::test]
async fn a_browser_above_its_limit_is_replaced_less_and_less_often_and_costs_no_job_and_no_order() {
    // A browser's cost counts after ten times the pause before a first snapshot, and no browser costs as little as this.
    let mut stack = Stack::with(Settings::timed(&json!({"snapshotAfterLinkMs": 100, "watchEveryMs": 500}))).await.expect("a stack starts");
    stack.tell([("RECYCLE_ABOVE_MB", "1".to_owned())]);
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    let (mut jobs, end) = (Vec::new(), tokio::time::Instant::now() + SOON);
    // For the first snapshot, and then three times for the cost.
    while worked(&ana).await.len() < 4 {
        assert!(tokio::time::Instant::now() < end, "the browser is not replaced: {:?}", worked(&ana).await);
        jobs.push(ana.client.accepted(PEER, &format!("n{}", jobs.len())).await);
        ana.client.ended(&jobs[jobs.len() - 1], SOON).await;
    }
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    let sent: Vec<String> = (0..jobs.len()).map(|n| format!("n{n}")).collect();
    assert_eq!(stack.sim.texts(PEER, OURS).await, sent, "in order, each once");
    let worked: Vec<i64> = worked(&ana).await.iter().map(chrono::TimeDelta::num_milliseconds).collect();
    assert!(worked[1] >= 1_000 && worked[2] >= 2_000 && worked[3] >= 4_000, "{worked:?} ms");
    assert!(host.process.log().contains("a browser costs too much"));
}
