//! Webhooks: signed deliveries that are in Postgres when they are done, to receivers that do the least a receiver can, beside a bare loop that
//! POSTs the same bodies and keeps nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contract::{TenantId, WebhookId};
use harness::{
    Error, Settings, Stack, User, free_port,
    process::{self, Process},
    services::Worker,
    until,
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use service::{
    Environment,
    seal::{MasterKeys, Purpose, Sealer},
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::report::{Report, median};

/// Rounds of each, which take turns.
const ROUNDS: usize = 3;
/// Deliveries of a round, whatever the number of endpoints.
const DELIVERIES: i64 = 20_000;

/// A worker, and how to give it something to tell.
pub struct Bench {
    /// The installation's rows.
    pub db: PgPool,
    redis: queue::Redis,
    sealer: Sealer,
    worker: Worker,
    receiver: SocketAddr,
    _receiving: Process,
}

/// A number of deliveries, and what they took.
struct Took {
    each_second: f64,
    each_second_of_cpu: f64,
}

/// Measures.
///
/// # Errors
/// What the servers said.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let mut stack = Stack::with(Settings { timings: "{}".into(), faults: false, ..Settings::default() }).await?;
    let bench = Bench::start(&mut stack).await?;
    for endpoints in [1, 50] {
        let tenants = bench.tenants(&stack, endpoints).await?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first warms both.
        for round in 0..=ROUNDS {
            let (a, b) = (bench.ours(&tenants, endpoints).await?, bare(&stack, bench.receiver, endpoints).await?);
            if round > 0 {
                ours.push(a);
                theirs.push(b);
            }
        }
        let of = |rounds: &[Took], f: fn(&Took) -> f64| median(rounds.iter().map(f).collect());
        let name = format!("webhooks to {endpoints} endpoint{}", if endpoints == 1 { "" } else { "s" });
        let beside = "bare hyper client, unsigned, kept nowhere";
        report.beside(&format!("{name}: deliveries"), "/s", of(&ours, |t| t.each_second), beside, of(&theirs, |t| t.each_second));
        let cpu: fn(&Took) -> f64 = |t| t.each_second_of_cpu;
        report.beside(&format!("{name}: deliveries a second of the sender's processor"), "/s", of(&ours, cpu), beside, of(&theirs, cpu));
        bench.forget().await?;
    }
    Ok(())
}

fn own(stack: &Stack, name: &str, args: &[&str]) -> Result<Process, Error> {
    let mut command = User::find()?.tied(stack.copy(&std::env::current_exe()?)?, "KILL");
    command.current_dir(stack.folder()).args(args);
    Ok(Process::start(name, stack.folder(), command)?)
}

impl Bench {
    /// A worker with its defaults, and the least that can receive.
    pub async fn start(stack: &mut Stack) -> Result<Self, Error> {
        let receiver = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let receiving = own(stack, "receiver", &["receive", &receiver.to_string()])?;
        until("the receiver", Duration::from_secs(10), || async { TcpStream::connect(receiver).await.ok() }).await;
        let keys = MasterKeys { master_key: stack.master_key().into(), master_key_previous: None };
        let (db, redis) = (stack.db().await, queue::Redis::connect(&stack.redis.url()).await?);
        let sealer = keys.sealer(Environment::Development)?;
        Ok(Self { worker: stack.teller("{}").await, db, redis, sealer, receiver, _receiving: receiving })
    }

    /// Where the least that can receive listens.
    pub fn receiver(&self) -> String {
        format!("http://{}/", self.receiver)
    }

    /// Tenants with five webhooks each, or one with one. Each is told of everything of its tenant.
    async fn tenants(&self, stack: &Stack, endpoints: i64) -> Result<Vec<TenantId>, Error> {
        let each = endpoints.min(5);
        let mut tenants = Vec::new();
        for n in 0..endpoints / each {
            let tenant: TenantId = stack.tenant(&format!("hooks{endpoints}x{n}")).await.id.parse()?;
            for _ in 0..each {
                self.endpoint(tenant, &self.receiver()).await?;
            }
            tenants.push(tenant);
        }
        self.held().await;
        Ok(tenants)
    }

    /// A webhook that is told of everything of its tenant.
    pub async fn endpoint(&self, tenant: TenantId, url: &str) -> Result<(), Error> {
        let id = WebhookId::new();
        let secret = format!("whsec_{}", harness::random_key());
        let secret = self.sealer.seal(Purpose::WebhookSecret, id.uuid().as_bytes(), secret.as_bytes())?;
        let insert = "insert into webhook (id, tenant, created_by, name, url, secret, cursor_seq)
                      select $1, $2, $2, 'bench', $3, $4, seq from tenant_counter where tenant = $2";
        sqlx::query(insert).bind(id.uuid()).bind(tenant.uuid()).bind(url).bind(secret).execute(&self.db).await?;
        Ok(queue::hooks::wake(&self.redis, id).await?)
    }

    /// When the worker holds all webhooks.
    pub async fn held(&self) {
        until("the worker to hold them", Duration::from_secs(20), || async {
            let sql = "select count(*) from webhook where state = 'active' and owner is null";
            (sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.db).await.ok()? == 0).then_some(())
        })
        .await;
    }

    /// Writes messages at the end of a tenant's log, and tells those who listen. Answers the last one's number.
    pub async fn emit(&self, tenant: TenantId, count: i64) -> Result<i64, Error> {
        let head: i64 = sqlx::query_scalar(
            "with c as (update tenant_counter set seq = seq + $2 where tenant = $1 returning seq),
                  e as (insert into event (tenant, seq, day, id, type, at, session, chat, data)
                        select $1, c.seq - $2 + n, (now() at time zone 'UTC')::date, gen_random_uuid(), 'message', now(), $1, $1, $3
                          from c, generate_series(1, $2) n)
             select seq from c",
        )
        .bind(tenant.uuid())
        .bind(count)
        .bind(data())
        .fetch_one(&self.db)
        .await?;
        queue::events::catch_up(&self.db, &self.redis, tenant, head).await?;
        Ok(head)
    }

    /// Ends these webhooks: the next ones are measured alone.
    async fn forget(&self) -> Result<(), Error> {
        sqlx::query("update webhook set state = 'paused'").execute(&self.db).await?;
        Ok(())
    }

    async fn ours(&self, tenants: &[TenantId], endpoints: i64) -> Result<Took, Error> {
        let each = DELIVERIES / endpoints;
        sqlx::query("truncate webhook_delivery").execute(&self.db).await?;
        let (began, cpu) = (Instant::now(), self.cpu()?);
        for tenant in tenants {
            self.emit(*tenant, each).await?;
        }
        let sql = "select bool_and(cursor_seq >= (select seq from tenant_counter c where c.tenant = w.tenant)) from webhook w where state = 'active'";
        until("all to be told", Duration::from_secs(120), || async {
            sqlx::query_scalar::<_, bool>(sql).fetch_one(&self.db).await.is_ok_and(|all| all).then_some(())
        })
        .await;
        let (took, cpu) = (began.elapsed(), self.cpu()? - cpu);
        let done: i64 = sqlx::query_scalar("select count(*) from webhook_delivery where state = 'delivered'").fetch_one(&self.db).await?;
        if done != each * endpoints {
            return Err(format!("{done} of {} are in the log", each * endpoints).into());
        }
        Ok(Took { each_second: done as f64 / took.as_secs_f64(), each_second_of_cpu: done as f64 / cpu.as_secs_f64() })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        Ok(process::cpu_time(self.worker.process.pid()).ok_or("the worker lives")?)
    }
}

