//! Redis is away and comes back as something older: browsers stay, and what was accepted is sent once and in order.

use harness::{Settings, Stack, until, until_true};
use serde_json::Value;

use crate::{OURS, PEER, SOON};

/// What the database says of the linked session.
fn session(stack: &Stack, what: &str) -> String {
    stack.postgres.sql(&format!("select {what} from session where account is not null"))
}

/// Redis is away, and texts are accepted, one for each time that the owner extends its lease in Postgres, until it has done so for that long.
async fn accepted_without_redis(stack: &Stack, ana: &harness::Tenant, texts: &mut Vec<(String, String)>, ends: &str) {
    let redis = &stack.proxies().redis;
    redis.refuse();
    redis.cut();
    while session(stack, &format!("held_until > timestamptz '{ends}'")) != "t" {
        let (text, held) = (format!("n{}", texts.len()), session(stack, "held_until"));
        texts.push((ana.client.accepted(PEER, &text).await, text));
        until_true("the owner to extend its lease", SOON, async || session(stack, "held_until") != held).await;
    }
}

async fn all_sent(stack: &Stack, ana: &harness::Tenant, texts: &[(String, String)]) {
    for (job, text) in texts {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded", "{text}");
    }
    let sent: Vec<_> = texts.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(stack.sim.texts(PEER, OURS).await, sent, "in order, each once");
}

#[tokio::test]
async fn an_outage_of_redis_and_a_fail_over_to_a_replica_that_was_behind_close_no_browser_and_every_text_is_sent_once_in_order() {
    let mut stack = Stack::with(Settings { proxies: true, ..Settings::default() }).await.expect("the stack starts");
    let host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    // It has room, and would take what is free. Hosts of a stack share a disk: a browser of its own would be seen below.
    let _other = stack.host().await;
    let (browsers, owner) = (host.browsers(), session(&stack, "epoch, owner, host"));
    let linked = ana.client.events(0).await.last().and_then(|e| e["seq"].as_i64()).expect("events");

    // For three times as long as a lease of 2 s lasts.
    let mut texts = Vec::new();
    let ends = stack.postgres.sql("select clock_timestamp() + interval '8 s'");
    accepted_without_redis(&stack, &ana, &mut texts, &ends).await;
    assert_eq!(stack.sim.texts(PEER, OURS).await, Vec::<String>::new());
    stack.proxies().redis.pass();
    all_sent(&stack, &ana, &texts).await;

    // A replica that has not heard of the last three texts takes over, later than any lease that it knows of would have lasted.
    let (behind, ends) = (stack.redis.keep().await.unwrap(), stack.postgres.sql("select clock_timestamp() + interval '4.5 s'"));
    for _ in 0..3 {
        let text = format!("n{}", texts.len());
        texts.push((ana.client.accepted(PEER, &text).await, text));
    }
    all_sent(&stack, &ana, &texts).await;
    accepted_without_redis(&stack, &ana, &mut texts, &ends).await;
    stack.redis.go_back(&behind).await.unwrap();
    stack.proxies().redis.pass();
    texts.push((ana.client.accepted(PEER, "last").await, "last".to_owned()));
    all_sent(&stack, &ana, &texts).await;

    // The stream has again what the replica lacked.
    let head = ana.client.events(0).await.last().and_then(|e| e["seq"].as_i64()).expect("events");
    let stream = stack.redis.keys(&format!("zg:*:ev:{}", ana.id)).await.remove(0);
    until("the stream to have it all", SOON, async || {
        let ids = stack.redis.stream(&stream).await.into_iter().map(|(id, _)| id);
        ids.eq((1..=head).map(|seq| format!("{seq}-0"))).then_some(())
    })
    .await;
    // The owner has its lease in Redis again, and has it for longer than one lasts.
    let renewed = stack.postgres.sql("select clock_timestamp()");
    let lease = stack.redis.keys("zg:*:lease:*").await.remove(0);
    let value = stack.redis.command(&["GET", &lease]).await;
    until_true("a lease's time to pass", SOON, async || {
        stack.postgres.sql(&format!("select clock_timestamp() > timestamptz '{renewed}' + interval '2.5 s'")) == "t"
    })
    .await;
    assert_eq!(stack.redis.command(&["GET", &lease]).await, value);
    assert_eq!(session(&stack, "epoch, owner, host"), owner, "nobody else got in");
    assert_eq!(host.browsers(), browsers, "no browser was closed or started");
    let events = ana.client.events(linked).await;
    assert!(!events.iter().any(|e: &Value| e["type"] == "session.status" || e["type"] == "session.gap"), "it worked all along");
    assert_eq!(stack.sim.stats().await["duplicates"], 0);
}
