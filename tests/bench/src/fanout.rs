//! One event and a thousand clients, each with a key of its own, on one API process: by Socket.IO and by server-sent events, beside a bare
//! `socket.io` (Node) that broadcasts what is posted to it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use contract::{Event, EventId, EventType, TenantId};
use futures::{SinkExt, StreamExt, future::try_join_all};
use harness::{Error, Stack, User, free_port, process, process::Process, until};
use queue::Redis;
use serde_json::{Value, json};
use store::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    node,
    report::{Latencies, Report},
};

const CLIENTS: usize = 1000;
/// Clients that connect at once.
const AT_ONCE: usize = 50;
/// Events, one after the other has reached everybody.
const EVENTS: usize = 50;
/// Events that are published at once, for the rate.
const BURST: usize = 100;
const WITHIN: Duration = Duration::from_secs(60);

/// When a client heard of a `seq`.
type Heard = (i64, Instant);

/// Clients that are connected, and what they hear.
struct Crowd {
    heard: mpsc::UnboundedReceiver<Heard>,
    tasks: Vec<JoinHandle<()>>,
    /// Growth of the server's memory for each of them.
    memory: f64,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Crowd {
    /// Until everybody has heard everything from `first` on; how long that took each of them.
    async fn hears(&mut self, first: i64, events: usize, said: &[Instant]) -> Result<Vec<Duration>, Error> {
        let mut all = Vec::with_capacity(events * CLIENTS);
        while all.len() < events * CLIENTS {
            let (seq, at) = tokio::time::timeout(WITHIN, self.heard.recv()).await?.ok_or("all clients are gone")?;
            if let Some(began) = usize::try_from(seq - first).ok().and_then(|n| said.get(n)) {
                all.push(at.duration_since(*began));
            }
        }
        Ok(all)
    }
}

/// What was measured of a server.
struct Measured {
    latencies: Latencies,
    per_second: f64,
    cpu_us: f64,
    memory: f64,
}

/// Measures all three.
///
/// # Errors
/// What kept it from measuring.
pub async fn measure(stack: &Stack, report: &mut Report) -> Result<(), Error> {
    let ours = Ours::new(stack).await?;
    let (bare, addr) = bare(stack).await?;
    let sockets = {
        let mut crowd = gather(stack.api.process.pid(), |n| by_socket(ours.addr, json!({"apiKey": ours.keys[n]}))).await?;
        ours.measure(&mut crowd).await?
    };
    let streams = {
        let mut crowd = gather(stack.api.process.pid(), |n| by_stream(ours.addr, ours.keys[n].clone())).await?;
        ours.measure(&mut crowd).await?
    };
    let theirs = {
        let mut crowd = gather(bare.pid(), |_| by_socket(addr, json!({}))).await?;
        beside(&bare, addr, &mut crowd).await?
    };
    for (what, ours) in [("Socket.IO", &sockets), ("server-sent events", &streams)] {
        let mut line = |number: &str, unit, f: fn(&Measured) -> f64| {
            report.beside(&format!("{CLIENTS} clients by {what}: {number}"), unit, f(ours), "bare socket.io (Node)", f(&theirs));
        };
        line("event to client p50", "ms", |m| m.latencies.ms(0.5));
        line("event to client p99", "ms", |m| m.latencies.ms(0.99));
        line("events to clients, at once", "deliveries/s", |m| m.per_second);
        line("processor time a delivery", "µs", |m| m.cpu_us);
        line("memory a client", "KiB", |m| m.memory);
    }
    Ok(())
}

/// Connects everybody.
async fn gather<F, C>(pid: u32, connect: impl Fn(usize) -> F) -> Result<Crowd, Error>
where
    F: Future<Output = Result<C, Error>>,
    C: FnOnce(mpsc::UnboundedSender<Heard>) -> JoinHandle<()>,
{
    let before = resident(pid)?;
    let (told, heard) = mpsc::unbounded_channel();
    let mut tasks = Vec::with_capacity(CLIENTS);
    for first in (0..CLIENTS).step_by(AT_ONCE) {
        for listen in try_join_all((first..first + AT_ONCE).map(&connect)).await? {
            tasks.push(listen(told.clone()));
        }
    }
    // As far as it goes by itself.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let memory = (resident(pid)? - before) / CLIENTS as f64;
    Ok(Crowd { heard, tasks, memory })
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// Where there is no such process.
pub fn resident(pid: u32) -> Result<f64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("a process has memory")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn cpu(pid: u32) -> Result<f64, Error> {
    Ok(process::cpu_time(pid).ok_or("the process is there")?.as_secs_f64())
}

/// The first number behind `"seq":`.
fn seq(text: &str) -> Option<i64> {
    let rest = text.split_once("\"seq\":")?.1;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}

async fn by_socket(addr: SocketAddr, auth: Value) -> Result<impl FnOnce(mpsc::UnboundedSender<Heard>) -> JoinHandle<()>, Error> {
    let (mut ws, _) = tokio_tungstenite::connect_async(format!("ws://{addr}/socket.io/?EIO=4&transport=websocket")).await?;
    ws.next().await.ok_or("a handshake")??;
    ws.send(Message::Text(format!("40{auth}").into())).await?;
    let answer = ws.next().await.ok_or("an answer")??.into_text()?;
    if !answer.as_str().starts_with("40") {
        return Err(answer.as_str().into());
    }
    Ok(move |told: mpsc::UnboundedSender<Heard>| {
        tokio::spawn(async move {
            while let Some(Ok(message)) = ws.next().await {
                let Message::Text(text) = message else { continue };
                match text.as_str() {
                    "2" => {
                        let _ = ws.send(Message::Text("3".into())).await;
                    }
                    text if text.starts_with("42[\"message\"") => {
                        let _ = seq(text).map(|seq| told.send((seq, Instant::now())));
                    }
                    _ => {}
                }
            }
        })
    })
}

async fn by_stream(addr: SocketAddr, key: String) -> Result<impl FnOnce(mpsc::UnboundedSender<Heard>) -> JoinHandle<()>, Error> {
    let mut socket = TcpStream::connect(addr).await?;
    let head = format!("GET /api/events/stream HTTP/1.1\r\nhost: {addr}\r\nx-api-key: {key}\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut text = vec![0; 16 * 1024];
    let read = socket.read(&mut text).await?;
    if !text.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&text[..read]).into_owned().into());
    }
    Ok(move |told: mpsc::UnboundedSender<Heard>| {
        tokio::spawn(async move {
            let mut left = Vec::new();
            while let Ok(read @ 1..) = socket.read(&mut text).await {
                left.extend_from_slice(&text[..read]);
                let Some(end) = left.iter().rposition(|b| *b == b'\n') else { continue };
                let lines = String::from_utf8_lossy(&left[..end]);
                for seq in lines.lines().filter(|line| line.starts_with("data: {")).filter_map(seq) {
                    let _ = told.send((seq, Instant::now()));
                }
                left.drain(..=end);
            }
        })
    })
}

