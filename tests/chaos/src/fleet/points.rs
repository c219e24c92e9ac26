//! What processes do at named points.

use std::time::Duration;

use contract::SessionId;
use harness::{
    Stack,
    faults::{Armed, Arrival, Word},
    process::{self, Signal},
};
use tokio::{sync::mpsc, time::Instant};

use super::Fleet;
use crate::{plan::Step, witness};

/// Another host takes an account over as soon as it is called: longer than that nobody waits for it.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);

/// Between two looks for that: shortly after it the old owner would know by itself.
const TAKEN_LOOK: Duration = Duration::from_millis(20);

/// A process that stands still until its account is another's.
struct Standing {
    pid: u32,
    session: SessionId,
    /// Under which it owns the account. None: not known yet.
    epoch: Option<i64>,
    until: Instant,
}

/// Those who stand still.
pub(super) struct Stopped {
    news: mpsc::UnboundedSender<Standing>,
    heard: mpsc::UnboundedReceiver<Standing>,
    standing: Vec<Standing>,
}

impl Default for Stopped {
    fn default() -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        Self { news, heard, standing: Vec::new() }
    }
}

impl Stopped {
    /// Comes back once somebody stands still who has to be looked after soon.
    pub async fn wait(&mut self) {
        if !self.standing.is_empty() {
            return tokio::time::sleep(TAKEN_LOOK).await;
        }
        // The sender lives as long as this.
        if let Some(standing) = self.heard.recv().await {
            self.standing.push(standing);
        }
    }

    /// Takes the lease from whom it has just heard of, and lets those go on whose account has been taken over.
    pub async fn tend(&mut self, stack: &Stack) {
        while let Ok(standing) = self.heard.try_recv() {
            self.standing.push(standing);
        }
        for it in self.standing.iter_mut().filter(|it| it.epoch.is_none()) {
            it.epoch = witness::epoch(stack, it.session);
            rob(stack, it.session).await;
        }
        self.standing.retain(|it| {
            let taken = it.epoch.is_some_and(|epoch| witness::epoch(stack, it.session).is_some_and(|now| now > epoch));
            let goes_on = taken || Instant::now() > it.until;
            if goes_on {
                process::send(it.pid, Signal::CONT);
            }
            !goes_on
        });
    }
}

/// Redis has no lease of the session any more, and the hosts hear that it is wanted. Where Redis is away the lease runs out by itself.
async fn rob(stack: &Stack, session: SessionId) {
    for key in stack.redis.try_keys(&format!("zg:*:lease:{session}")).await.unwrap_or_default() {
        let _ = stack.redis.try_command(&["DEL", &key]).await;
    }
    let _ = stack.redis.try_command(&["PUBLISH", "zg:wanted", &session.to_string()]).await;
}

impl Fleet {
    /// Arms a point: for an account, or for whoever comes first.
    pub(super) fn point(&mut self, account: Option<usize>, name: &'static str, step: Step) {
        let session = account.and_then(|n| Some(SessionId::from_uuid(self.accounts[n].1.parse().ok()?)));
        let news = self.stopped.news.clone();
        let mut armed = if session.is_some() { self.stack.points().arm(name) } else { self.stack.points().arm_once(name) };
        self.waiting.spawn(async move {
            let Some(arrival) = of(&mut armed, session).await else { return };
            // Those that come after it go on at once.
            drop(armed);
            let pid = arrival.pid;
            match step {
                Step::Die => arrival.reply(Word::Die).await,
                Step::Delay(ms) => arrival.reply(Word::Delay(ms)).await,
                Step::Fail => arrival.reply(Word::Fail).await,
                Step::Stop(ms) => {
                    arrival.reply(Word::Stop).await;
                    // It is the fault's length, and nothing else ends it.
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    process::send(pid, Signal::CONT);
                }
                Step::StopUntilTaken => {
                    arrival.reply(Word::Stop).await;
                    let Some(session) = session else { return process::send(pid, Signal::CONT) };
                    let _ = news.send(Standing { pid, session, epoch: None, until: Instant::now() + TAKEN_WITHIN });
                }
            }
        });
        // Nobody comes there while every session has its owner.
        if name.starts_with("lease.") {
            self.to_proper(0, Signal::KILL);
        }
    }
}

/// The next one that comes for a session; others go on.
async fn of(armed: &mut Armed, session: Option<SessionId>) -> Option<Arrival> {
    while let Some(arrival) = armed.next().await {
        if session.is_none_or(|wanted| arrival.ids["session"] == wanted.to_string()) {
            return Some(arrival);
        }
        arrival.reply(Word::Go).await;
    }
    None
}
