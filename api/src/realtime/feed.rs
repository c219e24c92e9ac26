//! One caller's view of its tenant's log, live. Transports only write down what comes out of it.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
    time::Duration,
};

use contract::{
    Ephemeral, Event, EventId, EventType, Fact, SessionId,
    event::{LogRestoredBody, StreamGapBody},
    fault_point,
};
use queue::{Follow, Logged};
use serde_json::json;
use store::{
    counters::{self, Ends},
    events::{self, Filter},
};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep_until},
};

use crate::{
    auth::Caller,
    problem::{Code, Problem},
    state::AppState,
};

/// How often a caller is asked for again. With the second that its standing may be cached, this is how long a revoked one goes on hearing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// All streams of a process look at the same moments, so that one statement answers all of them.
static LOOKS: LazyLock<Instant> = LazyLock::new(Instant::now);
/// How old a judgement may be when its event is handed out.
const JUDGED_FOR: Duration = Duration::from_millis(500);
/// Events judged at once.
const BATCH: usize = 200;
/// Events that may come up behind a caller that does not take them.
const UNDELIVERED: i64 = 1000;

/// What comes next on a stream.
pub enum Next {
    /// An event that the caller may see and asked for.
    Event(Arc<Logged>),
    /// Something that is in no log.
    Told(Arc<Ephemeral>),
    /// Events have been dropped before they were shown.
    Gap(Ephemeral),
    /// Nothing for a while; everything up to this `seq` has been judged.
    Judged(i64),
    /// The end, and why.
    End(Ending),
}

/// Why a stream ends. All but the first are normal: the client comes again with its cursor.
pub enum Ending {
    /// The caller no longer counts.
    Refused(Problem),
    /// Too much came up behind it.
    TooSlow,
    /// The process ends.
    Stopping,
}

impl Ending {
    /// Counts it.
    pub fn count(&self, transport: &'static str) {
        metrics::counter!("zaguan_streams_ended_total", "transport" => transport, "why" => self.as_str()).increment(1);
    }

    /// In a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(problem) => problem.code.as_str(),
            Self::TooSlow => "too_slow",
            Self::Stopping => "stopping",
        }
    }
}

/// A caller, what it asked for, and how far it has come.
pub struct Feed {
    app: AppState,
    caller: Caller,
    filter: Filter,
    follow: Follow,
    told: broadcast::Receiver<Arc<Ephemeral>>,
    /// Told, and not judged yet.
    heard: Option<Arc<Ephemeral>>,
    /// Dropped events that have yet to be told of.
    gap: Option<Ephemeral>,
    /// Come, not judged yet. What is taken out of the log stands here before anything is awaited: `next` may be dropped.
    unjudged: Vec<Arc<Logged>>,
    /// Whether what is unjudged may come after a hole.
    fresh: bool,
    /// Judged, not handed out yet, and when that was.
    ready: VecDeque<Arc<Logged>>,
    judged_at: Instant,
    /// Everything up to here has been judged and, where it was to be, handed out.
    judged: i64,
    /// The log's head when the caller came: what is behind it is a replay, which may be long.
    joined_at: i64,
    /// The cursor that it came with.
    asked: i64,
    /// The last `log.restored` for which it was gone back.
    retold: i64,
    look_at: Instant,
    speak_at: Instant,
}

impl Feed {
    /// Opens the log behind `after`, or at its head.
    ///
    /// # Errors
    /// `cursor_ahead`; `unavailable`.
    pub async fn open(app: &AppState, caller: Caller, filter: Filter, after: Option<i64>) -> Result<Self, Problem> {
        let mut ends = counters::ends(&app.pool, caller.tenant).await?;
        let asked = after.unwrap_or(ends.head);
        if asked > ends.head && super::restored(app, caller.tenant, ends.head).await {
            ends = counters::ends(&app.pool, caller.tenant).await?;
        }
        if asked > ends.head {
            return Err(Problem::new(Code::CursorAhead, "the log has not come so far").field("after").with("head", json!(ends.head)));
        }
        let after = asked.max(ends.floor - 1);
        let follow = app.readers.follow_from(caller.tenant, after).await?;
        let now = Instant::now();
        Ok(Self {
            app: app.clone(),
            caller,
            filter,
            told: follow.told(),
            follow,
            heard: None,
            gap: (after > asked).then(|| gap(&caller, asked, &ends)),
            unjudged: Vec::new(),
            fresh: false,
            ready: VecDeque::new(),
            judged_at: now,
            judged: after,
            joined_at: ends.head,
            asked,
            retold: 0,
            look_at: next_look(),
            speak_at: now + app.timings.stream_keep_alive(),
        })
    }