/// A message as the log has it.
fn data() -> Value {
    json!({"message": {
        "id": "msg_01jdk4x2v0e8h9s6q3m5t7w1zb", "fromMe": false, "type": "text", "text": "a text of some length, as people write them on a phone",
        "status": "received", "ack": null, "source": "phone", "sender": {"id": "5511888880000@s.whatsapp.net", "name": "Beatriz"},
        "sentAt": "2026-11-24T10:00:00.000Z", "quoted": null,
    }})
}

/// The bare loop, as a process of its own that says what it took.
async fn bare(stack: &Stack, receiver: SocketAddr, endpoints: i64) -> Result<Took, Error> {
    let mut process = own(stack, &format!("post-{}", harness::random_word(4)), &["post", &receiver.to_string(), &endpoints.to_string()])?;
    process.wait(Duration::from_secs(120)).await.ok_or("the bare loop ends")?;
    let said: Value = serde_json::from_str(process.log().trim())?;
    let number = |name: &str| said[name].as_f64().unwrap_or(f64::NAN);
    Ok(Took { each_second: number("eachSecond"), each_second_of_cpu: number("eachSecondOfCpu") })
}

/// POSTs as many bodies over as many connections, one after the other on each.
///
/// # Errors
/// The network's.
#[expect(clippy::print_stdout, reason = "what it is asked for")]
pub async fn post(receiver: SocketAddr, connections: i64) -> Result<(), Error> {
    let body = json!({"id": WebhookId::new(), "seq": 1, "type": "message", "tenant": TenantId::new(), "session": null, "chat": null, "data": data()});
    let body = Bytes::from(body.to_string());
    let cpu = || process::cpu_time(std::process::id()).ok_or("this process lives");
    let (began, before) = (Instant::now(), cpu()?);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let body = body.clone();
        all.spawn(async move {
            let stream = TcpStream::connect(receiver).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
            let posting = async move {
                for _ in 0..DELIVERIES / connections {
                    let request = Request::post("/")
                        .header("host", "receiver")
                        .header("content-type", "application/json")
                        .body(Full::new(body.clone()))?;
                    sender.send_request(request).await?.into_body().collect().await?;
                }
                Ok::<(), Error>(())
            };
            tokio::select! {
                done = posting => done,
                ended = connection => Err(format!("the connection ended: {ended:?}").into()),
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), (cpu()? - before).as_secs_f64());
    println!("{}", json!({"eachSecond": DELIVERIES as f64 / took, "eachSecondOfCpu": DELIVERIES as f64 / cpu}));
    Ok(())
}

/// Takes requests and says 204, without reading more of them than where they end.
///
/// # Errors
/// The network's.
pub async fn receive(addr: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await?;
    let mut all = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        all.spawn(take(stream));
        while all.try_join_next().is_some() {}
    }
}

async fn take(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let end = loop {
            if let Some(end) = request_end(&buffer) {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        buffer.drain(..end);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}

/// Where the first request ends, if all of it is here.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")));
    let end = head + length.map_or(0, |(_, value)| value.trim().parse().unwrap_or(0));
    (bytes.len() >= end).then_some(end)
}
