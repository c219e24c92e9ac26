//! A load generator: callers that keep their connection and ask again as soon as they are answered.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use harness::{Error, process::cpu_time};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::report::Latencies;

/// Callers at once.
pub const CALLERS: usize = 16;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Of whom.
    pub addr: SocketAddr,
    /// The method.
    pub method: hyper::Method,
    /// Paths, taken in turn.
    pub paths: Vec<String>,
    /// The token.
    pub token: String,
    /// The body, of a POST.
    pub body: Option<String>,
    /// The answer that counts.
    pub expected: StatusCode,
}

/// What came of it.
#[derive(Debug)]
pub struct Load {
    /// Requests a second.
    pub per_second: f64,
    /// Their latencies.
    pub latencies: Latencies,
    /// Processor time of the asked process, µs a request.
    pub cpu_us: f64,
    /// The last answer of one caller.
    pub last: Bytes,
}

/// Asks for so long, and reads the processor time of `pid` before and after.
///
/// # Errors
/// Where an answer is not the expected one.
pub async fn run(ask: &Ask, pid: u32, during: Duration) -> Result<Load, Error> {
    let ask = Arc::new(ask.clone());
    let mut callers = JoinSet::new();
    let (cpu, began) = (cpu_time(pid).ok_or("the process is gone")?, Instant::now());
    for n in 0..CALLERS {
        let ask = ask.clone();
        callers.spawn(async move { call(&ask, n, began + during).await });
    }
    let (mut all, mut last) = (Vec::new(), Bytes::new());
    while let Some(done) = callers.join_next().await {
        let (latencies, body) = done??;
        all.extend(latencies);
        last = body;
    }
    let (took, cpu) = (began.elapsed(), cpu_time(pid).ok_or("the process is gone")? - cpu);
    let count = all.len() as f64;
    Ok(Load { per_second: count / took.as_secs_f64(), latencies: all.into(), cpu_us: cpu.as_secs_f64() * 1e6 / count, last })
}

async fn call(ask: &Ask, first: usize, until: Instant) -> Result<(Vec<Duration>, Bytes), Error> {
    let stream = TcpStream::connect(ask.addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (mut latencies, mut last, mut n) = (Vec::new(), Bytes::new(), first);
    while Instant::now() < until {
        let request = Request::builder()
            .method(&ask.method)
            .uri(&ask.paths[n % ask.paths.len()])
            .header(header::HOST, "bench")
            .header(header::AUTHORIZATION, format!("Bearer {}", ask.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(ask.body.clone().unwrap_or_default())))?;
        let began = Instant::now();
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        last = answer.into_body().collect().await?.to_bytes();
        latencies.push(began.elapsed());
        if status != ask.expected {
            return Err(format!("{} answered {status}: {}", ask.paths[n % ask.paths.len()], String::from_utf8_lossy(&last)).into());
        }
        n += 1;
    }
    Ok((latencies, last))
}
