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

/// Somebody takes an account over within a lease and a look: longer than that nobody waits for it.
const TAKEN_WITHIN: Duration = Duration::from_secs(8);

/// A process that stands still until its account is another's.
struct Standing {
    pid: u32,
    session: String,
    epoch: i64,
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
    /// Lets those go on whose account has been taken over.
    pub fn tend(&mut self, stack: &Stack) {
        while let Ok(mut standing) = self.heard.try_recv() {
            standing.epoch = witness::epoch(stack, &standing.session).unwrap_or(i64::MAX);
            self.standing.push(standing);
        }
        self.standing.retain(|it| {
            let stays = Instant::now() < it.until && witness::epoch(stack, &it.session).is_none_or(|epoch| epoch <= it.epoch);
            if !stays {
                process::send(it.pid, Signal::CONT);
            }
            stays
        });
    }
}

impl Fleet {
    /// Arms a point: for an account, or for whoever comes first.
    pub(super) fn point(&mut self, account: Option<usize>, name: &'static str, step: Step) {
        let session = account.map(|n| self.accounts[n].1.clone());
        let news = self.stopped.news.clone();
        let mut armed = if session.is_some() { self.stack.points().arm(name) } else { self.stack.points().arm_once(name) };
        self.waiting.spawn(async move {
            let Some(arrival) = of(&mut armed, session.as_deref()).await else { return };
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
                    let until = Instant::now() + TAKEN_WITHIN;
                    let _ = news.send(Standing { pid, session: session.unwrap_or_default(), epoch: 0, until });
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
async fn of(armed: &mut Armed, session: Option<&str>) -> Option<Arrival> {
    let wanted = session.map(|id| id.parse().map(|id| SessionId::from_uuid(id).to_string()).unwrap_or_default());
    while let Some(arrival) = armed.next().await {
        if wanted.as_deref().is_none_or(|wanted| arrival.ids["session"] == wanted) {
            return Some(arrival);
        }
        arrival.reply(Word::Go).await;
    }
    None
}
