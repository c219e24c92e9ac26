//! A plan from its start to the checker's word.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use contract::SessionId;
use harness::{
    Error, Settings, Stack, Tenant,
    receiver::{Receiver, Reply},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    check::{Violation, check, is_final},
    fleet::Fleet,
    follow::Follower,
    gather::{self, Company, Trimmed},
    history::{History, Send, Session},
    person::{self, state},
    plan::{Act, How, Plan, Shape},
    traffic::{Account, Traffic},
    witness,
};

/// How long all may take to come back once nothing is broken any more: browsers start one after another, on a machine that has more to do.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long a host may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How it went.
pub struct Report {
    /// What should not be.
    pub violations: Vec<Violation>,
    /// Counts and faults, to be read.
    pub text: String,
}

/// Carries a plan out on a stack of its own.
///
/// # Errors
/// What kept it from starting.
pub async fn run(plan: &Plan, shape: &Shape) -> Result<Report, Error> {
    let settings = Settings { proxies: true, durable_redis: plan.durable_redis, ..Settings::default() };
    let stack = Stack::with(settings).await?;
    witness::install(&stack);
    let mut fleet = Fleet::start(stack, shape).await?;
    let companies = found(&fleet, shape).await;
    let traffic = Arc::new(link(&mut fleet, &companies, shape).await);
    let took = play(plan, shape, &mut fleet, &companies, &traffic).await;
    let history = look(&mut fleet, &companies, &traffic, shape).await;
    let violations = check(&history);
    if !violations.is_empty() {
        // What the services said is the way to the cause; the stack shows it when it goes down in a panic only.
        keep_logs(&fleet.stack, plan.seed);
    }
    Ok(Report { violations, text: tell(plan, &history, &fleet, traffic.seen().asked, took) })
}

/// Traffic and faults, then all whole again. Answers how long that took.
async fn play(plan: &Plan, shape: &Shape, fleet: &mut Fleet, companies: &[Company], traffic: &Arc<Traffic>) -> Duration {
    let (start, mut persons) = (traffic.start, attend(traffic));
    let end = start + Duration::from_secs(shape.seconds);
    tokio::join!(traffic.play(&plan.traffic), fleet.suffer(&plan.faults, start, end));
    fleet.heal().await;
    let healed = Instant::now();
    until_whole(fleet, traffic, companies).await;
    probe(fleet, traffic, companies, shape).await;
    persons.abort_all();
    healed.elapsed()
}

/// What everybody saw, once the hosts have left.
async fn look(fleet: &mut Fleet, companies: &[Company], traffic: &Traffic, shape: &Shape) -> History {
    let sessions = states(traffic, companies).await;
    let left = fleet.leave(LEAVE_WITHIN).await;
    let stack = &fleet.stack;
    settle(stack, companies, &fleet.trimmed).await;
    let mut logs = Vec::new();
    for company in companies {
        logs.push(gather::log(stack, company, &fleet.trimmed).await);
    }
    let seen = traffic.seen();
    let mut sends: Vec<(usize, Send)> = seen.sends.into_iter().collect();
    sends.sort_by_key(|(n, _)| *n);
    History {
        sessions,
        sends: sends.into_iter().map(|(_, send)| send).collect(),
        incoming: seen.incoming,
        jobs: gather::jobs(stack, &traffic.accounts, &logs),
        phones: gather::phones(traffic).await,
        logs,
        stale: witness::heard(stack),
        left,
        unknown_allowed: fleet.broken.iter().map(|(_, fault)| fault.may_leave_unknown(shape)).sum(),
    }
}

fn keep_logs(stack: &Stack, seed: u64) {
    let kept = std::env::temp_dir().join(format!("chaos-{seed}"));
    let logs = std::fs::read_dir(stack.folder().join("logs")).into_iter().flatten().flatten();
    let copied = std::fs::create_dir_all(&kept).is_ok()
        && logs.map(|log| std::fs::copy(log.path(), kept.join(log.file_name()))).filter(Result::is_ok).count() > 0;
    if copied {
        eprintln!("the services' logs are kept in {}", kept.display());
    }
}

