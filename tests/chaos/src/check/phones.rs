//! What was accepted is on the phone once and in order, or is known not to be.

use std::collections::{HashMap, HashSet};

use super::Violation;
use crate::history::{History, Job, Phone, Send};

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    let jobs: HashMap<&str, &Job> = history.jobs.iter().filter_map(|job| Some((job.text.as_deref()?, job))).collect();
    let mut shown = HashSet::new();
    for phone in &history.phones {
        let meant: HashMap<&str, &Send> = history
            .sends
            .iter()
            .filter(|send| (send.session, send.peer) == (phone.session, phone.peer))
            .map(|send| (send.text.as_str(), send))
            .collect();
        for (text, again) in &phone.shown {
            if !shown.insert(text.as_str()) {
                found.push(Violation::ShownTwice(text.clone()));
            }
            if *again > 0 {
                found.push(Violation::SentTwice(text.clone()));
            }
            if !meant.contains_key(text.as_str()) {
                found.push(Violation::ShownToWrong(text.clone()));
            }
        }
        in_order(phone, &meant, &jobs, found);
    }
    for send in &history.sends {
        // Not accepted, as far as anybody knows: nothing may have come of it.
        let end = match jobs.get(send.text.as_str()) {
            Some(job) => job.state.as_str(),
            None => send.refused.as_deref().unwrap_or("not accepted"),
        };
        match (end, shown.contains(send.text.as_str())) {
            ("succeeded", false) => found.push(Violation::NotShown(send.text.clone())),
            ("succeeded" | "unknown" | "queued" | "running", _) | (_, false) => {}
            (end, true) => found.push(Violation::ShownThough(send.text.clone(), end.to_owned())),
        }
    }
}

/// By position, and by what callers could know: who asked after the other was accepted comes after it. A job that is `unknown`, or was, may
/// have waited in a page while the lane went on.
fn in_order(phone: &Phone, meant: &HashMap<&str, &Send>, jobs: &HashMap<&str, &Job>, found: &mut Vec<Violation>) {
    let settled = |text: &str| jobs.get(text).is_some_and(|job| job.state == "succeeded" && !job.was_unknown);
    let shown: Vec<&str> = phone.shown.iter().map(|(text, _)| text.as_str()).filter(|text| settled(text)).collect();
    for (place, second) in shown.iter().enumerate() {
        for first in &shown[place + 1..] {
            let by_position = jobs[first].position < jobs[second].position;
            let known = |(first, second): (&&Send, &&Send)| first.accepted.is_some_and(|accepted| accepted < second.asked);
            if by_position || meant.get(first).zip(meant.get(second)).is_some_and(known) {
                found.push(Violation::OutOfOrder((*first).to_owned(), (*second).to_owned()));
            }
        }
    }
}
