//! Deaths around the page: between its row and the server, between what it told and the database, and of a host in a full fleet.

use harness::{
    Stack, Tenant,
    faults::Word,
    process::{self, Signal},
    until, until_true,
};
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

async fn linked(stack: &Stack) -> Tenant {
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    ana
}

/// The next job is sent, and nothing was given to WhatsApp twice. Answers what the phone shows before it.
async fn goes_on(stack: &Stack, ana: &Tenant) -> Vec<String> {
    let next = ana.client.accepted(PEER, "next").await;
    assert_eq!(ana.client.ended(&next, SOON).await["state"], "succeeded");
    assert_eq!(stack.sim.stats().await["duplicates"], 0);
    let mut shown = stack.sim.texts(PEER, OURS).await;
    assert_eq!(shown.pop().as_deref(), Some("next"));
    shown
}

#[tokio::test]
async fn a_browser_killed_around_the_moment_when_whatsapp_takes_a_message_sends_it_once_or_not_and_says_which() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = linked(&stack).await;
    let kill = || host.browsers().into_iter().for_each(|pid| process::send(pid, Signal::KILL));

    // Stored in the page, never taken: the socket died before.
    let hellos = stack.sim.stats().await["hellos"].clone();
    stack.sim.fault(json!({"kind": "lose_frame_before", "account": OURS, "times": 1})).await;
    let job = ana.client.accepted(PEER, "stored").await;
    until_true("the page to come back", SOON, || async { stack.sim.stats().await["hellos"] != hellos }).await;
    kill();
    let job = ana.client.ended(&job, SOON).await;
    assert_eq!((&job["state"], goes_on(&stack, &ana).await.len()), (&json!("unknown"), 0), "{job}");

    // Taken, and the page never heard of it.
    stack.sim.fault(json!({"kind": "ack_drop", "account": OURS, "times": 1})).await;
    let job = ana.client.accepted(PEER, "taken").await;
    until_true("the phone to show it", SOON, || async { stack.sim.texts(PEER, OURS).await.iter().any(|text| text == "taken") }).await;
    kill();
    let job = ana.client.ended(&job, SOON).await;
    // Known by its second tick, or not known.
    assert!(job["state"] == "unknown" || job["state"] == "succeeded" && job["evidence"]["ack"].as_i64() >= Some(1), "{job}");
    assert_eq!(goes_on(&stack, &ana).await, ["next", "taken"]);
}

#[tokio::test]
async fn a_host_that_dies_with_what_the_page_told_it_in_memory_loses_no_message_and_announces_each_once_in_order() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let ana = linked(&stack).await;
    let _second = stack.host().await;
    let mut armed = stack.points().arm_once("record.before_commit");
    let mut sent = vec![stack.sim.send(PEER, OURS, "heard").await];
    let held = armed.arrived().await;
    for n in 0..3 {
        sent.push(stack.sim.send(PEER, OURS, &format!("behind it {n}")).await);
    }
    // What the server hands over comes to the next page long before its rows are read.
    stack.sim.fault(json!({"kind": "synced_after", "ms": 5000, "times": 1})).await;
    held.reply(Word::Die).await;
    until_true("its browser to be gone", SOON, || async { host.browsers().is_empty() }).await;
    // The next page has the others in its rows and gets this one from the server.
    sent.push(stack.sim.send(PEER, OURS, "while nobody listens").await);
    let announced = || async {
        let events = ana.client.events(0).await.into_iter().filter(|event| event["type"] == "message");
        events.map(|event| event["data"]["message"]["waId"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    until_true("all of them", SOON, || async { announced().await.len() >= sent.len() }).await;
    ana.client.until_state("working", SOON).await;
    // What is announced behind them shows that nothing of them comes again.
    sent.push(stack.sim.send(PEER, OURS, "last").await);
    until_true("the last", SOON, || async { announced().await.last() == sent.last() }).await;
    assert_eq!(announced().await, sent);
}

#[tokio::test]
async fn a_job_that_no_host_of_today_understands_fails_alone_and_the_lane_goes_on() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = linked(&stack).await;
    // As a newer service writes it, and as nobody should: found by the reconciler.
    for version in [99, 1] {
        stack.postgres.sql(&format!(
            "with p as (update lane_position set n = n + 1 where tenant = '{0}' returning session, n)
             insert into job (id, tenant, session, lane, position, kind, command_version, command, created_by, expires_at)
             select gen_random_uuid(), '{0}', session, 'write', n, 'sendText', {version}, '{{\"kind\": \"sendText\"}}', '{0}', now() + interval '1 hour' from p",
            ana.id.parse::<contract::TenantId>().expect("a tenant's id").uuid(),
        ));
    }
    assert!(goes_on(&stack, &ana).await.is_empty());
    let ends = stack.postgres.sql("select string_agg(state || ' ' || coalesce(error ->> 'code', ''), ', ' order by position) from job");
    assert_eq!(ends, "failed host_too_old, failed command_undecodable, succeeded");
}

#[tokio::test]
async fn a_host_that_dies_in_a_full_fleet_leaves_its_session_waiting_for_a_slot_and_disturbs_no_other() {
    let mut stack = Stack::start().await;
    let (first, second) = (stack.try_host(1).await.unwrap(), stack.try_host(1).await.unwrap());
    let ana = stack.tenant("ana").await;
    ana.client.post("/api/sessions", json!({"name": "second"})).await.ok();
    let status = async |name: &str| ana.client.get(&format!("/api/sessions/{name}/status")).await.ok();
    for name in ["default", "second"] {
        ana.client.post(&format!("/api/sessions/{name}/start"), json!({})).await.ok();
        until(name, SOON, || async { (status(name).await["state"] == "linking").then_some(()) }).await;
    }
    let survivors = second.browsers().len();
    assert!(survivors > 0);
    first.kill_proper();
    let full = |event: &Value| event["data"]["session"]["reason"] == "capacity";
    let waits = ana.client.event("that all is full", SOON, full).await;
    let states = [status("default").await, status("second").await];
    let waiting = states.iter().position(|session| session["id"] == waits["session"]).expect("it is one of them");
    assert_eq!((&states[waiting]["state"], &states[1 - waiting]["state"]), (&json!("starting"), &json!("linking")));
    let disturbed = |event: &Value| event["session"] != waits["session"] && event["data"]["session"]["state"] == "reconnecting";
    assert!(!ana.client.events(0).await.iter().any(disturbed), "the other keeps its browser");
    let _third = stack.try_host(1).await.unwrap();
    let name = ["default", "second"][waiting];
    until("its turn", SOON, || async { (status(name).await["state"] == "linking").then_some(()) }).await;
}
