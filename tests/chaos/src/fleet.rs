//! All processes of an installation: broken as the plan says, and started again as whoever looks after services does.

mod browsers;
mod points;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::ProfileId;
use harness::{
    Error, Stack,
    faults::{Arrival, Word},
    process::{self, Signal},
    redis::Kept,
    services::{Api, Host, Worker},
};
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::Instant,
};

use crate::{
    gather::Trimmed,
    plan::{Fault, Net, Server, Shape, Timed},
};

/// How often processes that ended are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of a host.
const SLOTS: usize = 6;
/// A worker that notices what happens within moments; a webhook's endpoint is always there.
const TELLER: &str =
    r#"{"leaseMs": 2000, "lookEveryMs": 200, "connectWithinMs": 1000, "answerWithinMs": 3000, "retryAfterMs": [100, 200, 400, 400]}"#;

/// For one delivery: far longer than an event takes to come.
const SLOW_MS: u64 = 400;

/// What ends a fault that lasts.
enum Undo {
    Continue(u32),
    Pass(Server),
    RedisUp,
    RedisBack(Kept),
    Online(String),
    Unban(String),
    Trim(usize),
    KillWorker,
}

/// The processes.
pub struct Fleet {
    hosts: Vec<Host>,
    worker: Worker,
    others: Vec<Api>,
    /// Servers, simulator, and the first API.
    pub stack: Stack,
    /// The numbers of customers.
    pub peers: Vec<String>,
    /// Accounts: number, and the session's id in the database.
    pub accounts: Vec<(String, String)>,
    undo: Vec<(Instant, Undo)>,
    armed: Vec<u64>,
    waiting: JoinSet<()>,
    /// Whose session is to be taken over while they wait.
    overtaken: (UnboundedSender<Arrival>, UnboundedReceiver<Arrival>),
    /// How long webhooks' endpoints take for an answer, in ms.
    pub endpoints_take: Arc<AtomicU64>,
    /// What was trimmed from streams.
    pub trimmed: Trimmed,
    /// What was broken, and when, in ms from the start.
    pub broken: Vec<(u64, Fault)>,
    /// How many processes were started again.
    pub revived: usize,
}

impl Fleet {
    /// Starts hosts, worker and further APIs on a stack with proxies and fault points.
    ///
    /// # Errors
    /// What kept one from starting.
    pub async fn start(mut stack: Stack, shape: &Shape) -> Result<Self, Error> {
        let mut others = Vec::new();
        for _ in 1..shape.apis {
            others.push(stack.another_api().await);
        }
        let mut hosts = Vec::new();
        for _ in 0..shape.hosts {
            hosts.push(stack.try_host(SLOTS).await?);
        }
        let worker = stack.teller(TELLER).await;
        Ok(Self {
            hosts,
            worker,
            others,
            stack,
            peers: Vec::new(),
            accounts: Vec::new(),
            undo: Vec::new(),
            armed: Vec::new(),
            waiting: JoinSet::new(),
            overtaken: unbounded_channel(),
            endpoints_take: Arc::default(),
            trimmed: Trimmed::default(),
            broken: Vec::new(),
            revived: 0,
        })
    }

    /// Where the APIs are.
    pub fn urls(&self) -> Vec<String> {
        std::iter::once(&self.stack.api).chain(&self.others).map(Api::url).collect()
    }

    /// Breaks what the plan says, each at its time, and revives what ended, until `end`.
    pub async fn suffer(&mut self, faults: &[Timed<Fault>], start: Instant, end: Instant) {
        let mut faults = faults.iter().peekable();
        while Instant::now() < end {
            let next = faults.peek().map_or(end, |fault| start + Duration::from_millis(fault.at));
            if next <= Instant::now()
                && let Some(fault) = faults.next()
            {
                self.broken.push((u64::try_from(start.elapsed().as_millis()).unwrap_or_default(), fault.what.clone()));
                self.apply(&fault.what).await;
                continue;
            }
            self.tend().await;
            let due = self.undo.iter().map(|(at, _)| *at).min().unwrap_or(end);
            tokio::select! {
                () = tokio::time::sleep_until(next.min(due).min(Instant::now() + LOOK_EVERY)) => {}
                Some(arrival) = self.overtaken.1.recv() => self.overtake(arrival).await,
            }
        }
    }

