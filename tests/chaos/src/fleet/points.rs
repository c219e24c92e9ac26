//! What processes do at named points.

use std::time::Duration;

use contract::SessionId;
use harness::{
    faults::{Armed, Arrival, Word},
    process::{self, Signal},
};

use super::Fleet;
use crate::plan::Step;

impl Fleet {
    /// Arms a point: for an account, or for whoever comes first.
    pub(super) fn point(&mut self, account: Option<usize>, name: &'static str, step: Step) {
        let session = account.and_then(|n| Some(SessionId::from_uuid(self.accounts[n].1.parse().ok()?)));
        let overtaken = self.overtaken.0.clone();
        let mut armed = if session.is_some() { self.stack.points().arm(name) } else { self.stack.points().arm_once(name) };
        self.waiting.spawn(async move {
            let Some(arrival) = of(&mut armed, session).await else { return };
            // Those that come after it go on at once.
            drop(armed);
            match step {
                Step::Die => arrival.reply(Word::Die).await,
                Step::Delay(ms) => arrival.reply(Word::Delay(ms)).await,
                Step::Fail => arrival.reply(Word::Fail).await,
                Step::Stop(ms) => {
                    let pid = arrival.pid;
                    arrival.reply(Word::Stop).await;
                    // It is the fault's length, and nothing else ends it.
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    process::send(pid, Signal::CONT);
                }
                Step::Overtaken => drop(overtaken.send(arrival)),
            }
        });
        // Nobody comes there while every session has its owner.
        if name.starts_with("lease.") {
            self.to_proper(0, Signal::KILL);
        }
    }

    /// Another host issues the next epoch of a session to itself, and is never heard of again; the one who was its owner goes on.
    pub(super) async fn overtake(&self, arrival: Arrival) {
        let session: Option<SessionId> = arrival.ids["session"].as_str().and_then(|id| id.parse().ok());
        if let Some(session) = session {
            // Where Postgres is away nobody takes anything over.
            let _ = self.stack.postgres.try_sql(&format!(
                "update session set epoch = epoch + 1, owner = gen_random_uuid(), host = gen_random_uuid(), held_until = null
                  where id = '{}' and owner is not null",
                session.uuid()
            ));
        }
        arrival.reply(Word::Go).await;
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
