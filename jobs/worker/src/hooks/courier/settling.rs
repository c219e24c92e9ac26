//! What came of attempts, and writing it down.

use std::time::{Duration, Instant};

use futures::future::FutureExt;
use store::webhook_turns::{Ending, Health, Settled, Waiting};

use super::{AGAIN_AFTER, BATCH, Held, Landed, MOVE_AFTER, Round, SETTLE_AFTER, Source, settlement};
use crate::hooks::{
    plan,
    send::{Report, Verdict},
};

impl Round<'_> {
    pub(super) fn landed(&mut self, landed: Landed) {
        let Landed { source, lane, mut row, report, line } = landed;
        self.busy.remove(&lane);
        self.lines.extend(line);
        self.dirty_since.get_or_insert_with(Instant::now);
        let ending = self.judge(&mut row, &report);
        let said = settlement(&row, Some(&report), ending.clone());
        match source {
            Source::Log => {
                let seq = row.seq.unwrap_or_default();
                self.window.land(seq, row.id, said);
                if let Ending::Waiting(pause) = ending {
                    self.hold(row, Instant::now() + pause);
                    if !self.hook.by_chat {
                        // All that is behind it waits with it, in the log.
                        self.window.cut_behind(seq);
                        (self.pulling, self.follow) = (None, None);
                    }
                }
            }
            Source::Lane => {
                // Its row may not be written yet: it is in the window then, or in the statement that runs.
                let inside = row.seq.is_some_and(|seq| self.window.land(seq, row.id, said.clone()));
                if !inside {
                    self.changed.insert(row.id, said);
                }
                let Some(held) = self.lanes.get_mut(&lane) else { return };
                match (ending, held.front_mut()) {
                    (Ending::Waiting(pause), Some(head)) => *head = Held { row, due: Instant::now() + pause },
                    (Ending::Waiting(_), None) => {}
                    (Ending::Delivered | Ending::Dead, _) => {
                        held.pop_front();
                        self.held -= 1;
                        if held.is_empty() {
                            self.lanes.remove(&lane);
                        }
                    }
                }
            }
        }
    }

    /// What a report means for a row, and for what is known of the receiver.
    pub(super) fn judge(&mut self, row: &mut Waiting, report: &Report) -> Ending {
        let failed = |health: &mut Health| {
            health.failures += 1;
            health.last_failure = Some(match (report.error, report.status) {
                (Some(error), _) => error.to_owned(),
                (None, Some(status)) => format!("http_{status}"),
                (None, None) => "failed".to_owned(),
            });
        };
        match report.verdict {
            Verdict::Unread => Ending::Waiting(AGAIN_AFTER),
            Verdict::Expired => Ending::Dead,
            Verdict::Delivered => {
                row.attempt += 1;
                (self.health.failures, self.health.succeeded) = (0, true);
                count("delivered");
                Ending::Delivered
            }
            Verdict::Failed { retry_after } => {
                row.attempt += 1;
                failed(&mut self.health);
                let pause = plan::pause(&self.desk.settings, row.id, row.attempt, retry_after);
                count(if pause.is_some() { "retried" } else { "dead" });
                tracing::debug!(webhook = %self.turn.webhook(), attempt = row.attempt, why = report.error, status = report.status, "not delivered");
                pause.map_or(Ending::Dead, Ending::Waiting)
            }
            Verdict::Gone => {
                row.attempt += 1;
                failed(&mut self.health);
                self.health.gone = true;
                count("gone");
                self.end();
                Ending::Waiting(Duration::ZERO)
            }
        }
    }

    pub(super) fn settle_after(&self) -> Duration {
        let rows = self.window.ready() + self.changed.len();
        if rows > 0 || self.health.last_failure.is_some() || self.health.succeeded { SETTLE_AFTER } else { MOVE_AFTER }
    }

    pub(super) fn start_settling(&mut self) {
        let (None, Some(since)) = (&self.settling, self.dirty_since) else { return };
        let full = self.window.ready() + self.changed.len() >= BATCH;
        let last = self.ending.is_some() && self.flying.is_empty();
        if !full && !last && since.elapsed() < self.settle_after() {
            return;
        }
        let (to, mut rows) = self.window.take();
        rows.extend(self.changed.drain().map(|(_, row)| row));
        let health = std::mem::take(&mut self.health);
        self.dirty_since = None;
        if rows.is_empty() && to == self.cursor && health.last_failure.is_none() && !health.succeeded {
            return;
        }
        self.settling_rows = rows.len();
        let (desk, turn, from) = (self.desk.clone(), self.turn, self.cursor);
        let settling = async move {
            loop {
                match desk.settle(&turn, (from, to), &rows, &health).await {
                    Ok(settled) => return (to, settled),
                    Err(error) => tracing::warn!(%error, webhook = %turn.webhook(), rows = rows.len(), "deliveries are not settled yet"),
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        self.settling = Some(settling.boxed());
    }

    pub(super) fn settled(&mut self, to: i64, settled: &Settled) {
        self.settling_rows = 0;
        if settled.cursor == to {
            self.cursor = to;
        }
        // Somebody turned the cursor, or it is told no more. What is settled until this round is over goes from where it stood before: from where
        // it was turned to, it would pass what is to be told again.
        if settled.cursor != to || !settled.active {
            self.end();
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("zaguan_webhook_deliveries_total", "outcome" => outcome).increment(1);
}
