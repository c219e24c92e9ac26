//! From a phone's message to whoever listens, through the page of a real browser, host, Postgres and Redis, and then by each way; beside a page
//! with wa-js that tells a bare DevTools client.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use harness::{Error, Stack, receiver::Receiver, until};
use serde_json::json;

use crate::{
    cdp::WaJs,
    report::{Latencies, Report, median},
};

const OURS: &str = "5511999990001";
const THEIRS: &str = "5511777770001";
const PEER: &str = "5511888880001";
const ROUNDS: usize = 3;
/// Messages one after the other, a round.
const ALONE: usize = 100;
const SOON: Duration = Duration::from_secs(10);

/// Measures all three.
///
/// # Errors
/// What the stack said.
pub async fn measure(stack: &mut Stack, report: &mut Report) -> Result<(), Error> {
    let host = stack.try_host(2).await?;
    let _worker = stack.teller("{}").await;
    let tenant = stack.tenant("latency").await;
    stack.sim.account(PEER).await;
    tenant.link(&stack.sim, OURS).await;
    let mut bare = WaJs::start(stack, &host, THEIRS).await?;
    bare.listen().await?;

    let receiver = Receiver::start().await;
    tenant.client.post("/api/webhooks", json!({"name": "latency", "url": receiver.url("/"), "types": ["message"]})).await.ok();
    let mut stream = tenant.client.stream("/api/events/stream?types=message", &[]).await.map_err(|refused| format!("{}", refused.body))?;
    let heard: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
    let listening = {
        let heard = heard.clone();
        tokio::spawn(async move {
            loop {
                let event = stream.event(Duration::from_secs(3600)).await;
                let text = event["data"]["message"]["text"].as_str().unwrap_or_default().to_owned();
                heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((text, Instant::now()));
            }
        })
    };
    let by_stream = |text: &str| {
        let all = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.iter().find(|(said, _)| said == text).map(|(_, at)| *at)
    };
    let by_webhook = |text: &str| receiver.got().iter().rev().find(|got| got.body["data"]["message"]["text"] == text).map(|got| got.at);

    let (mut hooks, mut streams, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // The first warms all.
    for round in 0..=ROUNDS {
        let (mut hook, mut sse, mut their) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..ALONE {
            let text = format!("message {round} {n}");
            let began = Instant::now();
            stack.sim.send(PEER, OURS, &text).await;
            let (at_hook, at_stream) =
                until("a message on both ways", SOON, || async { Some((by_webhook(&text)?, by_stream(&text)?)) }).await;
            hook.push(at_hook.duration_since(began));
            sse.push(at_stream.duration_since(began));
            let began = Instant::now();
            stack.sim.send(PEER, THEIRS, &text).await;
            bare.hears(&text).await?;
            their.push(began.elapsed());
        }
        if round > 0 {
            hooks.push(Latencies::from(hook));
            streams.push(Latencies::from(sse));
            theirs.push(Latencies::from(their));
        }
    }
    listening.abort();
    let of = |all: &[Latencies], share: f64| median(all.iter().map(|l| l.ms(share)).collect());
    for (way, ours) in [("webhook", &hooks), ("server-sent event", &streams)] {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let what = format!("a phone's message to its {way}, {name}");
            report.beside(&what, "ms", of(ours, share), "wa-js to a bare CDP client", of(&theirs, share));
        }
    }
    Ok(())
}
