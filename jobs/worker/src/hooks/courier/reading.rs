//! What is next: in the log, in the webhook's row, and beside the order.

use std::time::{Duration, Instant};

use contract::{DeliveryId, EventId, EventType, WebhookId};
use futures::future::FutureExt;
use ring::digest::{SHA256, digest};
use serde_json::json;
use store::webhook_turns::{self, Ending, Kind, Loaded, Waiting};

use super::{AGAIN_AFTER, AHEAD, HELD, Round, errands_due, settlement, soonest};
use crate::hooks::{
    errands,
    pull::{self, Gap, Pulled},
    send::Content,
    window::Item,
};

/// The same for whoever finds the same gap: one that was told by a worker that died before it wrote that down is told again as itself.
fn gap_id(webhook: WebhookId, gap: Gap) -> EventId {
    let what = [webhook.uuid().as_bytes().as_slice(), &gap.after.to_be_bytes(), &gap.oldest.to_be_bytes()].concat();
    let mut id = [0; 16];
    id.iter_mut().zip(digest(&SHA256, &what).as_ref()).for_each(|(to, from)| *to = *from);
    EventId::from_uuid(uuid::Builder::from_random_bytes(id).into_uuid())
}

impl Round<'_> {
    pub(super) fn start_pulling(&mut self) {
        let held = !self.hook.by_chat && !self.lanes.is_empty();
        if self.pulling.is_some() || self.ending.is_some() || held || self.held >= HELD {
            return;
        }
        if self.window.pending() >= AHEAD / 2 || self.window.len() >= 2 * AHEAD {
            return;
        }
        let most = AHEAD.min(2 * AHEAD - self.window.len());
        let pull = pull::next(self.desk.clone(), self.turn.tenant(), self.hook.clone(), self.follow.take(), self.window.read_to(), most);
        self.pulling = Some(pull.boxed());
    }

    pub(super) fn pulled(&mut self, pulled: Pulled) {
        match pulled {
            Pulled::Events { follow, read_to, wanted } => {
                for (event, whole_chat) in wanted {
                    let (seq, lane) = (event.seq, if self.hook.by_chat { whole_chat } else { None });
                    let kind = if seq <= self.hook.replay_until { Kind::Replay } else { Kind::Live };
                    let row = Waiting {
                        id: DeliveryId::new(),
                        event: event.id,
                        seq: Some(seq),
                        event_type: event.kind.as_str().to_owned(),
                        chat: event.chat,
                        whole_chat,
                        kind,
                        attempt: 0,
                        due_in: Duration::ZERO,
                        body: None,
                    };
                    self.window.push(seq, lane, Item { row, content: Content::Event(event) });
                }
                self.window.read(read_to);
                self.follow = Some(follow);
            }
            Pulled::Gap(gap) => self.tell_gap(gap),
        }
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// Events that were to be told are kept no longer: that is told in their place, and in their order.
    pub(super) fn tell_gap(&mut self, gap: Gap) {
        let (id, kind) = (gap_id(self.turn.webhook(), gap), EventType::StreamGap);
        let timestamp = self.desk.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let body = json!({
            "id": id, "seq": null, "type": kind, "timestamp": timestamp, "tenant": self.turn.tenant(), "session": null, "chat": null,
            "data": {"after": gap.after, "oldest": gap.oldest},
        });
        let row = Waiting {
            id: DeliveryId::new(),
            event: id,
            seq: None,
            event_type: kind.as_str().to_owned(),
            chat: None,
            whole_chat: None,
            kind: Kind::Live,
            attempt: 0,
            due_in: Duration::ZERO,
            body: Some(body),
        };
        self.changed.insert(row.id, settlement(&row, None, Ending::Waiting(Duration::ZERO)));
        self.window.read(gap.oldest - 1);
        self.hold(row, Instant::now());
    }

    /// Looks whether something about the webhook has changed.
    pub(super) fn peek(&mut self) {
        if self.ending.is_some() || self.peeking.is_some() {
            return;
        }
        let (desk, turn) = (self.desk.clone(), self.turn);
        let peeking = async move {
            loop {
                match store::within(webhook_turns::load(&desk.pool, &turn)).await {
                    Ok(loaded) => return loaded,
                    Err(error) => tracing::warn!(%error, webhook = %turn.webhook(), "a webhook is not read"),
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        self.peeking = Some(peeking.boxed());
    }

    pub(super) fn peeked(&mut self, loaded: Option<Loaded>) {
        // Gone, or not ours: what is settled next says so.
        let Some(loaded) = loaded else { return self.end() };
        self.errands_due = errands_due(&loaded.waiting);
        let quiet = self.settling.is_none() && self.dirty_since.is_none();
        let (mine, theirs) = (self.soonest(), soonest(loaded.waiting.iter().filter(|row| !errands::is_one(row))));
        let sooner = match (mine, theirs) {
            (Some(mine), Some(theirs)) => theirs + Duration::from_millis(200) < mine,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if loaded.hook != *self.hook || quiet && (loaded.cursor != self.cursor || sooner) {
            self.end();
        }
    }

    pub(super) fn soonest(&self) -> Option<Instant> {
        self.lanes.values().flatten().map(|held| held.due).min()
    }

    pub(super) fn start_errand(&mut self) {
        if self.errand.is_some() || self.ending.is_some() || self.errands_due.is_none_or(|due| due > Instant::now()) || !self.desk.holds() {
            return;
        }
        self.errands_due = None;
        let (desk, turn, style) = (self.desk.clone(), self.turn, self.style.clone());
        let errand = async move {
            match store::within(webhook_turns::load(&desk.pool, &turn)).await {
                Ok(loaded) => {
                    let rows = loaded.into_iter().flat_map(|l| l.waiting).filter(|row| errands::is_one(row) && row.due_in.is_zero());
                    errands::run(desk, turn, style, rows.collect()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, webhook = %turn.webhook(), "errands are not read");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        };
        *self.errand = Some(errand.boxed());
    }
}
