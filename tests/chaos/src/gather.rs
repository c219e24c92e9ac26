//! Asks every side what it saw.

use std::collections::{HashMap, HashSet};

use contract::{JobId, SessionId};
use harness::{Stack, Tenant, receiver::Receiver, redis::Entry};
use serde_json::Value;

use crate::{
    follow::Follower,
    history::{Job, Log, Phone, Reader},
    traffic::{Account, Traffic},
};

/// What was trimmed from streams, by key.
pub type Trimmed = HashMap<String, Vec<Entry>>;

/// A tenant, and who follows its log.
pub struct Company {
    /// The tenant with its ADMIN.
    pub tenant: Tenant,
    /// Its readers.
    pub followers: Vec<Follower>,
    /// The endpoint of its webhook.
    pub receiver: Receiver,
}

/// The rows of all jobs.
pub fn jobs(stack: &Stack, accounts: &[Account], logs: &[Log]) -> Vec<Job> {
    let rows = stack.postgres.sql(
        "select coalesce(json_agg(json_build_object('id', id, 'session', session, 'position', position, 'state', state,
                'code', error ->> 'code', 'text', command #>> '{args,text}') order by session, position), '[]') from job",
    );
    let rows: Vec<Value> = serde_json::from_str(&rows).expect("Postgres writes JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    rows.iter()
        .map(|row| {
            let uuid = |name: &str| row[name].as_str().unwrap_or_default().parse().expect("a row's id is a UUID");
            let (id, session) = (JobId::from_uuid(uuid("id")).to_string(), SessionId::from_uuid(uuid("session")).to_string());
            let told = |event: &&Value| event["type"] == "job.updated" && event["data"]["job"]["id"] == id.as_str();
            Job {
                session: accounts.iter().position(|account| account.session == session).unwrap_or(usize::MAX),
                position: row["position"].as_i64().unwrap_or_default(),
                text: text(&row["text"]),
                state: text(&row["state"]).unwrap_or_default(),
                was_unknown: logs.iter().flat_map(|log| &log.events).filter(told).any(|event| event["data"]["job"]["state"] == "unknown"),
                code: text(&row["code"]),
                id,
            }
        })
        .collect()
}

/// What customers' phones show of the accounts.
pub async fn phones(traffic: &Traffic) -> Vec<Phone> {
    let mut phones = Vec::new();
    for (session, account) in traffic.accounts.iter().enumerate() {
        for (peer, number) in traffic.peers.iter().enumerate() {
            let messages = traffic.phones.messages(number, &account.phone).await;
            let theirs = messages.iter().filter(|message| message["from"].as_str().is_some_and(|from| from.starts_with(&account.phone)));
            let shown = theirs.map(|message| {
                (message["body"].as_str().unwrap_or_default().to_owned(), message["duplicates"].as_u64().unwrap_or_default())
            });
            phones.push(Phone { session, peer, shown: shown.collect() });
        }
    }
    phones
}

/// A tenant's log, and what everybody made of it.
pub async fn log(stack: &Stack, company: &Company, trimmed: &Trimmed) -> Log {
    let events = company.tenant.client.events(0).await;
    let mut readers: Vec<Reader> = company.followers.iter().map(Follower::reader).collect();
    readers.push(redis(stack, &company.tenant.id, trimmed).await);
    readers.push(Reader {
        name: format!("the webhook of {}", company.tenant.id),
        events: company.receiver.got().into_iter().map(|got| got.body).filter(|event| event["seq"].is_i64()).collect(),
        at_least_once: true,
    });
    Log { tenant: company.tenant.id.clone(), events, readers }
}

/// The tenant's stream with what was trimmed from it, whose ids must be what the entries say.
async fn redis(stack: &Stack, tenant: &str, trimmed: &Trimmed) -> Reader {
    let mut events = Vec::new();
    for key in stack.redis.keys(&format!("zg:*:ev:{tenant}")).await {
        let now = stack.redis.stream(&key).await;
        // A stream that was lost since is written anew, with what had been trimmed.
        let is_there: HashSet<&str> = now.iter().map(|(id, _)| id.as_str()).collect();
        let mut before = trimmed.get(&key).cloned().unwrap_or_default();
        before.retain(|(id, _)| !is_there.contains(id.as_str()));
        for (id, fields) in before.into_iter().chain(now.clone()) {
            let body = fields.iter().find(|(name, _)| name == "e").map(|(_, body)| body.as_str()).unwrap_or_default();
            let event: Value = serde_json::from_str(body).unwrap_or_default();
            let is_own = id == format!("{}-0", event["seq"]);
            events.push(if is_own { event } else { serde_json::json!({"seq": 0, "entry": id}) });
        }
    }
    Reader { name: format!("the Redis stream of {tenant}"), events, at_least_once: false }
}
