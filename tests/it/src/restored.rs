//! Postgres goes back to an older state under those who have been told more.

use std::time::Duration;

use harness::{Stack, receiver::Receiver, until, until_true};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    PEER,
    company::{Company, company},
    sockets::{head, job, seq},
};

const SOON: Duration = Duration::from_secs(30);
const QUICK: &str = r#"{"leaseMs": 2000, "lookEveryMs": 200, "retryAfterMs": [100, 100, 100, 100, 100]}"#;

fn is_restored(event: &Value) -> bool {
    event["type"] == "log.restored"
}

/// The first events of a stream that its client opened again with the cursor that it had.
async fn streamed(client: &harness::client::ApiClient, cursor: i64, count: usize) -> Vec<Value> {
    let mut stream = client.stream("/api/events/stream", &[("last-event-id", &cursor.to_string())]).await.expect("it opens");
    let mut events = Vec::new();
    while events.len() < count {
        events.push(stream.event(SOON).await);
    }
    events
}

async fn restored(company: &Company) -> Vec<Value> {
    company.admin.events(0).await.into_iter().filter(is_restored).collect()
}

#[tokio::test]
async fn who_was_told_what_postgres_then_lost_goes_on_hears_of_it_once_and_misses_nothing_that_is_there() {
    let mut stack = Stack::start().await;
    let _worker = stack.teller(QUICK).await;
    let (ana, receiver) = (company(&stack, "ana").await, Receiver::start().await);
    ana.admin.post("/api/webhooks", json!({"name": "crm", "url": receiver.url("/in")})).await.ok();
    ana.grant(&stack, &ana.happens(PEER).await);
    let kept = stack.postgres.keep().await.expect("it starts again");
    let before = head(&ana).await;
    let lost = [ana.happens(PEER).await, ana.happens(PEER).await, ana.happens(PEER).await];
    let cursor = head(&ana).await;
    receiver.until("all that is lost later", SOON, |all| all.iter().any(|got| got.seq() == cursor)).await;

    stack.postgres.go_back(&kept).await.expect("it starts again");
    // Who comes first comes with a number that this log has not issued: that is no reason to refuse it.
    let page = until("the API", SOON, || async {
        let page = ana.clerk.get(&format!("/api/events?after={cursor}")).await;
        (page.status != StatusCode::SERVICE_UNAVAILABLE).then_some(page)
    })
    .await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    let [announced] = &restored(&ana).await[..] else { panic!("once") };
    let (from, to) = (announced["data"]["from"].as_i64(), announced["data"]["to"].as_i64());
    assert_eq!((from, to), (Some(before + 1), Some(seq(announced) - 1)));
    assert!(seq(announced) > cursor);
    assert_eq!(ana.admin.get(&format!("/api/jobs/{}", lost[0])).await.status, StatusCode::NOT_FOUND);

    // Accepting, telling: all goes on, under numbers that nobody has seen.
    let next = ana.happens(PEER).await;
    let [restored_first, then] = &streamed(&ana.admin, cursor, 2).await[..] else { panic!("two") };
    assert_eq!((restored_first, job(then)), (announced, &*next));
    assert_eq!(job(&streamed(&ana.clerk, cursor, 1).await[0]), next);
    assert_eq!(ana.admin.events(cursor).await, [announced.clone(), then.clone()]);
    let mut socket = ana.admin.socket(json!({"after": cursor})).await.expect("it opens");
    assert_eq!([socket.envelope(SOON).await, socket.envelope(SOON).await], [announced.clone(), then.clone()]);
    let got = receiver.until("what came after", SOON, |all| all.iter().any(|got| job(&got.body) == next)).await;
    // A courier that did not notice sends it before it goes back, and again where it stands: under one id.
    assert!(got.iter().filter(|got| is_restored(&got.body)).all(|got| got.body == *announced));
    assert!(got.iter().any(|got| is_restored(&got.body)));
}

#[tokio::test]
async fn what_took_numbers_that_were_told_before_is_told_again_on_every_stream_before_that_is_announced() {
    let mut stack = Stack::start().await;
    let _worker = stack.teller(QUICK).await;
    let (ana, receiver) = (company(&stack, "ana").await, Receiver::start().await);
    ana.admin.post("/api/webhooks", json!({"name": "crm", "url": receiver.url("/in")})).await.ok();
    ana.grant(&stack, &ana.happens(PEER).await);
    let before = head(&ana).await;
    let (mut admin, mut clerk) = (
        ana.admin.stream("/api/events/stream", &[]).await.expect("it opens"),
        ana.clerk.stream("/api/events/stream", &[]).await.expect("it opens"),
    );
    for _ in 0..3 {
        let lost = ana.happens(PEER).await;
        assert_eq!((job(&admin.event(SOON).await), job(&clerk.event(SOON).await)), (&*lost, &*lost));
    }
    let cursor = head(&ana).await;
    receiver.until("all that is lost later", SOON, |all| all.iter().any(|got| got.seq() == cursor)).await;
    until_true("the webhook's cursor", SOON, async || stack.postgres.sql("select min(cursor_seq) from webhook") == cursor.to_string())
        .await;

    // What a restored database looks like, under connections that it would have closed. The webhook's cursor stays: a courier's last word.
    stack.postgres.sql(&format!("delete from event where seq > {before}; update tenant_counter set seq = {before} where seq > {before}"));
    let here = ana.happens(PEER).await;
    let [announced] = &restored(&ana).await[..] else { panic!("once") };
    assert_eq!(announced["data"]["from"], json!(before + 1));
    let again = admin.event(SOON).await;
    assert_eq!((job(&again), seq(&again)), (&*here, before + 1), "what stands there now");
    assert_eq!(&admin.event(SOON).await, announced);
    assert_eq!(job(&clerk.event(SOON).await), here);
    let next = ana.happens(PEER).await;
    assert_eq!((job(&admin.event(SOON).await), job(&clerk.event(SOON).await)), (&*next, &*next), "once");

    let [one, two, three] = &streamed(&ana.admin, cursor, 3).await[..] else { panic!("three") };
    assert_eq!((job(one), two, job(three)), (&*here, announced, &*next), "with a cursor of before, too");
    let [one, two] = &streamed(&ana.clerk, cursor, 2).await[..] else { panic!("two") };
    assert_eq!((job(one), job(two)), (&*here, &*next));
    let told = |got: &[harness::receiver::Got], wanted: &str| got.iter().any(|got| job(&got.body) == wanted);
    let got = receiver.until("all that is there", SOON, |all| told(all, &here) && told(all, &next)).await;
    assert!(got.iter().any(|got| is_restored(&got.body)));
}
