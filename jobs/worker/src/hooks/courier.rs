//! One webhook's courier: a task that reads, sends and settles. Everything it waits for it waits for in one place, so that an attempt that hangs
//! holds nothing else up, and nothing of it runs on after its turn.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use contract::DeliveryId;
use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use store::webhook_turns::{self, Ending, Health, Hook, Loaded, Settled, Settlement, Turn, Waiting};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    desk::{Desk, LEAVE_WITHIN},
    errands,
    line::Line,
    pull::Pulled,
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

mod reading;
mod settling;

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
}

fn soonest<'a>(rows: impl Iterator<Item = &'a Waiting>) -> Option<Instant> {
    rows.map(|row| Instant::now() + row.due_in).min()
}

fn errands_due(rows: &[Waiting]) -> Option<Instant> {
    soonest(rows.iter().filter(|row| errands::is_one(row)))
}