/// Companies, each with readers of every kind from the first event on.
async fn found(fleet: &Fleet, shape: &Shape) -> Vec<Company> {
    let mut companies = Vec::new();
    for n in 0..shape.tenants {
        let tenant = fleet.stack.tenant(&format!("company-{n}")).await;
        let (receiver, takes) = (Receiver::start().await, fleet.endpoints_take.clone());
        receiver.answers(move |_| match takes.load(Ordering::Relaxed) {
            0 => Reply::Status(200),
            ms => Reply::Late(Duration::from_millis(ms), 200),
        });
        tenant.client.post("/api/webhooks", json!({"name": "all", "url": receiver.url("/all")})).await.ok();
        let mut followers: Vec<Follower> = Vec::new();
        for (api, url) in fleet.urls().iter().enumerate() {
            followers.push(Follower::by_stream(tenant.client.at(url), format!("the stream of {} at API {api}", tenant.id)));
        }
        let last = fleet.urls().last().cloned().unwrap_or_default();
        followers.push(Follower::by_poll(tenant.client.at(&last), format!("the long poll of {}", tenant.id)));
        companies.push(Company { tenant, followers, receiver });
    }
    companies
}

/// Sessions, each linked to a number of its own.
async fn link(fleet: &mut Fleet, companies: &[Company], shape: &Shape) -> Traffic {
    let peers: Vec<String> = (0..shape.peers).map(|n| format!("551188888{n:04}")).collect();
    for peer in &peers {
        fleet.stack.sim.account(peer).await;
    }
    let mut accounts = Vec::new();
    for n in 0..shape.sessions {
        let (tenant, phone) = (shape.tenant_of(n), format!("551199999{n:04}"));
        let client = &companies[tenant].tenant.client;
        let session = if n < shape.tenants {
            companies[tenant].tenant.session.clone()
        } else {
            let made = client.post("/api/sessions", json!({"name": format!("session-{n}")})).await.ok();
            made["id"].as_str().unwrap_or_default().to_owned()
        };
        fleet.stack.sim.account(&phone).await;
        accounts.push(Account { tenant, session, phone });
    }
    let linking = accounts.iter().map(|account| scan(fleet, &companies[account.tenant].tenant, account));
    futures::future::join_all(linking).await;
    let uuid = |account: &Account| account.session.parse::<SessionId>().map(|id| id.uuid().to_string()).unwrap_or_default();
    fleet.accounts = accounts.iter().map(|account| (account.phone.clone(), uuid(account))).collect();
    fleet.peers.clone_from(&peers);
    let urls = fleet.urls();
    let callers = companies.iter().map(|company| urls.iter().map(|url| company.tenant.client.at(url)).collect()).collect();
    let patience = Duration::from_secs(shape.seconds) + WHOLE_WITHIN;
    Traffic::new(callers, fleet.stack.sim.control().clone(), accounts, peers, patience)
}

/// Starts a session and scans its code, as its owner does.
async fn scan(fleet: &Fleet, tenant: &Tenant, account: &Account) {
    harness::until("a linked account", WHOLE_WITHIN, || async {
        person::help(&tenant.client, fleet.stack.sim.control(), account).await;
        (state(&tenant.client, &account.session).await == "working").then_some(())
    })
    .await;
}

/// Somebody for each account, to do what only a person can.
fn attend(traffic: &Traffic) -> JoinSet<()> {
    let people = traffic.accounts.iter().map(|account| {
        let client = traffic.callers[account.tenant][0].clone();
        person::attend(client, traffic.phones.clone(), account.clone())
    });
    people.collect()
}

async fn states(traffic: &Traffic, companies: &[Company]) -> Vec<Session> {
    let mut sessions = Vec::new();
    for account in &traffic.accounts {
        let state = state(&companies[account.tenant].tenant.client, &account.session).await;
        sessions.push(Session { id: account.session.clone(), tenant: account.tenant, state });
    }
    sessions
}

