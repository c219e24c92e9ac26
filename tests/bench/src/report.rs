//! What was measured, as a table and as JSON.

use std::{path::Path, time::Duration};

use harness::Error;
use serde::Serialize;

/// One line: ours beside another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    beside: String,
    theirs: f64,
    /// Ours divided by theirs.
    ratio: f64,
}

/// A number that stands beside nothing.
#[derive(Debug, Serialize)]
struct Note {
    what: String,
    unit: &'static str,
    value: f64,
}

/// All lines.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<Note>,
}

impl Report {
    /// Ours beside theirs.
    pub fn beside(&mut self, what: &str, unit: &'static str, ours: f64, beside: &str, theirs: f64) {
        self.rows.push(Row { what: what.to_owned(), unit, ours, beside: beside.to_owned(), theirs, ratio: ours / theirs });
    }

    /// A number of its own.
    pub fn note(&mut self, what: &str, unit: &'static str, value: f64) {
        self.notes.push(Note { what: what.to_owned(), unit, value });
    }

    /// The table.
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    pub fn print(&self) {
        println!("| what | unit | Zaguan | beside | | ratio |\n|---|---|---:|---|---:|---:|");
        for Row { what, unit, ours, beside, theirs, ratio } in &self.rows {
            println!("| {what} | {unit} | {} | {beside} | {} | {ratio:.2} |", short(*ours), short(*theirs));
        }
        println!("\n| what | unit | |\n|---|---|---:|");
        for Note { what, unit, value } in &self.notes {
            println!("| {what} | {unit} | {} |", short(*value));
        }
    }

    /// The same for programs.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

fn short(n: f64) -> String {
    if n >= 100.0 || n == n.trunc() { format!("{n:.0}") } else { format!("{n:.2}") }
}

/// Latencies, sorted.
#[derive(Debug, Default, Clone)]
pub struct Latencies(Vec<Duration>);

impl From<Vec<Duration>> for Latencies {
    fn from(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }
}

impl Latencies {
    /// The latency that this share of them does not exceed, in milliseconds.
    pub fn ms(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.0.get(at).map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
    }
    /// The mean, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.0.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e3 / self.0.len() as f64
    }
}

/// The middle of what several rounds gave: rounds of ours and of theirs alternate, so that both meet the same machine.
pub fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}
