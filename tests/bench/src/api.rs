//! The API as a process, beside a bare handler as a process, under the same load.

use std::{net::SocketAddr, time::Duration};

use harness::{Error, Stack, User, free_port, process::Process, until};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    bare,
    load::{self, Ask, Load},
    report::{Report, median},
    stores::insert_sessions,
};

/// Alternating rounds of ours and theirs, and how long each is.
const ROUNDS: usize = 3;
const DURING: Duration = Duration::from_secs(3);
/// Sessions that sends are spread over: a lane takes 10,000 unfinished jobs.
const SESSIONS: usize = 8;
const CHAT: &str = "5511888880000";

/// What is read of a round.
type Number = fn(&Load) -> f64;

/// One server and what is asked of it.
struct Server {
    pid: u32,
    send: Ask,
    job: Ask,
}

/// Measures sends and looks at jobs.
///
/// # Errors
/// What the stack said, and answers that were not expected.
pub async fn measure(stack: &mut Stack, report: &mut Report) -> Result<(), Error> {
    let ours = ours(stack).await?;
    let (_process, theirs) = theirs(stack).await?;
    side_by_side(report, "accept a send", &ours.send, ours.pid, &theirs.send, theirs.pid).await?;
    side_by_side(report, "job status", &ours.job, ours.pid, &theirs.job, theirs.pid).await
}

async fn side_by_side(report: &mut Report, what: &str, ours: &Ask, our_pid: u32, theirs: &Ask, their_pid: u32) -> Result<(), Error> {
    // Connections, caches and statements are warm before anything counts.
    load::run(ours, our_pid, DURING / 3).await?;
    load::run(theirs, their_pid, DURING / 3).await?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(load::run(ours, our_pid, DURING).await?);
        b.push(load::run(theirs, their_pid, DURING).await?);
    }
    let of = |loads: &[Load], f: Number| median(loads.iter().map(f).collect());
    let numbers: [(&str, &'static str, Number); 4] = [
        ("processor time a request", "µs", |l| l.cpu_us),
        ("throughput, 16 callers", "requests/s", |l| l.per_second),
        ("latency p50, 16 callers", "ms", |l| l.latencies.ms(0.5)),
        ("latency p99, 16 callers", "ms", |l| l.latencies.ms(0.99)),
    ];
    for (number, unit, f) in numbers {
        report.beside(&format!("{what}: {number}"), unit, of(&a, f), "bare axum + JWT + EVALSHA", of(&b, f));
    }
    Ok(())
}

fn first_id(load: &Load) -> Result<String, Error> {
    let job: Value = serde_json::from_slice(&load.last)?;
    Ok(job["id"].as_str().ok_or("a job has an id")?.to_owned())
}

async fn ours(stack: &Stack) -> Result<Server, Error> {
    let ana = stack.tenant("bench").await;
    let db = stack.db().await;
    let tenant = ana.id.parse()?;
    let sessions: Vec<_> = (0..SESSIONS).map(|_| contract::SessionId::new()).collect();
    insert_sessions(&db, tenant, &sessions).await?;
    let pid = stack.api.process.pid();
    let send = Ask {
        addr: stack.api.url().trim_start_matches("http://").parse()?,
        method: Method::POST,
        paths: sessions.iter().map(|session| format!("/api/sessions/{session}/chats/{CHAT}/messages")).collect(),
        token: ana.client.token().to_owned(),
        body: Some(json!({"type": "text", "text": "a text of some length"}).to_string()),
        expected: StatusCode::ACCEPTED,
    };
    let id = first_id(&load::run(&send, pid, Duration::from_millis(100)).await?)?;
    let job = Ask { method: Method::GET, paths: vec![format!("/api/jobs/{id}")], body: None, expected: StatusCode::OK, ..send.clone() };
    Ok(Server { pid, send, job })
}

async fn theirs(stack: &Stack) -> Result<(Process, Server), Error> {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (token, key) = bare::token()?;
    let me = std::env::current_exe()?;
    let program = stack.copy(&me)?;
    let mut command = User::find()?.tied(program, "KILL");
    command.current_dir(stack.folder()).arg("bare").arg(addr.to_string()).arg(stack.redis.url()).arg(key);
    let process = Process::start("bare", stack.folder(), command)?;
    until("the bare handler", Duration::from_secs(10), || async { tokio::net::TcpStream::connect(addr).await.ok() }).await;
    let pid = process.pid();
    let send = Ask {
        addr,
        method: Method::POST,
        paths: vec![format!("/chats/{CHAT}/messages")],
        token,
        body: Some(json!({"type": "text", "text": "a text of some length"}).to_string()),
        expected: StatusCode::ACCEPTED,
    };
    let id = first_id(&load::run(&send, pid, Duration::from_millis(100)).await?)?;
    let job = Ask { method: Method::GET, paths: vec![format!("/jobs/{id}")], body: None, expected: StatusCode::OK, ..send.clone() };
    Ok((process, Server { pid, send, job }))
}