    /// Ends what is over, and starts what has ended.
    pub async fn tend(&mut self) {
        let now = Instant::now();
        while let Some(place) = self.undo.iter().position(|(at, _)| *at <= now) {
            let (_, undo) = self.undo.swap_remove(place);
            self.end(undo).await;
        }
        for api in std::iter::once(&mut self.stack.api).chain(&mut self.others) {
            if api.process.ended().is_some() {
                self.revived += 1;
                api.revive().expect("an API starts");
            }
        }
        if self.worker.process.ended().is_some() {
            self.revived += 1;
            self.worker.revive().expect("a worker starts");
        }
        for host in &mut self.hosts {
            if host.process.ended().is_some() {
                self.revived += 1;
                *host = self.stack.launch_host(SLOTS).expect("a host starts");
            }
        }
    }

    /// All is whole again: nothing is broken any more, and nothing will be.
    pub async fn heal(&mut self) {
        self.waiting.abort_all();
        while self.waiting.join_next().await.is_some() {}
        while let Ok(arrival) = self.overtaken.1.try_recv() {
            arrival.reply(Word::Go).await;
        }
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.end(undo).await;
        }
        for fault in std::mem::take(&mut self.armed) {
            // Those that were used up are gone.
            self.stack.sim.ask(reqwest::Method::DELETE, &format!("/faults/{fault}"), None).await;
        }
        // Whom a point had stopped when its time was cut short.
        for host in &self.hosts {
            host.find_proper().into_iter().for_each(|pid| process::send(pid, Signal::CONT));
        }
        self.tend().await;
    }

    /// The hosts leave in order. Answers what stayed.
    pub async fn leave(&mut self, within: Duration) -> Vec<String> {
        let data = self.hosts[0].data.clone();
        for host in &self.hosts {
            host.process.signal(Signal::TERM);
        }
        let mut left = Vec::new();
        for host in &mut self.hosts {
            if host.process.wait(within).await.is_none() {
                left.push(format!("{} does not leave", host.process.name()));
            }
        }
        left.extend(browsers::below(&data));
        left
    }

    async fn end(&mut self, undo: Undo) {
        match undo {
            Undo::Continue(pid) => process::send(pid, Signal::CONT),
            Undo::Pass(Server::Postgres) => self.stack.proxies().postgres.pass(),
            Undo::Pass(Server::Redis) => self.stack.proxies().redis.pass(),
            Undo::RedisUp => self.stack.redis.up().await.expect("Redis starts"),
            Undo::RedisBack(kept) => self.stack.redis.go_back(&kept).await.expect("Redis starts"),
            Undo::Unban(phone) => self.stack.sim.ban(&phone, 0).await,
            Undo::Online(phone) => self.stack.sim.online(&phone).await,
            Undo::KillWorker => {
                self.worker.process.signal(Signal::KILL);
                self.endpoints_take.store(0, Ordering::Relaxed);
            }
            Undo::Trim(api) => {
                // Where Redis is away the streams are as they were.
                for (key, gone) in self.stack.redis.trim("zg:*:ev:*").await.unwrap_or_default() {
                    self.trimmed.entry(key).or_default().extend(gone);
                }
                self.api(api).process.signal(Signal::CONT);
            }
        }
    }

    fn later(&mut self, ms: u64, undo: Undo) {
        self.undo.push((Instant::now() + Duration::from_millis(ms), undo));
    }

    async fn apply(&mut self, fault: &Fault) {
        match fault {
            Fault::KillHost(n) => self.to_proper(*n, Signal::KILL),
            Fault::KillHostAndGuard(n) => {
                self.to_proper(*n, Signal::KILL);
                self.hosts[*n].process.signal(Signal::KILL);
            }
            Fault::KillMachine(n) => process::kill_tree(self.hosts[*n].process.pid()),
            Fault::StopHost(n, ms) => {
                if let Some(pid) = self.hosts[*n].find_proper() {
                    process::send(pid, Signal::STOP);
                    self.later(*ms, Undo::Continue(pid));
                }
            }
            Fault::DrainHost(n) => self.hosts[*n].process.signal(Signal::TERM),
            Fault::KillApi(n) => self.api(*n).process.signal(Signal::KILL),
            Fault::TrimStreams(n, ms) => {
                self.api(*n).process.signal(Signal::STOP);
                self.later(*ms, Undo::Trim(*n));
            }
            Fault::KillWorkerBehind(ms) => {
                self.endpoints_take.store(SLOW_MS, Ordering::Relaxed);
                self.later(*ms, Undo::KillWorker);
            }
            Fault::KillWorker => self.worker.process.signal(Signal::KILL),
            Fault::KillDrivers(n) => {
                let proper = self.hosts[*n].find_proper();
                proper.into_iter().flat_map(browsers::drivers).for_each(|pid| process::send(pid, Signal::KILL));
            }
            Fault::KillBrowser(n) => self.browsers(*n).into_iter().for_each(|pid| process::send(pid, Signal::KILL)),
            Fault::KillRenderer(n) => {
                self.browsers(*n).into_iter().flat_map(browsers::renderers).for_each(|pid| process::send(pid, Signal::KILL));
            }
            Fault::RestartPostgres => self.stack.postgres.restart().await.expect("Postgres starts"),
            Fault::CrashPostgres => self.stack.postgres.crash().await.expect("Postgres starts"),
            Fault::CrashRedis(ms) => {
                self.stack.redis.kill().await;
                self.later(*ms, Undo::RedisUp);
            }
            Fault::FlushRedis => drop(self.stack.redis.try_command(&["FLUSHALL"]).await),
            Fault::RewindRedis(ms) => {
                // While it is down there is nothing to go back to.
                if let Ok(kept) = self.stack.redis.keep().await {
                    self.later(*ms, Undo::RedisBack(kept));
                }
            }
            Fault::PauseRedis(ms) => drop(self.stack.redis.try_command(&["CLIENT", "PAUSE", &ms.to_string()]).await),
            Fault::Network(server, net) => self.network(*server, *net),
            Fault::Page(n, kind, times, ms, frame) => {
                let mut fault = json!({"kind": kind, "account": self.accounts[*n].0});
                for (name, value) in [("times", times.map(u64::from)), ("ms", *ms)] {
                    if let Some(value) = value {
                        fault[name] = value.into();
                    }
                }
                if let Some(frame) = frame {
                    fault["frame"] = (*frame).into();
                }
                let armed = self.stack.sim.fault(fault).await;
                self.armed.push(armed);
                // It meets the next document, which would not come for long.
                if matches!(*kind, "blank_page" | "page_error" | "slow_start") {
                    self.browsers(*n).into_iter().flat_map(browsers::renderers).for_each(|pid| process::send(pid, Signal::KILL));
                }
            }
            Fault::Unlink(n) => {
                let phone = &self.accounts[*n].0;
                for device in self.stack.sim.devices(phone).await {
                    self.stack.sim.remove_device(phone, &device).await;
                }
            }
            Fault::Ban(n, ms) => {
                let phone = self.accounts[*n].0.clone();
                self.stack.sim.ban(&phone, 10).await;
                self.later(*ms, Undo::Unban(phone));
            }
            Fault::PhoneOffline(n, ms) => {
                self.stack.sim.offline(&self.peers[*n]).await;
                self.later(*ms, Undo::Online(self.peers[*n].clone()));
            }
            Fault::Point(name, step) => self.point(None, name, *step),
            Fault::PointOf(n, name, step) => self.point(Some(*n), name, *step),
        }
    }

    fn network(&mut self, server: Server, net: Net) {
        let proxies = self.stack.proxies();
        let proxy = match server {
            Server::Postgres => &proxies.postgres,
            Server::Redis => &proxies.redis,
        };
        match net {
            Net::Cut => proxy.cut(),
            Net::Silence => proxy.silence(),
            Net::Stall(ms) => {
                proxy.stall();
                self.later(ms, Undo::Pass(server));
            }
            Net::Refuse(ms) => {
                proxy.cut();
                proxy.refuse();
                self.later(ms, Undo::Pass(server));
            }
        }
    }

    fn api(&self, n: usize) -> &Api {
        n.checked_sub(1).map_or(&self.stack.api, |other| &self.others[other])
    }

    fn to_proper(&self, host: usize, signal: Signal) {
        self.hosts[host].find_proper().into_iter().for_each(|pid| process::send(pid, signal));
    }

    fn browsers(&self, account: usize) -> Vec<u32> {
        // As nobody else asks: Postgres may be away just now.
        let asked = format!("select profile from session where id = '{}'", self.accounts[account].1);
        let profile = self.stack.postgres.try_sql(&asked).ok().and_then(|id| Some(ProfileId::from_uuid(id.parse().ok()?)));
        profile.map(|profile| process::with_argument(&format!("/profiles/{profile}"))).unwrap_or_default()
    }
}
