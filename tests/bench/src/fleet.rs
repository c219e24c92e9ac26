//! Hosts with real browsers: from the death or the leave of one until its sessions work on another, and until what was accepted meanwhile is
//! on the phones.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use harness::{Error, Stack, Tenant, process::Signal, services::Host, until};
use sqlx::PgPool;

use crate::report::{Latencies, Report};

const PEER: &str = "5511888880002";
const PHONES: [&str; 4] = ["5511999990010", "5511999990011", "5511999990012", "5511999990013"];
/// Hosts that end in each way, with one session and with all.
const ALONE: usize = 3;
const TOGETHER: usize = 2;
const WITHIN: Duration = Duration::from_secs(120);

/// How a host ends.
#[derive(Clone, Copy)]
enum End {
    /// `kill -9` of the host; its guard lives.
    Host,
    /// Of both: what a machine's death leaves.
    Both,
    /// SIGTERM.
    Leave,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "kill -9 of the host, its guard lives",
            Self::Both => "kill -9 of host and guard",
            Self::Leave => "SIGTERM",
        }
    }
}

/// What was measured of each session.
#[derive(Default)]
struct Measured {
    /// From the signal to `working`, and to the text on the phone.
    working: Vec<Duration>,
    told: Vec<Duration>,
    /// From the last moment at which the old host owned it, to an owner and to `working`.
    owned_gap: Vec<Duration>,
    working_gap: Vec<Duration>,
}

/// Measures all.
///
/// # Errors
/// What the stack said.
pub async fn measure(stack: &mut Stack, report: &mut Report) -> Result<(), Error> {
    let db = stack.db().await;
    // Redis has been there for long: a young one may have forgotten leases, and then takeovers wait.
    stack.redis.command(&["SET", "zg:birth", "1"]).await;
    let mut host = stack.try_host(PHONES.len()).await?;
    stack.sim.account(PEER).await;
    let mut tenants = Vec::new();
    for (sessions, rounds) in [(1, ALONE), (PHONES.len(), TOGETHER)] {
        while tenants.len() < sessions {
            let tenant = stack.tenant(&format!("fleet{}", tenants.len())).await;
            tenant.link(&stack.sim, PHONES[tenants.len()]).await;
            tenants.push(tenant);
        }
        for end in [End::Host, End::Both, End::Leave] {
            let mut measured = Measured::default();
            for round in 0..rounds {
                let mut old = std::mem::replace(&mut host, stack.try_host(PHONES.len()).await?);
                one(stack, &db, &tenants, (&mut old, end), round, &mut measured).await?;
            }
            tell(report, end, sessions, measured);
        }
    }
    let duplicates = stack.sim.stats().await["duplicates"].as_f64().unwrap_or(f64::NAN);
    report.note("messages that reached a recipient twice in all of that", "messages", duplicates);
    Ok(())
}

fn tell(report: &mut Report, end: End, sessions: usize, measured: Measured) {
    let browsers = if sessions == 1 { "1 browser".to_owned() } else { format!("{sessions} browsers") };
    let mut line = |what: &str, all: Vec<Duration>| {
        let all = Latencies::from(all);
        for (name, share) in [("median", 0.5), ("slowest", 1.0)] {
            report.note(&format!("{}, {browsers}: {what}, {name}", end.name()), "ms", all.ms(share));
        }
    };
    line("to `working` on the other host", measured.working);
    line("to a text accepted meanwhile being on the phone", measured.told);
    line("from the last sight of the old owner to the next owner", measured.owned_gap);
    line("from the last sight of the old owner to `working`", measured.working_gap);
}

/// One host ends, and the other goes on.
async fn one(
    stack: &Stack,
    db: &PgPool,
    tenants: &[Tenant],
    (old, end): (&mut Host, End),
    round: usize,
    measured: &mut Measured,
) -> Result<(), Error> {
    let owners = owners(db).await?;
    let (began, at): (_, DateTime<Utc>) = (Instant::now(), sqlx::query_scalar("select clock_timestamp()").fetch_one(db).await?);
    match end {
        End::Host => old.kill_proper(),
        End::Both => {
            let proper = old.proper();
            old.process.signal(Signal::KILL);
            harness::process::send(proper, Signal::KILL);
        }
        End::Leave => old.process.signal(Signal::TERM),
    }
    let text = format!("{} {} {round}", end.name(), tenants.len());
    let told = async {
        for tenant in tenants {
            tenant.client.accepted(PEER, &text).await;
        }
        let on_the_phone = PHONES[..tenants.len()].iter().map(|phone| async {
            until("the text on the phone", WITHIN, || async { stack.sim.texts(PEER, phone).await.contains(&text).then_some(()) }).await;
            Instant::now()
        });
        futures::future::join_all(on_the_phone).await
    };
    let (heard, seen) = tokio::join!(told, watch(db, &owners, at));
    let seen = seen?;
    measured.told.extend(heard.into_iter().map(|at| at - began));
    let span = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).to_std().unwrap_or_default();
    for Seen { last, next, working } in seen.into_values() {
        measured.working.push(span(at, working));
        measured.owned_gap.push(span(last, next));
        measured.working_gap.push(span(last, working));
    }
    old.process.wait(WITHIN).await.ok_or("the host does not end")?;
    Ok(())
}

type Owners = HashMap<uuid::Uuid, uuid::Uuid>;

/// Who owns the sessions that work.
async fn owners(db: &PgPool) -> Result<Owners, Error> {
    let rows: Vec<(uuid::Uuid, uuid::Uuid)> =
        sqlx::query_as("select id, owner from session where state = 'working' and owner is not null").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// By the clock of Postgres.
struct Seen {
    /// The old owner was last seen.
    last: DateTime<Utc>,
    /// The next one was first seen.
    next: DateTime<Utc>,
    /// It said `working`.
    working: DateTime<Utc>,
}

/// Looks at the rows as fast as Postgres answers one caller, every two milliseconds.
async fn watch(db: &PgPool, owners: &Owners, since: DateTime<Utc>) -> Result<HashMap<uuid::Uuid, Seen>, Error> {
    let look = "select s.id, s.owner, clock_timestamp(),
                       (select max(e.at) from event e where e.session = s.id and e.tenant = s.tenant and e.at > $1
                           and e.type = 'session.status' and e.data -> 'session' ->> 'state' = 'working')
                  from session s where s.state = 'working' or s.owner is not null or s.wanted = 'running'";
    let (mut last, mut next, mut seen) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut every = tokio::time::interval(Duration::from_millis(2));
    let end = Instant::now() + WITHIN;
    while seen.len() < owners.len() {
        if Instant::now() > end {
            return Err("the sessions do not work again".into());
        }
        every.tick().await;
        type Row = (uuid::Uuid, Option<uuid::Uuid>, DateTime<Utc>, Option<DateTime<Utc>>);
        for (session, owner, now, working) in sqlx::query_as::<_, Row>(look).bind(since).fetch_all(db).await? {
            match (owner, owners.get(&session)) {
                (Some(owner), Some(old)) if owner == *old => drop(last.insert(session, now)),
                (Some(_), Some(_)) => {
                    let next = *next.entry(session).or_insert(now);
                    if let Some(working) = working.filter(|at| *at >= last.get(&session).copied().unwrap_or(since)) {
                        seen.insert(session, Seen { last: last.get(&session).copied().unwrap_or(since), next, working });
                    }
                }
                _ => {}
            }
        }
    }
    Ok(seen)
}