/// Our own side: a tenant, its keys, and how its events come about.
struct Ours {
    pool: PgPool,
    redis: Redis,
    tenant: TenantId,
    addr: SocketAddr,
    keys: Vec<String>,
    pid: u32,
}

impl Ours {
    async fn new(stack: &Stack) -> Result<Self, Error> {
        let ana = stack.tenant("crowd").await;
        let tenant: TenantId = ana.id.parse()?;
        for name in ["streams", "apiKeys"] {
            stack.postgres.sql(&format!(
                "insert into usage_limit (tenant, name, value) values ('{}', '{name}', {})",
                tenant.uuid(),
                2 * CLIENTS
            ));
        }
        // Limits may be a few seconds old.
        let first = json!({"name": "k", "scopes": ["events:read"]});
        until("the limits to be read", Duration::from_secs(20), || async {
            (ana.client.get("/api/limits").await.body.to_string().contains(&(2 * CLIENTS).to_string())).then_some(())
        })
        .await;
        let mut keys = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS / AT_ONCE {
            let made = futures::future::join_all((0..AT_ONCE).map(|_| ana.client.post("/api/keys", first.clone()))).await;
            keys.extend(made.into_iter().filter_map(|key| Some(key.ok()["secret"].as_str()?.to_owned())));
        }
        let addr = stack.api.url().trim_start_matches("http://").parse()?;
        let redis = Redis::connect(&stack.redis.url()).await?;
        Ok(Self { pool: stack.db().await, redis, tenant, addr, keys, pid: stack.api.process.pid() })
    }