    /// Everything up to here has been judged.
    pub const fn judged(&self) -> i64 {
        self.judged
    }

    /// Who listens, as it was when it was last asked for.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Goes on with another credential of the same caller.
    pub const fn renew(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// Asks for something else: what comes after `after`, or after what has been judged so far, is judged by it.
    ///
    /// # Errors
    /// As for [`Feed::open`]; then nothing has changed.
    pub async fn reopen(&mut self, filter: Option<Filter>, after: Option<i64>) -> Result<(), Problem> {
        let filter = filter.unwrap_or_else(|| self.filter.clone());
        *self = Self::open(&self.app, self.caller, filter, Some(after.unwrap_or(self.judged))).await?;
        Ok(())
    }

    /// What comes next. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Next {
        match self.find_next().await {
            Ok(next) => next,
            Err(ending) => Next::End(ending),
        }
    }

    async fn find_next(&mut self) -> Result<Next, Ending> {
        loop {
            if let Some(gap) = self.gap.take() {
                return Ok(Next::Gap(gap));
            }
            if !self.ready.is_empty() && self.judged_at.elapsed() > JUDGED_FOR {
                self.unjudged = std::mem::take(&mut self.ready).into();
                self.fresh = false;
            }
            if let Some(event) = self.ready.pop_front() {
                self.judged = event.seq;
                self.speak_at = Instant::now() + self.app.timings.stream_keep_alive();
                return Ok(Next::Event(event));
            }
            if !self.unjudged.is_empty() {
                if let Some((announced, from)) = self.restored() {
                    self.follow = self.follow_from(from - 1).await?;
                    self.told = self.follow.told();
                    self.retold = announced;
                    self.unjudged.clear();
                    continue;
                }
                self.judge().await?;
                continue;
            }
            if let Some(told) = self.heard.clone() {
                self.look().await?;
                self.heard = None;
                if self.may_be_told(&told) {
                    return Ok(Next::Told(told));
                }
            }
            // Nothing waits: what came and was not shown has been judged too.
            self.judged = self.judged.max(self.follow.last());
            tokio::select! {
                batch = self.follow.batch(BATCH) => {
                    self.unjudged = batch;
                    self.fresh = true;
                }
                Ok(told) = self.told.recv() => self.heard = Some(told),
                () = sleep_until(self.look_at) => self.look().await?,
                () = sleep_until(self.speak_at) => {
                    self.speak_at = Instant::now() + self.app.timings.stream_keep_alive();
                    return Ok(Next::Judged(self.judged));
                }
                () = self.app.stopping.cancelled() => return Err(Ending::Stopping),
            }
        }
    }

    /// Where the log went back to an older state, other events may stand under numbers that were passed here already: they are told before that
    /// is announced. Who came later, with a cursor from before, has been told them with the rest. Answers the announcement's `seq`, and where
    /// to go on.
    fn restored(&self) -> Option<(i64, i64)> {
        let announced = self.unjudged.iter().filter(|event| event.kind == EventType::LogRestored && event.seq > self.retold);
        let mut bodies =
            announced.filter_map(|event| Some((event.seq, serde_json::from_value::<LogRestoredBody>(event.data.clone()).ok()?.from)));
        let passed = |seq: i64, from: i64| from <= self.asked && self.asked < seq || from <= self.judged && seq > self.joined_at;
        bodies.find(|(seq, from)| passed(*seq, *from))
    }

    async fn follow_from(&self, after: i64) -> Result<Follow, Ending> {
        self.app.readers.follow_from(self.caller.tenant, after).await.map_err(|why| Ending::Refused(why.into()))
    }

