//! A history that is as it should be, and every way in which it is not.

use serde_json::{Value, json};

use super::*;
use crate::history::{Incoming, Job, Log, Phone, Reader, Send, Session};

fn event(tenant: usize, seq: i64, kind: &str, data: Value) -> Value {
    json!({"id": format!("evt_{tenant}_{seq}"), "seq": seq, "type": kind, "tenant": format!("ten_{tenant}"),
        "session": format!("ses_{tenant}"), "chat": null, "data": data})
}

fn message(text: &str, from_me: bool) -> Value {
    json!({"message": {"text": text, "waId": format!("wa of {text}"), "fromMe": from_me}})
}

fn ended(job: &str, state: &str) -> Value {
    json!({"job": {"id": job, "state": state}})
}

fn send(text: &str, job: &str, at: u64) -> Send {
    Send { text: text.into(), asked: at, accepted: Some(at + 1), jobs: vec![job.into()], ..Send::default() }
}

fn job(id: &str, position: i64, text: &str, state: &str) -> Job {
    Job { id: id.into(), position, text: Some(text.into()), state: state.into(), ..Job::default() }
}

/// One account of each of two tenants. The first sent `one` and `two`, one job failed, and a phone wrote `in`.
fn whole() -> History {
    let events = vec![
        event(0, 1, "session.status", json!({})),
        event(0, 2, "job.updated", ended("job_1", "succeeded")),
        event(0, 3, "message", message("one", true)),
        event(0, 4, "message", message("in", false)),
        event(0, 5, "job.updated", ended("job_2", "unknown")),
        event(0, 6, "job.updated", ended("job_2", "succeeded")),
        event(0, 7, "message", message("two", true)),
        event(0, 8, "job.updated", ended("job_3", "failed")),
        event(0, 9, "job.updated", ended("job_4", "succeeded")),
        event(0, 10, "message", message("four", true)),
    ];
    let reader = Reader { name: "a stream".into(), events: events.clone(), at_least_once: false };
    let mut again = Reader { name: "a webhook".into(), events: events.clone(), at_least_once: true };
    again.events.insert(5, events[3].clone());
    let mut jobs = vec![
        job("job_1", 1, "one", "succeeded"),
        job("job_2", 2, "two", "succeeded"),
        job("job_3", 3, "three", "failed"),
        job("job_4", 4, "four", "succeeded"),
    ];
    jobs[1].was_unknown = true;
    jobs[2].code = Some("page_error".into());
    History {
        sessions: (0..2).map(|tenant| Session { id: format!("ses_{tenant}"), tenant, state: "working".into() }).collect(),
        sends: vec![
            send("one", "job_1", 10),
            send("two", "job_2", 20),
            send("three", "job_3", 30),
            send("four", "job_4", 40),
            Send { text: "nobody answered".into(), asked: 50, ..Send::default() },
        ],
        incoming: vec![Incoming { text: "in".into(), wa_id: "wa of in".into(), at: 1_000, ..Incoming::default() }],
        jobs,
        phones: vec![Phone { shown: vec![("one".into(), 0), ("four".into(), 0), ("two".into(), 0)], ..Phone::default() }],
        logs: vec![
            Log { tenant: "ten_0".into(), events, readers: vec![reader, again] },
            Log { tenant: "ten_1".into(), events: vec![event(1, 1, "session.status", json!({}))], readers: Vec::new() },
        ],
        ..History::default()
    }
}

/// What is found after a change to a history that is as it should be.
fn after(change: impl FnOnce(&mut History)) -> Vec<Violation> {
    let mut history = whole();
    change(&mut history);
    check(&history)
}

fn only(found: Vec<Violation>, expected: Violation) {
    assert_eq!(found, [expected]);
}

/// What readers saw would differ from a log that is changed alone.
fn unread(history: &mut History) -> &mut Vec<Value> {
    history.logs[0].readers.clear();
    &mut history.logs[0].events
}

#[test]
fn a_history_that_is_as_it_should_be_has_no_violation() {
    assert_eq!(check(&whole()), []);
}

#[test]
fn a_job_that_is_lost_unfinished_or_there_twice_is_found() {
    only(after(|h| h.sends[0].jobs[0] = "job_9".into()), Violation::JobLost("one".into()));
    only(after(|h| h.sends[0].jobs.push("job_2".into())), Violation::JobTwice("one".into()));
    let found = after(|h| h.jobs[0].state = "running".into());
    assert_eq!(found, [Violation::JobUnfinished("job_1".into(), "running".into())]);
    let found = after(|h| h.jobs.push(Job { position: 5, ..h.jobs[0].clone() }));
    assert!(found.contains(&Violation::JobTwice("one".into())));
}

#[test]
fn an_end_without_a_reason_or_told_wrongly_is_found_and_unknown_ones_are_counted() {
    only(after(|h| h.jobs[2].code = None), Violation::EndUntyped("job_3".into(), "failed".into()));
    let found = after(|h| unread(h)[7]["data"] = ended("job_3", "succeeded"));
    assert_eq!(found, [Violation::EndMistold("job_3".into(), vec!["succeeded".into()])]);
    let found = after(|h| unread(h)[8]["data"] = ended("job_1", "succeeded"));
    let twice = Violation::EndMistold("job_1".into(), vec!["succeeded".into(), "succeeded".into()]);
    assert_eq!(found, [twice, Violation::EndMistold("job_4".into(), Vec::new())]);
    let unknown = |allowed: usize| {
        after(|h| {
            (h.jobs[2].state, h.unknown_allowed) = ("unknown".into(), allowed);
            unread(h)[7]["data"] = ended("job_3", "unknown");
        })
    };
    only(unknown(0), Violation::TooManyUnknown(1, 0));
    assert_eq!(unknown(1), []);
}