    /// Commits events, as their makers do; they are not published yet.
    async fn happen(&self, events: usize) -> Result<Vec<Event>, Error> {
        let rows: Vec<(i64, uuid::Uuid, chrono::DateTime<chrono::Utc>, Value)> = sqlx::query_as(
            "with c as (update tenant_counter set seq = seq + $2 where tenant = $1 returning tenant, seq)
             insert into event (tenant, seq, day, id, type, at, data)
             select tenant, seq - $2 + n, current_date, gen_random_uuid(), 'message', clock_timestamp(), $3
               from c, generate_series(1, $2) n
             returning seq, id, at, data",
        )
        .bind(self.tenant.uuid())
        .bind(i64::try_from(events)?)
        .bind(message())
        .fetch_all(&self.pool)
        .await?;
        let event = |(seq, id, timestamp, data)| Event {
            id: EventId::from_uuid(id),
            seq,
            kind: EventType::Message,
            timestamp,
            tenant: self.tenant,
            session: None,
            chat: None,
            data,
        };
        Ok(rows.into_iter().map(event).collect())
    }

    async fn measure(&self, crowd: &mut Crowd) -> Result<Measured, Error> {
        let publish = async |events: &[Event]| queue::events::publish(&self.pool, &self.redis, self.tenant, events).await;
        let mut all = Vec::new();
        let began = cpu(self.pid)?;
        for _ in 0..EVENTS {
            let events = self.happen(1).await?;
            let said = [Instant::now()];
            publish(&events).await?;
            all.extend(crowd.hears(events[0].seq, 1, &said).await?);
        }
        let cpu_us = (cpu(self.pid)? - began) * 1e6 / (EVENTS * CLIENTS) as f64;
        let events = self.happen(BURST).await?;
        let began = Instant::now();
        publish(&events).await?;
        crowd.hears(events[0].seq, BURST, &[began; BURST]).await?;
        let per_second = (BURST * CLIENTS) as f64 / began.elapsed().as_secs_f64();
        Ok(Measured { latencies: all.into(), per_second, cpu_us, memory: crowd.memory })
    }
}

fn message() -> Value {
    json!({"message": {"id": "msg_00000000000000000000000000", "fromMe": false, "type": "text", "text": "a text of some length", "ack": 1,
        "status": "sent", "source": "phone", "waId": "3EB0AAAAAAAAAAAAAAAA", "sender": {"waId": "5511888880000@c.us"}, "replyTo": null}})
}

/// The bare server, as a process of its own.
async fn bare(stack: &Stack) -> Result<(Process, SocketAddr), Error> {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let folder = node::installed("socketio")?;
    let mut command = User::find()?.tied("node", "KILL");
    command.arg(folder.join("server.mjs")).arg(addr.to_string());
    let process = Process::start("socketio", stack.folder(), command)?;
    until("the bare server", Duration::from_secs(10), || async { TcpStream::connect(addr).await.ok() }).await;
    Ok((process, addr))
}

async fn beside(bare: &Process, addr: SocketAddr, crowd: &mut Crowd) -> Result<Measured, Error> {
    let http = reqwest::Client::new();
    let post = async |seq: i64| {
        let body = json!({"id": "evt_00000000000000000000000000", "seq": seq, "type": "message", "timestamp": "2026-11-24T10:00:00.000Z",
            "tenant": "ten_00000000000000000000000000", "session": null, "chat": null, "data": message()});
        http.post(format!("http://{addr}/")).body(body.to_string()).send().await.map(|_| ())
    };
    let mut all = Vec::new();
    let began = cpu(bare.pid())?;
    for n in 0..EVENTS {
        let (seq, said) = (i64::try_from(n)?, [Instant::now()]);
        post(seq).await?;
        all.extend(crowd.hears(seq, 1, &said).await?);
    }
    let cpu_us = (cpu(bare.pid())? - began) * 1e6 / (EVENTS * CLIENTS) as f64;
    let (first, began) = (i64::try_from(EVENTS)?, Instant::now());
    for n in 0..BURST {
        post(first + i64::try_from(n)?).await?;
    }
    crowd.hears(first, BURST, &[began; BURST]).await?;
    let per_second = (BURST * CLIENTS) as f64 / began.elapsed().as_secs_f64();
    Ok(Measured { latencies: all.into(), per_second, cpu_us, memory: crowd.memory })
}