/// Waits while processes are tended, until all accounts work or the time is over, which the checker will see.
async fn until_whole(fleet: &mut Fleet, traffic: &Traffic, companies: &[Company]) {
    let end = Instant::now() + WHOLE_WITHIN;
    while Instant::now() < end && states(traffic, companies).await.iter().any(|session| session.state != "working") {
        fleet.tend().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A last text to and from each account, and the end of all jobs: what is whole goes on.
async fn probe(fleet: &mut Fleet, traffic: &Arc<Traffic>, companies: &[Company], shape: &Shape) {
    const FIRST: usize = 1_000_000;
    let end = Instant::now() + WHOLE_WITHIN;
    let acts = (0..shape.sessions).flat_map(|session| {
        let n = FIRST + 2 * session;
        [Act::Send { session, peer: 0, n, how: How::Keyed, api: 0 }, Act::Incoming { session, peer: 0, n: n + 1 }]
    });
    for act in acts {
        traffic.act(act).await;
    }
    while Instant::now() < end && !(all_ended(fleet) && all_heard(traffic, companies).await) {
        fleet.tend().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn all_ended(fleet: &Fleet) -> bool {
    let states = fleet.stack.postgres.sql("select distinct state from job");
    states.lines().all(is_final)
}

/// Whether the log has all that phones wrote: it is read with the rows of the page, which takes its time after a restart.
async fn all_heard(traffic: &Traffic, companies: &[Company]) -> bool {
    let mut told = Vec::new();
    for company in companies {
        told.extend(company.tenant.client.events(0).await);
    }
    let told: std::collections::HashSet<&str> = told.iter().filter_map(|event| event["data"]["message"]["waId"].as_str()).collect();
    let gap = |n: usize| companies[n].followers[0].reader().events.iter().any(|event: &Value| event["type"] == "session.gap");
    traffic.seen().incoming.iter().all(|text| told.contains(text.wa_id.as_str()) || gap(traffic.accounts[text.session].tenant))
}

/// Waits until all readers have what the logs have, or the time is over.
async fn settle(stack: &Stack, companies: &[Company], trimmed: &Trimmed) {
    let end = Instant::now() + Duration::from_secs(30);
    for company in companies {
        let head = company.tenant.client.events(0).await.last().and_then(|event| event["seq"].as_i64()).unwrap_or_default();
        let behind = || async {
            let stream = gather::log(stack, company, trimmed).await;
            stream.readers.iter().any(|reader| reader.events.iter().filter_map(|event| event["seq"].as_i64()).max() < Some(head))
        };
        while Instant::now() < end && behind().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn tell(plan: &Plan, history: &History, fleet: &Fleet, asked: usize, took: Duration) -> String {
    let of = |state: &str| history.jobs.iter().filter(|job| job.state == state).count();
    let events = || history.logs.iter().flat_map(|log| &log.events);
    let gaps = events().filter(|event| event["type"] == "session.gap").count();
    let mut text = format!(
        "seed {}: {} texts in {asked} requests, {} accepted; jobs {} (succeeded {}, failed {}, cancelled {}, expired {}, unknown {} of {} possible); \
         {} came in, {} events, {gaps} gaps; {} takeovers, {} processes revived, whole again in {:.1} s; Redis {} its data\n",
        plan.seed,
        history.sends.len(),
        history.sends.iter().filter(|send| send.accepted.is_some()).count(),
        history.jobs.len(),
        of("succeeded"),
        of("failed"),
        of("cancelled"),
        of("expired"),
        of("unknown"),
        history.unknown_allowed,
        history.incoming.len(),
        events().count(),
        witness::takeovers(&fleet.stack).saturating_sub(history.sessions.len()),
        fleet.revived,
        took.as_secs_f64(),
        if plan.durable_redis { "keeps" } else { "loses" },
    );
    for (at, fault) in &fleet.broken {
        let _ = writeln!(text, "  {:6.1} s  {fault:?}", *at as f64 / 1_000.0);
    }
    text
}
