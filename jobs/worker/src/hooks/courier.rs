//! One webhook's courier: a task that reads, sends and settles. Everything it waits for it waits for in one place, so that an attempt that hangs
//! holds nothing else up, and nothing of it runs on after its turn.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{DeliveryId, EventId, EventType};
use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use serde_json::json;
use store::webhook_turns::{self, Ending, Health, Hook, Kind, Loaded, Settled, Settlement, Turn, Waiting};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    desk::{Desk, LEAVE_WITHIN},
    errands,
    line::Line,
    plan,
    pull::{self, Gap, Pulled},
    request::{Style, Unready},
    send::{self, Content, Report, Verdict},
    window::{Item, Lane, Way, Window},
};

/// How many events may have been sent without being settled: what a crash repeats.
pub const UNSETTLED: usize = 200;
/// How many make a statement of their own, while more are sent.
const BATCH: usize = 100;
/// How long a few wait for more before they are settled.
const SETTLE_AFTER: Duration = Duration::from_millis(50);
/// The same for a cursor that moved past what nobody wanted to be told.
const MOVE_AFTER: Duration = Duration::from_secs(1);
/// How many events are read ahead.
const AHEAD: usize = 200;
/// How many may wait because of others of their chat; then the cursor waits too.
const HELD: usize = 1_000;
/// Pause after the database failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

type Task<T> = Option<BoxFuture<'static, T>>;

/// Tells a webhook until its turn is over, or somebody wants it to `leave`.
pub async fn run(desk: Arc<Desk>, turn: Turn, news: Arc<Notify>, leave: CancellationToken) {
    let mut errand = None;
    while !leave.is_cancelled() {
        let loaded = match store::within(webhook_turns::load(&desk.pool, &turn)).await {
            Ok(Some(loaded)) if loaded.hook.active => loaded,
            // Paused or disabled: it goes on where it stands, once it is active again.
            Ok(Some(_)) => break,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, webhook = %turn.webhook(), "a webhook is not read");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        if !Round::of(&desk, turn, loaded, &mut errand).run(&news, &leave).await {
            return;
        }
    }
    if let Err(error) = webhook_turns::release(&desk.pool, &turn).await {
        tracing::debug!(%error, webhook = %turn.webhook(), "a webhook is not given back yet");
    }
}

/// What to say for a row that waits.
pub fn content(row: &Waiting) -> Content {
    match (&row.body, row.seq) {
        (None, Some(seq)) => Content::Log(seq),
        (body, _) => Content::Body(body.clone().unwrap_or_default()),
    }
}

/// How a row stands after an attempt, or before its first.
pub fn settlement(row: &Waiting, report: Option<&Report>, ending: Ending) -> Settlement {
    let expired = report.is_some_and(|r| r.verdict == Verdict::Expired).then_some("expired");
    let tried = report.filter(|r| !matches!(r.verdict, Verdict::Expired | Verdict::Unread));
    Settlement {
        id: row.id,
        event: row.event,
        seq: row.seq,
        event_type: row.event_type.clone(),
        chat: row.chat,
        kind: row.kind,
        ending,
        attempt: row.attempt,
        status: tried.and_then(|r| r.status),
        error: expired.or_else(|| tried.and_then(|r| r.error)),
        took: tried.map(|r| r.took),
        answer: tried.and_then(|r| r.answer.clone()),
        body: row.body.clone(),
    }
}

/// Something that waits in its lane.
struct Held {
    row: Waiting,
    due: Instant,
}

/// Where an attempt came from.
enum Source {
    /// The log, just now.
    Log,
    /// The head of its lane.
    Lane,
}

/// An attempt that is over.
struct Landed {
    source: Source,
    lane: Lane,
    row: Waiting,
    report: Report,
    line: Option<Line>,
}

/// From reading a webhook's row until it has to be read again.
struct Round<'a> {
    desk: &'a Arc<Desk>,
    turn: Turn,
    hook: Arc<Hook>,
    style: Result<Arc<Style>, Unready>,
    /// As the database has it.
    cursor: i64,
    window: Window,
    lanes: HashMap<Lane, VecDeque<Held>>,
    held: usize,
    busy: HashSet<Lane>,
    lines: Vec<Line>,
    /// Rows that changed and are not in the window.
    changed: HashMap<DeliveryId, Settlement>,
    health: Health,
    dirty_since: Option<Instant>,
    /// Rows of the statement that runs.
    settling_rows: usize,
    flying: FuturesUnordered<BoxFuture<'static, Landed>>,
    pulling: Task<Pulled>,
    follow: Option<queue::events::Follow>,
    settling: Task<(i64, Option<Settled>)>,
    peeking: Task<Option<Loaded>>,
    errand: &'a mut Task<()>,
    errands_due: Option<Instant>,
    /// Nothing more is sent: the row is read again, or the webhook given back, once all is settled.
    ending: Option<Instant>,
}