    /// Ends when the caller may hear no more, however long nothing is asked of the feed.
    pub async fn ended(&mut self) -> Ending {
        loop {
            tokio::select! {
                () = sleep_until(self.look_at) => {}
                () = self.app.stopping.cancelled() => return Ending::Stopping,
            }
            if let Err(ending) = self.look().await {
                return ending;
            }
            if self.follow.head() - self.judged.max(self.joined_at) > UNDELIVERED {
                return Ending::TooSlow;
            }
        }
    }

    async fn look(&mut self) -> Result<(), Ending> {
        self.caller = self.caller.recheck(&self.app).await.map_err(Ending::Refused)?;
        self.look_at = next_look();
        Ok(())
    }

    /// A hole in the numbers is either nothing to us (types that only newer services know) or what retention took while we were slow.
    async fn look_for_gap(&mut self) -> Result<(), Ending> {
        let Some(first) = self.unjudged.first().map(|e| e.seq).filter(|first| *first > self.judged + 1) else { return Ok(()) };
        let ends = counters::ends(&self.app.pool, self.caller.tenant).await.map_err(|why| Ending::Refused(why.into()))?;
        if ends.floor - 1 > self.judged && first >= ends.floor {
            self.gap = Some(gap(&self.caller, self.judged, &ends));
        }
        Ok(())
    }

    /// Keeps what the caller may see, by its standing and grants of now.
    async fn judge(&mut self) -> Result<(), Ending> {
        if self.fresh {
            self.look_for_gap().await?;
            self.fresh = false;
        }
        let (Some(first), Some(last)) = (self.unjudged.first(), self.unjudged.last()) else { return Ok(()) };
        let (first, last) = (first.seq, last.seq);
        let _ = fault_point!("rights.revoke_mid_stream", "seq" => first);
        let _ = fault_point!("token.expires_mid_stream", "seq" => first);
        self.look().await?;
        let judged_at = Instant::now();
        let viewer = self.caller.viewer();
        // What has waited is read again: it may have been erased.
        if viewer.sees_all() && self.filter.chat.is_none() && self.unjudged.iter().all(|event| event.is_fresh()) {
            let batch = std::mem::take(&mut self.unjudged);
            let asked_for = batch.into_iter().filter(|e| self.asked_for(e)).collect();
            self.ready = asked_for;
        } else {
            let seen = events::judge(&self.app.pool, viewer, &self.filter, first - 1, last).await;
            let seen = seen.map_err(|why| Ending::Refused(why.into()))?;
            self.unjudged.clear();
            self.ready = seen.into_iter().map(|event| Arc::new(event.into())).collect();
        }
        self.judged_at = judged_at;
        Ok(())
    }

    fn asked_for(&self, event: &Event) -> bool {
        self.asked_for_kind(&event.kind, event.session)
    }

    fn asked_for_kind(&self, kind: &EventType, of: Option<SessionId>) -> bool {
        let Filter { types, session, chat: _ } = &self.filter;
        (types.is_empty() || types.contains(kind)) && (session.is_none() || *session == of)
    }

    /// Codes to scan are for an ADMIN, and for a key of its that links phones. Nothing else is told yet; what will concern a chat is judged by grants then.
    fn may_be_told(&self, told: &Ephemeral) -> bool {
        let for_admins = told.kind == EventType::SessionQr && self.caller.admin().is_ok() && self.caller.may_link();
        for_admins && self.filter.chat.is_none() && self.asked_for_kind(&told.kind, told.session)
    }
}

fn next_look() -> Instant {
    let looks = LOOKS.elapsed().as_millis() / LOOK_EVERY.as_millis() + 1;
    *LOOKS + LOOK_EVERY * u32::try_from(looks).unwrap_or(u32::MAX)
}

fn gap(caller: &Caller, after: i64, ends: &Ends) -> Ephemeral {
    let fact = Fact::StreamGap(StreamGapBody { after, oldest: ends.floor });
    Ephemeral {
        id: EventId::new(),
        seq: (),
        kind: fact.kind(),
        timestamp: ends.now,
        tenant: caller.tenant,
        session: None,
        chat: None,
        data: fact.data(),
    }
}
