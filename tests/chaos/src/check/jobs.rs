//! What was accepted has one job, one end, and one announcement of it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Violation, is_final};
use crate::history::{History, Job};

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let by_id: HashMap<&str, &Job> = history.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    for send in &history.sends {
        let named: HashSet<&String> = send.jobs.iter().collect();
        if named.len() > 1 {
            found.push(Violation::JobTwice(send.text.clone()));
        }
        if named.iter().any(|id| !by_id.contains_key(id.as_str())) {
            found.push(Violation::JobLost(send.text.clone()));
        }
    }
    let mut texts = HashMap::new();
    for text in history.jobs.iter().filter_map(|job| job.text.as_deref()) {
        *texts.entry(text).or_insert(0) += 1;
    }
    found.extend(texts.into_iter().filter(|(_, jobs)| *jobs > 1).map(|(text, _)| Violation::JobTwice(text.to_owned())));
    ends(history, found);
}

fn ends(history: &History, found: &mut Vec<Violation>) {
    let mut told: HashMap<&str, Vec<&str>> = HashMap::new();
    let events = history.logs.iter().flat_map(|log| &log.events);
    for job in events.filter(|e| e["type"] == "job.updated").map(|e| &e["data"]["job"]) {
        told.entry(text(&job["id"])).or_default().push(text(&job["state"]));
    }
    for job in &history.jobs {
        if !is_final(&job.state) {
            found.push(Violation::JobUnfinished(job.id.clone(), job.state.clone()));
            continue;
        }
        if job.state != "succeeded" && job.code.is_none() {
            found.push(Violation::EndUntyped(job.id.clone(), job.state.clone()));
        }
        let told = told.remove(job.id.as_str()).unwrap_or_default();
        let once = told == [job.state.as_str()] || job.state == "succeeded" && told == ["unknown", "succeeded"];
        if !once {
            found.push(Violation::EndMistold(job.id.clone(), told.into_iter().map(str::to_owned).collect()));
        }
    }
    let unknown = history.jobs.iter().filter(|job| job.state == "unknown").count();
    if unknown > history.unknown_allowed {
        found.push(Violation::TooManyUnknown(unknown, history.unknown_allowed));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
