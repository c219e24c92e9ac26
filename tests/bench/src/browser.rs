//! From acceptance to the server's ack, through host and browser, beside wa-js called from a bare DevTools client.

use std::time::{Duration, Instant};

use harness::{Error, Stack, Tenant, until};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    cdp::WaJs,
    report::{Latencies, Report, median},
};

const OURS: &str = "5511999990000";
const THEIRS: &str = "5511777770000";
const PEER: &str = "5511888880000";
const ROUNDS: usize = 3;
/// Messages one after the other, a round; and in a row, a round.
const ALONE: usize = 50;
const ROW: usize = 100;

/// Measures both.
///
/// # Errors
/// What the stack said.
pub async fn measure(stack: &mut Stack, report: &mut Report) -> Result<(), Error> {
    let host = stack.try_host(2).await?;
    let tenant = stack.tenant("browser").await;
    stack.sim.account(PEER).await;
    tenant.link(&stack.sim, OURS).await;
    let mut bare = WaJs::start(stack, &host, THEIRS).await?;
    let to = format!("{PEER}@c.us");
    for n in 0..5 {
        acked(&tenant, &format!("warm {n}")).await?;
        bare.send(&to, &format!("warm {n}")).await?;
    }

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_rate, mut their_rate) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut latencies = Vec::new();
        for n in 0..ALONE {
            let began = Instant::now();
            acked(&tenant, &format!("alone {round} {n}")).await?;
            latencies.push(began.elapsed());
        }
        ours.push(Latencies::from(latencies));
        let mut latencies = Vec::new();
        for n in 0..ALONE {
            let began = Instant::now();
            bare.send(&to, &format!("alone {round} {n}")).await?;
            latencies.push(began.elapsed());
        }
        theirs.push(Latencies::from(latencies));
        our_rate.push(row(stack, &tenant, round).await?);
        let began = Instant::now();
        for n in 0..ROW {
            bare.send(&to, &format!("row {round} {n}")).await?;
        }
        their_rate.push(ROW as f64 / began.elapsed().as_secs_f64());
    }
    let beside = "wa-js from a bare CDP client";
    let of = |all: &[Latencies], share: f64| median(all.iter().map(|l| l.ms(share)).collect());
    report.beside("send to the server's ack, p50", "ms", of(&ours, 0.5), beside, of(&theirs, 0.5));
    report.beside("send to the server's ack, p99", "ms", of(&ours, 0.99), beside, of(&theirs, 0.99));
    report.beside("messages in a row, each acked", "messages/s", median(our_rate), beside, median(their_rate));
    let duplicates = stack.sim.stats().await["duplicates"].as_f64().unwrap_or(f64::NAN);
    report.note("messages that reached a recipient twice", "messages", duplicates);
    Ok(())
}

/// Sends, and is answered when the job has its proof.
async fn acked(tenant: &Tenant, text: &str) -> Result<(), Error> {
    let body = json!({"type": "text", "text": text});
    let answer = tenant.client.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &[("prefer", "wait=25")], Some(body)).await;
    if answer.status == StatusCode::OK { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body).into()) }
}

/// Accepts many at once; messages a second from the first acceptance to the last outcome, by the database's clock.
async fn row(stack: &Stack, tenant: &Tenant, round: usize) -> Result<f64, Error> {
    let mut last = String::new();
    for n in 0..ROW {
        last = tenant.client.accepted(PEER, &format!("row {round} {n}")).await;
    }
    let db = stack.db().await;
    let left = "select count(*) from job where state in ('queued', 'running') and session = (select session from job where id = $1)";
    let id = last.parse::<contract::JobId>()?.uuid();
    until("the end of the row", Duration::from_secs(60), || async {
        let left = sqlx::query_scalar::<_, i64>(left).bind(id).fetch_one(&db).await.ok()?;
        (left == 0).then_some(())
    })
    .await;
    let took = "select extract(epoch from max(finished_at) - min(created_at))::float8 from
                (select created_at, finished_at from job where session = (select session from job where id = $1)
                  order by position desc limit $2) as row";
    let took: f64 = sqlx::query_scalar(took).bind(id).bind(ROW as i64).fetch_one(&db).await?;
    Ok(ROW as f64 / took)
}
