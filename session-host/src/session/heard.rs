//! What the page has told of its account, and what it has without telling: on the way to the recorder, in order.

use super::{
    account::Takeover,
    actor::{Actor, After},
    recorder::Record,
};
use crate::browser::PageEvent;

/// Reports of a page that are kept until it is known whose they are, and what came before them.
const MOST_EARLY: usize = 4096;

impl Actor {
    /// What the page has and never told of is found before it is connected anew; and what is recorded is not read again then.
    pub(super) async fn compare(&self) -> Option<After> {
        if *self.shared.working.borrow() {
            self.shared.ask_to_compare();
        }
        None
    }

    /// The page could not read its own rows for long.
    pub(super) fn cannot_read(&self) -> Option<After> {
        // Another browser has the account: a new one of ours would take it back unasked.
        let replace = self.takeover == Takeover::No;
        self.shared.rows_anew(replace);
        if replace {
            tracing::warn!(session = %self.shared.session(), "the page cannot read its own rows: a new browser may");
        }
        replace.then_some(After::Restart)
    }

    pub(super) fn keep(&mut self, early: PageEvent) {
        if self.early.len() < MOST_EARLY {
            self.early.push(early);
        }
    }

    /// Has the recorder read the page's rows, and then write down what the page has reported meanwhile.
    pub(super) async fn catch_up(&mut self, rows: Record) {
        let _ = self.shared.records.send(rows).await;
        self.caught_up = true;
        self.record_early().await;
    }

    /// What was kept early, if it is of the session's account: before the page's rows go, too.
    pub(super) async fn record_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        for event in early.into_iter().filter(|_| self.bound) {
            self.record(event).await;
        }
    }

    /// Forgets what another browser has reported.
    pub(super) fn unheard(&mut self) {
        (self.ready, self.stream, self.bound, self.caught_up) = (false, None, false, false);
        self.early.clear();
    }

    /// Has the recorder write down what the page reports of its account.
    pub(super) async fn record(&self, event: PageEvent) {
        match event {
            PageEvent::Message(message) => {
                self.tell_jobs(message.from_me, &message.id_part, message.ack);
                let _ = self.shared.records.send(Record::Message(message)).await;
            }
            PageEvent::Ack(ack) => {
                for wa_id in ack.id_parts {
                    self.tell_jobs(true, &wa_id, ack.ack);
                    let receipt = store::receipts::Receipt { wa_id, ack: i16::try_from(ack.ack).unwrap_or(0) };
                    let _ = self.shared.records.send(Record::Receipt(receipt)).await;
                }
            }
            _ => {}
        }
    }

    fn tell_jobs(&self, from_me: bool, wa_id: &str, ack: i64) {
        if let (true, Ok(ack @ 1..)) = (from_me, i16::try_from(ack)) {
            let _ = self.shared.acks.send((wa_id.to_owned(), ack));
        }
    }
}
