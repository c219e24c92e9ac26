//! What a history must not show. Pure: a history in, violations out.

mod jobs;
mod logs;
mod phones;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::History;

/// Something that must not be. The texts and ids in it lead to the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// What was accepted has no row.
    JobLost(String),
    /// What was accepted has not ended.
    JobUnfinished(String, String),
    /// One key, or one text, led to several jobs.
    JobTwice(String),
    /// It ended otherwise than well and does not say why.
    EndUntyped(String, String),
    /// Its end was announced more or less often than once, or another end than the row's.
    EndMistold(String, Vec<String>),
    /// More of them than what was broken explains.
    TooManyUnknown(usize, usize),
    /// A phone shows a text twice.
    ShownTwice(String),
    /// WhatsApp was given one message twice.
    SentTwice(String),
    /// It is said to have been sent, and the phone does not have it.
    NotShown(String),
    /// It is said not to have been sent, and the phone has it.
    ShownThough(String, String),
    /// The phone shows what nobody sent to it from there.
    ShownToWrong(String),
    /// The phone shows the second before the first.
    OutOfOrder(String, String),
    /// An account received it and no event says so.
    NotAnnounced(String),
    /// Events announce it several times.
    AnnouncedTwice(String),
    /// The log or somebody who reads it has a hole before this `seq`.
    Hole(String, i64),
    /// Somebody was told a `seq` again, or an earlier one after it.
    Repeated(String, i64),
    /// Somebody was told another event than the log has there.
    Differs(String, i64),
    /// Somebody was told less than the log has: up to where, of how much.
    Behind(String, i64, i64),
    /// A log has what is another tenant's.
    Foreign(String, i64),
    /// Somebody wrote who was not the owner.
    Stale(String),
    /// An account does not work, although all is whole again.
    NotWorking(String, String),
    /// It runs, and nobody knows it any more.
    LeftBehind(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobLost(text) => write!(f, "accepted and lost: {text}"),
            Self::JobUnfinished(job, state) => write!(f, "{job} is still {state}"),
            Self::JobTwice(text) => write!(f, "several jobs for one request: {text}"),
            Self::EndUntyped(job, state) => write!(f, "{job} is {state} and does not say why"),
            Self::EndMistold(job, told) => write!(f, "the end of {job} was told as {told:?}"),
            Self::TooManyUnknown(are, allowed) => write!(f, "{are} jobs are unknown, {allowed} could be"),
            Self::ShownTwice(text) => write!(f, "the phone shows it twice: {text}"),
            Self::SentTwice(text) => write!(f, "handed to WhatsApp twice: {text}"),
            Self::NotShown(text) => write!(f, "succeeded, and not on the phone: {text}"),
            Self::ShownThough(text, end) => write!(f, "{end}, and on the phone: {text}"),
            Self::ShownToWrong(text) => write!(f, "on a phone or from an account that it was not meant for: {text}"),
            Self::OutOfOrder(first, second) => write!(f, "on the phone {second} comes before {first}"),
            Self::NotAnnounced(text) => write!(f, "no event announces {text}"),
            Self::AnnouncedTwice(text) => write!(f, "several events announce {text}"),
            Self::Hole(who, seq) => write!(f, "{who} has a hole before seq {seq}"),
            Self::Repeated(who, seq) => write!(f, "{who} has seq {seq} again or too late"),
            Self::Differs(who, seq) => write!(f, "{who} has another event at seq {seq} than the log"),
            Self::Behind(who, at, of) => write!(f, "{who} was told {at} of {of}"),
            Self::Foreign(tenant, seq) => write!(f, "the log of {tenant} has another tenant's event at seq {seq}"),
            Self::Stale(what) => write!(f, "written by somebody who was not the owner: {what}"),
            Self::NotWorking(session, state) => write!(f, "{session} is {state} in the end"),
            Self::LeftBehind(process) => write!(f, "left behind: {process}"),
        }
    }
}

/// All that should not be.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    jobs::check(history, &mut found);
    phones::check(history, &mut found);
    logs::check(history, &mut found);
    found.extend(history.stale.iter().cloned().map(Violation::Stale));
    found.extend(history.left.iter().cloned().map(Violation::LeftBehind));
    let down = history.sessions.iter().filter(|s| s.state != "working");
    found.extend(down.map(|s| Violation::NotWorking(s.id.clone(), s.state.clone())));
    found
}

/// Whether a job has ended.
pub(crate) fn is_final(state: &str) -> bool {
    !matches!(state, "queued" | "running")
}
