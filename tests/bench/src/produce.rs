//! Producers of the same jobs: in this process, or BullMQ's in a process of its own. Each tells when it began to push which.

use std::{path::Path, sync::Arc, time::Duration};

use contract::{JobId, Lane, SessionId};
use futures::{StreamExt, TryStreamExt, stream};
use harness::Error;
use serde_json::json;
use store::accept::Waiting;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    clock,
    consume::{What, raw_key},
    stores::Stores,
};

const WITHIN: Duration = Duration::from_secs(120);

/// A job, and when it was pushed, by [`clock::now`].
pub type Pushed = (String, u64);

/// Pushes jobs.
pub struct Producer {
    stores: Arc<Stores>,
    kind: Kind,
    made: usize,
}

enum Kind {
    Ours(What, Arc<Vec<SessionId>>),
    BullMq(String),
}

impl Producer {
    /// Ours, or that of raw Redis, over so many lanes.
    pub fn ours(stores: &Arc<Stores>, what: What, sessions: Vec<SessionId>) -> Self {
        Self { stores: stores.clone(), kind: Kind::Ours(what, sessions.into()), made: 0 }
    }

    /// BullMQ's.
    pub fn bullmq(stores: &Arc<Stores>, program: &Path) -> Self {
        Self { stores: stores.clone(), kind: Kind::BullMq(program.display().to_string()), made: 0 }
    }

    /// As many as there are to be, as fast as it can.
    ///
    /// # Errors
    /// The stores'.
    pub async fn at_once(&mut self, count: usize) -> Result<(), Error> {
        match &self.kind {
            Kind::BullMq(program) => drop(self.by_node(program, count, Duration::ZERO).await?),
            Kind::Ours(what, sessions) => {
                let pushes = (0..count).map(|n| push(self.stores.clone(), *what, sessions.clone(), n));
                stream::iter(pushes).buffered(16).try_for_each(|_| async { Ok(()) }).await?;
            }
        }
        self.made += count;
        Ok(())
    }

    /// One after the other with a pause in between, whether the one before has been answered or not.
    ///
    /// # Errors
    /// The stores'.
    pub async fn paced(&mut self, count: usize, pause: Duration) -> Result<Vec<Pushed>, Error> {
        let first = self.made;
        self.made += count;
        let (what, sessions) = match &self.kind {
            Kind::BullMq(program) => return self.by_node(program, count, pause).await,
            Kind::Ours(what, sessions) => (*what, sessions.clone()),
        };
        let mut every = tokio::time::interval(pause);
        every.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut pushing = JoinSet::new();
        for n in 0..count {
            every.tick().await;
            pushing.spawn(push(self.stores.clone(), what, sessions.clone(), first + n));
        }
        pushing.join_all().await.into_iter().collect()
    }

    async fn by_node(&self, program: &str, count: usize, pause: Duration) -> Result<Vec<Pushed>, Error> {
        let numbers = [self.made.to_string(), count.to_string(), pause.as_micros().to_string()];
        let mut arguments = vec![program.to_owned(), port(&self.stores.server.url()), "produce".to_owned()];
        arguments.extend(numbers);
        let mut producer = self.stores.node("producer", &arguments)?;
        producer.wait(WITHIN).await.ok_or("the producer does not end")?;
        let said = producer.log();
        serde_json::from_str(said.lines().last().unwrap_or_default()).map_err(|_| format!("the producer said: {said:.2000}").into())
    }
}

async fn push(stores: Arc<Stores>, what: What, sessions: Arc<Vec<SessionId>>, n: usize) -> Result<Pushed, Error> {
    let lane = n % sessions.len();
    let (session, at) = (sessions[lane], clock::now());
    let job = match what {
        What::Whole => {
            let job = stores.job(session);
            queue::accept_and_push(&stores.pool, &stores.redis, &job, None).await?;
            job.id
        }
        What::Lanes => {
            let job = JobId::new();
            let waiting = Waiting { job, session, lane: Lane::Write, position: i64::try_from(n)? };
            queue::lanes::push(&stores.redis, stores.tenant, &[waiting]).await?;
            job
        }
        What::Raw => {
            let job = JobId::new();
            let body = json!({"id": job.to_string(), "command": stores.job(session).command.encode()}).to_string();
            let mut redis = stores.raw.clone();
            redis::cmd("LPUSH").arg(raw_key(lane)).arg(body).exec_async(&mut redis).await?;
            job
        }
    };
    Ok((job.to_string(), at))
}

/// The port in a server's address.
pub fn port(url: &str) -> String {
    url.rsplit(':').next().unwrap_or_default().trim_end_matches('/').to_owned()
}