/// The end of a task, if there is one.
async fn end_of<T>(task: &mut Task<T>) -> T {
    let done = match task {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *task = None;
    done
}

impl<'a> Round<'a> {
    fn of(desk: &'a Arc<Desk>, turn: Turn, loaded: Loaded, errand: &'a mut Task<()>) -> Self {
        let style = Style::of(&desk.sealer, turn.webhook(), &loaded.hook).map(Arc::new);
        let mut round = Self {
            desk,
            turn,
            cursor: loaded.cursor,
            window: Window::behind(loaded.cursor),
            style,
            lanes: HashMap::new(),
            held: 0,
            busy: HashSet::new(),
            lines: Vec::new(),
            changed: HashMap::new(),
            health: Health::default(),
            dirty_since: None,
            settling_rows: 0,
            flying: FuturesUnordered::new(),
            pulling: None,
            follow: None,
            settling: None,
            peeking: None,
            errand,
            errands_due: errands_due(&loaded.waiting),
            ending: None,
            hook: Arc::new(loaded.hook),
        };
        for row in loaded.waiting.into_iter().filter(|row| !errands::is_one(row)) {
            let due = Instant::now() + row.due_in;
            round.hold(row, due);
        }
        round
    }

    /// `false`: the turn is over.
    async fn run(mut self, news: &Notify, leave: &CancellationToken) -> bool {
        loop {
            if leave.is_cancelled() {
                self.end();
            }
            self.start_sending();
            self.start_settling();
            self.start_pulling();
            self.start_errand();
            if self.ending.is_some() && self.flying.is_empty() && self.settling.is_none() && self.dirty_since.is_none() {
                return true;
            }
            let timer = tokio::time::Instant::from_std(self.next_moment());
            tokio::select! {
                Some(landed) = self.flying.next(), if !self.flying.is_empty() => self.landed(landed),
                (to, settled) = end_of(&mut self.settling) => {
                    let Some(settled) = settled else { return false };
                    self.settled(to, &settled);
                }
                pulled = end_of(&mut self.pulling) => self.pulled(pulled),
                peeked = end_of(&mut self.peeking) => self.peeked(peeked),
                () = end_of(self.errand) => self.peek(),
                () = news.notified() => self.peek(),
                () = leave.cancelled(), if self.ending.is_none() => {}
                () = tokio::time::sleep_until(timer) => self.pass(),
            }
        }
    }

    fn end(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
        self.pulling = None;
        self.follow = None;
    }

    /// What passing time asks for, other than what is started anyway.
    fn pass(&mut self) {
        if self.flying.is_empty() {
            let keep = self.desk.settings.keep_connection();
            self.lines.retain(|line| line.idle() < keep);
        }
        if self.ending.is_some_and(|since| since.elapsed() >= LEAVE_WITHIN) {
            // It is sent again: by us after the row is read again, or by another worker.
            self.flying.clear();
        }
    }

    fn next_moment(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + Duration::from_secs(3600);
        let mut sooner = |at: Instant| next = next.min(at);
        if let (Some(since), None) = (self.dirty_since, &self.settling) {
            sooner(since + self.settle_after());
        }
        if let Some(since) = self.ending {
            sooner(since + LEAVE_WITHIN);
        } else {
            if self.may_send() {
                self.lanes
                    .iter()
                    .filter(|(lane, _)| !self.busy.contains(lane))
                    .filter_map(|(_, held)| held.front())
                    .for_each(|h| sooner(h.due));
            }
            if let (Some(due), None) = (self.errands_due, &self.errand) {
                sooner(due);
            }
        }
        if self.flying.is_empty() && !self.lines.is_empty() {
            let keep = self.desk.settings.keep_connection();
            self.lines.iter().for_each(|line| sooner(now + keep.saturating_sub(line.idle())));
        }
        // Never at once again: what could be done was done.
        next.max(now + Duration::from_millis(1))
    }

    fn may_send(&self) -> bool {
        let unsettled = self.window.unsettled() + self.changed.len() + self.settling_rows;
        self.ending.is_none()
            && !self.health.gone
            && self.flying.len() < self.hook.concurrency
            && unsettled < UNSETTLED
            && self.desk.holds()
    }

    fn start_sending(&mut self) {
        while self.may_send() {
            let Some((source, lane, item)) = self.due().or_else(|| self.next_of_log()) else { return };
            self.busy.insert(lane);
            let (desk, turn, style, line) = (self.desk.clone(), self.turn, self.style.clone(), self.lines.pop());
            self.flying.push(
                async move {
                    let Item { row, content } = item;
                    let (report, line) = match style {
                        Ok(style) => {
                            let _permits = desk.permits(turn.tenant()).await;
                            send::attempt(&desk, &turn, &style, (row.event, content, row.kind), line).await
                        }
                        Err(why) => (Report::failed(why.name()), None),
                    };
                    Landed { source, lane, row, report, line }
                }
                .boxed(),
            );
        }
    }

    /// The head of a lane whose time has come: of several the one that has waited longest.
    fn due(&self) -> Option<(Source, Lane, Item)> {
        let now = Instant::now();
        let heads = self.lanes.iter().filter(|(lane, _)| !self.busy.contains(lane)).filter_map(|(lane, held)| Some((lane, held.front()?)));
        let (lane, head) = heads.filter(|(_, head)| head.due <= now).min_by_key(|(_, head)| head.due)?;
        Some((Source::Lane, *lane, Item { content: content(&head.row), row: head.row.clone() }))
    }

    fn next_of_log(&mut self) -> Option<(Source, Lane, Item)> {
        if self.window.pending() == 0 {
            return None;
        }
        let Self { window, lanes, busy, held, dirty_since, .. } = self;
        // Which lanes hold others back does not change by what joins them.
        let holding: HashSet<Lane> = lanes.keys().copied().collect();
        let room = std::cell::Cell::new(HELD.saturating_sub(*held));
        let way = |lane: Lane| match (busy.contains(&lane), holding.contains(&lane)) {
            (_, true) if room.get() == 0 => Way::Full,
            (_, true) => Way::Held,
            (true, false) => Way::Busy,
            (false, false) => Way::Free,
        };
        let found = window.next(way, |lane, item| {
            room.set(room.get() - 1);
            *held += 1;
            dirty_since.get_or_insert_with(Instant::now);
            let said = settlement(&item.row, None, Ending::Waiting(Duration::ZERO));
            lanes.entry(lane).or_default().push_back(Held { row: item.row, due: Instant::now() });
            said
        });
        found.map(|(lane, item)| (Source::Log, lane, item))
    }

    fn hold(&mut self, row: Waiting, due: Instant) {
        let lane = if self.hook.by_chat { row.whole_chat } else { None };
        self.held += 1;
        self.lanes.entry(lane).or_default().push_back(Held { row, due });
    }

    fn landed(&mut self, landed: Landed) {
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
    fn judge(&mut self, row: &mut Waiting, report: &Report) -> Ending {
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

    fn settle_after(&self) -> Duration {
        let rows = self.window.ready() + self.changed.len();
        if rows > 0 || self.health.last_failure.is_some() || self.health.succeeded { SETTLE_AFTER } else { MOVE_AFTER }
    }

    fn start_settling(&mut self) {
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

    fn settled(&mut self, to: i64, settled: &Settled) {
        self.settling_rows = 0;
        self.cursor = settled.cursor;
        // Somebody turned the cursor, or it is told no more.
        if settled.cursor != to || !settled.active {
            self.end();
        }
    }

    fn start_pulling(&mut self) {
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

    fn pulled(&mut self, pulled: Pulled) {
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
    fn tell_gap(&mut self, gap: Gap) {
        let (id, kind) = (EventId::new(), EventType::StreamGap);
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
    fn peek(&mut self) {
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

    fn peeked(&mut self, loaded: Option<Loaded>) {
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

    fn soonest(&self) -> Option<Instant> {
        self.lanes.values().flatten().map(|held| held.due).min()
    }

    fn start_errand(&mut self) {
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

fn soonest<'a>(rows: impl Iterator<Item = &'a Waiting>) -> Option<Instant> {
    rows.map(|row| Instant::now() + row.due_in).min()
}

fn errands_due(rows: &[Waiting]) -> Option<Instant> {
    soonest(rows.iter().filter(|row| errands::is_one(row)))
}

fn count(outcome: &'static str) {
    metrics::counter!("zaguan_webhook_deliveries_total", "outcome" => outcome).increment(1);
}
