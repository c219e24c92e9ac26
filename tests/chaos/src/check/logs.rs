//! What happened is in the log once, without a hole, and the same for everybody who is told of it.

use std::collections::HashMap;

use chrono::DateTime;
use serde_json::Value;

use super::Violation;
use crate::history::{History, Log, Reader};

/// WhatsApp's times are whole seconds, ours are not.
const BLURRED: i64 = 2;

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    for (tenant, log) in history.logs.iter().enumerate() {
        whole(log, found);
        apart(history, tenant, log, found);
        announced(history, tenant, log, found);
        for reader in &log.readers {
            told(log, reader, found);
        }
    }
}

fn seq(event: &Value) -> i64 {
    event["seq"].as_i64().unwrap_or_default()
}

fn whole(log: &Log, found: &mut Vec<Violation>) {
    follows(&format!("the log of {}", log.tenant), log.events.iter().map(seq), false, found);
}

/// One after the other from 1 on.
fn follows(who: &str, seqs: impl Iterator<Item = i64>, again: bool, found: &mut Vec<Violation>) -> i64 {
    let mut last = 0;
    for seq in seqs {
        match seq - last {
            1 => {}
            2.. => found.push(Violation::Hole(who.to_owned(), seq)),
            _ if again => continue,
            _ => found.push(Violation::Repeated(who.to_owned(), seq)),
        }
        last = last.max(seq);
    }
    last
}

fn told(log: &Log, reader: &Reader, found: &mut Vec<Violation>) {
    let head = log.events.last().map(seq).unwrap_or_default();
    let at = follows(&reader.name, reader.events.iter().map(seq), reader.at_least_once, found);
    if at < head {
        found.push(Violation::Behind(reader.name.clone(), at, head));
    }
    let known: HashMap<i64, &Value> = log.events.iter().map(|event| (seq(event), event)).collect();
    let other = reader.events.iter().filter(|event| known.get(&seq(event)) != Some(event));
    found.extend(other.map(|event| Violation::Differs(reader.name.clone(), seq(event))));
}

/// Whose an event is: by its envelope, by its session, and by what is written in it, which names the account it belongs to.
fn apart(history: &History, tenant: usize, log: &Log, found: &mut Vec<Violation>) {
    let texts: HashMap<&str, usize> = history
        .sends
        .iter()
        .map(|send| (send.text.as_str(), send.session))
        .chain(history.incoming.iter().map(|text| (text.text.as_str(), text.session)))
        .collect();
    for event in &log.events {
        let session = history.sessions.iter().position(|s| event["session"] == s.id.as_str());
        let text = event["data"]["message"]["text"].as_str().and_then(|text| texts.get(text).copied());
        let foreign = session.is_some_and(|s| history.sessions[s].tenant != tenant) || text.is_some() && text != session;
        if foreign || event["tenant"] != log.tenant.as_str() {
            found.push(Violation::Foreign(log.tenant.clone(), seq(event)));
        }
    }
}

/// Each message that came in, and each that was sent, is one event; one that came in while a gap was announced may be none.
fn announced(history: &History, tenant: usize, log: &Log, found: &mut Vec<Violation>) {
    let ours = |session: usize| history.sessions[session].tenant == tenant;
    let mut by_id: HashMap<(&str, &str), usize> = HashMap::new();
    let mut by_text: HashMap<&str, usize> = HashMap::new();
    for event in log.events.iter().filter(|event| event["type"] == "message") {
        let message = &event["data"]["message"];
        match message["fromMe"].as_bool() {
            Some(true) => *by_text.entry(message["text"].as_str().unwrap_or_default()).or_default() += 1,
            _ => {
                let of = (event["session"].as_str().unwrap_or_default(), message["waId"].as_str().unwrap_or_default());
                *by_id.entry(of).or_default() += 1;
            }
        }
    }
    let mut judge = |text: &str, times: usize, must: bool| match times {
        0 if must => found.push(Violation::NotAnnounced(text.to_owned())),
        0 | 1 => {}
        _ => found.push(Violation::AnnouncedTwice(text.to_owned())),
    };
    for text in history.incoming.iter().filter(|text| ours(text.session)) {
        let session = history.sessions[text.session].id.as_str();
        let times = by_id.get(&(session, text.wa_id.as_str())).copied().unwrap_or_default();
        judge(&text.text, times, !in_a_gap(log, session, text.at));
    }
    for job in history.jobs.iter().filter(|job| ours(job.session)) {
        let Some(text) = &job.text else { continue };
        judge(text, by_text.get(text.as_str()).copied().unwrap_or_default(), job.state == "succeeded");
    }
}

fn in_a_gap(log: &Log, session: &str, at: i64) -> bool {
    let seconds = |time: &Value| DateTime::parse_from_rfc3339(time.as_str().unwrap_or_default()).map(|t| t.timestamp());
    let gaps = log.events.iter().filter(|event| event["type"] == "session.gap" && event["session"] == session);
    gaps.map(|event| &event["data"]["gap"]).any(|gap| {
        let (from, to) = (seconds(&gap["from"]), seconds(&gap["to"]));
        from.is_ok_and(|from| from - BLURRED <= at) && to.is_ok_and(|to| at <= to + BLURRED)
    })
}
