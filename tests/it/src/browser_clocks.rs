//! Machines whose clocks are wrong: times are compared inside Postgres and Redis, and durations counted by clocks that nobody sets.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harness::{Stack, client::ApiClient, clock, process, services::Host, until, until_true};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{OURS, PEER, SOON};

/// How far a service's clock is from ours, by what it logs.
fn off(log: &str) -> TimeDelta {
    let at = log.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["timestamp"].as_str()?.parse::<DateTime<Utc>>().ok()
    });
    let now: DateTime<Utc> = std::time::SystemTime::now().into();
    at.expect("a line with a time") - now
}

fn hours(offset: TimeDelta) -> i64 {
    (offset.num_minutes() + 30).div_euclid(60)
}

fn owner(stack: &Stack) -> String {
    stack.postgres.sql("select epoch, owner from session where account is not null")
}

/// Host and guard die at once, and another host gets the session. Answers how long that took.
async fn taken_over_from(stack: &Stack, mut host: Host) -> Duration {
    let (proper, before, died) = (host.proper(), owner(stack), Instant::now());
    host.process.signal(Signal::KILL);
    process::send(proper, Signal::KILL);
    host.process.wait(SOON).await.expect("it ends");
    until("a takeover", SOON, || async { (owner(stack) != before).then(|| died.elapsed()) }).await
}

/// Makes a text that has half an hour, and sees it sent.
async fn sends(stack: &Stack, client: &ApiClient, text: &str) {
    let path = format!("/api/chats/{PEER}/messages");
    let job = client.post(&path, json!({"type": "text", "text": text, "expiresIn": 1800})).await.ok();
    let left =
        stack.postgres.sql("select extract(epoch from expires_at - clock_timestamp())::bigint from job order by position desc limit 1");
    assert!((1700..=1800).contains(&left.parse::<i64>().expect("a number")), "{left} s");
    assert_eq!(client.ended(job["id"].as_str().expect("an id"), SOON).await["state"], "succeeded", "{text}");
}

#[tokio::test]
async fn a_host_an_hour_ahead_and_an_api_an_hour_behind_change_no_lease_no_expiry_and_no_token() {
    let mut stack = Stack::start().await;
    stack.tell(clock::off_by(1, stack.folder()).unwrap());
    let ahead = stack.host().await;
    stack.tell(clock::off_by(-1, stack.folder()).unwrap());
    let behind = stack.another_api().await;
    stack.tell([]);
    assert_eq!((hours(off(&ahead.process.log())), hours(off(&behind.process.log()))), (1, -1));
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;

    // A token counts at either API, whichever made it, and for as long as it says.
    let late = ApiClient::login(&behind.url(), "admin@ana.example", &ana.password).await;
    let tokens = [late.clone(), late.at(&stack.api.url()), ana.client.at(&behind.url()), ana.client.clone()];
    for client in &tokens {
        client.get("/api/me").await.ok();
    }
    let over = late.with_token(&crate::streams::short_lived(&stack, ana.client.token(), -1));
    for url in [behind.url(), stack.api.url()] {
        assert_eq!(over.at(&url).get("/api/me").await.body["code"], "token_expired", "{url}");
    }
    // So does a job's time.
    sends(&stack, &late, "from the late one").await;
    sends(&stack, &ana.client, "from the other").await;

    // The death of a host is seen when its lease has ended, whoever's clock is off.
    let right = stack.host().await;
    let (lease, in_time) = (Duration::from_secs(2), Duration::from_secs(4));
    let took = taken_over_from(&stack, ahead).await;
    assert!(took > lease / 2 && took < in_time, "{took:?}");
    sends(&stack, &late, "by the right one").await;
    stack.tell(clock::off_by(1, stack.folder()).unwrap());
    let ahead = stack.host().await;
    assert_eq!(hours(off(&ahead.process.log())), 1);
    // It sees the other one alive, for longer than a lease.
    let (before, began) = (owner(&stack), Instant::now());
    until_true("a lease's time to pass", SOON, async || began.elapsed() > lease + lease / 4).await;
    assert_eq!(owner(&stack), before);
    let took = taken_over_from(&stack, right).await;
    assert!(took > lease / 2 && took < in_time, "{took:?}");
    sends(&stack, &ana.client, "by the early one").await;
    let sent = ["from the late one", "from the other", "by the right one", "by the early one"];
    assert_eq!(stack.sim.texts(PEER, OURS).await, sent, "in order, each once");
    let events = ana.client.events(0).await;
    assert!(!events.iter().any(|e: &Value| e["data"]["job"]["state"] == "expired"));
}