#[test]
fn what_a_phone_shows_twice_too_little_too_much_or_from_the_wrong_account_is_found() {
    only(after(|h| h.phones[0].shown.push(("two".into(), 0))), Violation::ShownTwice("two".into()));
    only(after(|h| h.phones[0].shown[0].1 = 1), Violation::SentTwice("one".into()));
    only(after(|h| drop(h.phones[0].shown.remove(0))), Violation::NotShown("one".into()));
    only(after(|h| h.phones[0].shown.push(("three".into(), 0))), Violation::ShownThough("three".into(), "failed".into()));
    let found = after(|h| h.phones[0].shown.push(("nobody answered".into(), 0)));
    only(found, Violation::ShownThough("nobody answered".into(), "not accepted".into()));
    let found = after(|h| {
        h.phones[0].shown.push(("nobody answered".into(), 0));
        h.sends[4].refused = Some("503 session_not_working".into());
    });
    only(found, Violation::ShownThough("nobody answered".into(), "503 session_not_working".into()));
    only(after(|h| h.phones[0].shown.push(("from nobody".into(), 0))), Violation::ShownToWrong("from nobody".into()));
    let found = after(|h| h.phones.push(Phone { session: 1, shown: vec![("three".into(), 0)], ..Phone::default() }));
    assert!(found.contains(&Violation::ShownToWrong("three".into())));
}

#[test]
fn what_a_phone_shows_in_another_order_is_found_unless_it_was_unknown() {
    let swapped = |h: &mut History| h.phones[0].shown.swap(0, 1);
    only(after(swapped), Violation::OutOfOrder("one".into(), "four".into()));
    // Positions that agree do not help where a caller had the first answer before it asked for the second.
    let found = after(|h| {
        swapped(h);
        h.jobs[0].position = 9;
    });
    only(found, Violation::OutOfOrder("one".into(), "four".into()));
    let found = after(|h| {
        swapped(h);
        h.jobs[0].was_unknown = true;
    });
    assert_eq!(found, []);
}

#[test]
fn what_came_in_and_is_no_event_or_several_is_found_unless_a_gap_tells_of_it() {
    let silent = |h: &mut History| unread(h)[3]["data"] = message("from before", false);
    only(after(silent), Violation::NotAnnounced("in".into()));
    let gap = |from: &str| {
        after(|h| {
            silent(h);
            unread(h)[0] = event(0, 1, "session.gap", json!({"gap": {"from": from, "to": "1970-01-01T00:20:00.000Z"}}));
        })
    };
    assert_eq!(gap("1970-01-01T00:16:00.000Z"), []);
    only(gap("1970-01-01T00:17:00.000Z"), Violation::NotAnnounced("in".into()));
    let twice = |h: &mut History| unread(h).push(event(0, 11, "message", message("in", false)));
    only(after(twice), Violation::AnnouncedTwice("in".into()));
    only(after(|h| unread(h)[2]["data"] = message("other", true)), Violation::NotAnnounced("one".into()));
}

#[test]
fn a_hole_a_repeat_another_body_and_a_reader_left_behind_are_found() {
    let log = || "the log of ten_0".to_owned();
    let found = after(|h| drop(unread(h).remove(0)));
    only(found, Violation::Hole(log(), 2));
    let found = after(|h| {
        let first = unread(h)[0].clone();
        unread(h).insert(1, first);
    });
    only(found, Violation::Repeated(log(), 1));
    for (reader, who) in ["a stream", "a webhook"].into_iter().enumerate() {
        let found = after(|h| drop(h.logs[0].readers[reader].events.remove(1)));
        only(found, Violation::Hole(who.into(), 3));
        let found = after(|h| h.logs[0].readers[reader].events[0]["data"] = json!({"other": true}));
        only(found, Violation::Differs(who.into(), 1));
        let found = after(|h| drop(h.logs[0].readers[reader].events.pop()));
        only(found, Violation::Behind(who.into(), 9, 10));
    }
    let again = |reader: usize| {
        after(move |h| {
            let second = h.logs[0].events[1].clone();
            h.logs[0].readers[reader].events.push(second);
        })
    };
    only(again(0), Violation::Repeated("a stream".into(), 2));
    assert_eq!(again(1), [], "what is told at least once may come again");
}

#[test]
fn what_is_another_tenants_is_found_by_tenant_session_and_text() {
    only(after(|h| unread(h)[0]["tenant"] = "ten_1".into()), Violation::Foreign("ten_0".into(), 1));
    only(after(|h| unread(h)[0]["session"] = "ses_1".into()), Violation::Foreign("ten_0".into(), 1));
    let found = after(|h| h.logs[1].events.push(event(1, 2, "message", message("in", false))));
    only(found, Violation::Foreign("ten_1".into(), 2));
}

#[test]
fn a_stale_write_a_session_that_does_not_work_and_what_is_left_behind_are_found() {
    only(after(|h| h.stale.push("host-1".into())), Violation::Stale("host-1".into()));
    only(after(|h| h.left.push("chromium".into())), Violation::LeftBehind("chromium".into()));
    only(after(|h| h.sessions[1].state = "failed".into()), Violation::NotWorking("ses_1".into(), "failed".into()));
}
