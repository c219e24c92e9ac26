//! What everybody saw: the checker's only input.

use serde_json::Value;

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Linked accounts.
    pub sessions: Vec<Session>,
    /// Texts that callers sent.
    pub sends: Vec<Send>,
    /// Texts that phones wrote.
    pub incoming: Vec<Incoming>,
    /// The rows of all jobs.
    pub jobs: Vec<Job>,
    /// What phones show.
    pub phones: Vec<Phone>,
    /// Logs, and who read them; a tenant each.
    pub logs: Vec<Log>,
    /// What the witnesses in the database saw of writes by somebody who was no owner (any more).
    pub stale: Vec<String>,
    /// Processes that outlived those who should have ended them.
    pub left: Vec<String>,
    /// How many jobs may be `unknown`, by what was broken.
    pub unknown_allowed: usize,
}

/// A linked account.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Its public id.
    pub id: String,
    /// Whose.
    pub tenant: usize,
    /// Its state once all was whole again.
    pub state: String,
}

/// A text that a caller sent.
#[derive(Debug, Clone, Default)]
pub struct Send {
    /// From which account.
    pub session: usize,
    /// To which phone.
    pub peer: usize,
    /// What, unlike every other text.
    pub text: String,
    /// When it was first asked for, in ms.
    pub asked: u64,
    /// When it was first accepted.
    pub accepted: Option<u64>,
    /// The jobs that its answers named.
    pub jobs: Vec<String>,
    /// It was refused, in the last answer there was.
    pub refused: Option<String>,
}

/// A text that a phone wrote.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// To which account.
    pub session: usize,
    /// From which phone.
    pub peer: usize,
    /// What, unlike every other text.
    pub text: String,
    /// WhatsApp's id of it.
    pub wa_id: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// A job's row.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Its public id.
    pub id: String,
    /// Of which account.
    pub session: usize,
    /// Its place in the order of acceptance.
    pub position: i64,
    /// What it sends, where it sends a text.
    pub text: Option<String>,
    /// Where it is.
    pub state: String,
    /// It ended `unknown` at first, by the log.
    pub was_unknown: bool,
    /// Why it ended, where it did not succeed.
    pub code: Option<String>,
}

/// A chat as a customer's phone shows it.
#[derive(Debug, Clone, Default)]
pub struct Phone {
    /// With which account.
    pub session: usize,
    /// Whose phone.
    pub peer: usize,
    /// What the account wrote, in the order shown: the text, and how often its id came again.
    pub shown: Vec<(String, u64)>,
}

/// A tenant's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The tenant's public id.
    pub tenant: String,
    /// All of it.
    pub events: Vec<Value>,
    /// What others made of it.
    pub readers: Vec<Reader>,
}

/// Somebody who was told the log.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// Who.
    pub name: String,
    /// What it was told, in order. Only what is in the log.
    pub events: Vec<Value>,
    /// What comes again is no fault: it is known by its id.
    pub at_least_once: bool,
}
