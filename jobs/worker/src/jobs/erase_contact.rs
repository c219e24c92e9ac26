//! `eraseContact`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use contract::{
    Command, EraseContact, ErasedCount, ErasedStore, Fact, JobId, JobResult, JobState, Outcome, Progress, Remainder, Timestamp,
    event::{ContactErasedBody, ErasureFact},
};
use queue::events::AS_READ;
use serde::{Deserialize, Serialize};
use store::{
    background_jobs::{self, Begun, Ending},
    ends::{self, QueuedEnd},
    erasures::{self, Person, Scope, sweep},
    lane_jobs::LaneJob,
};
use uuid::Uuid;

use super::{Step, export};
use crate::tasks::{Failed, Tools};

/// Rows of one statement.
const BATCH: i64 = 1000;
/// Numbers of the log that one statement looks at.
const WINDOW: i64 = 2000;
/// How long a job that has been started may take to tell what became of it.
const OUTCOME_WITHIN: chrono::TimeDelta = chrono::TimeDelta::minutes(3);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What lies between looking at what was read and writing it to a connection.
const MARGIN: Duration = Duration::from_secs(1);

/// What an erasure that is gone on with has to know. It holds names, and goes with the job's end.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    names: Vec<String>,
    chats: Vec<Uuid>,
    until: Option<DateTime<Utc>>,
    /// Jobs that had not ended for good at that moment.
    late: Vec<JobId>,
    /// The log is done up to here.
    log_at: Option<i64>,
    /// And was at this moment.
    emptied_at: Option<DateTime<Utc>>,
    counts: BTreeMap<ErasedStore, u64>,
}

impl Memory {
    fn count(&mut self, store: ErasedStore, more: u64) {
        *self.counts.entry(store).or_default() += more;
    }
}

/// An erasure under way.
struct Work<'a> {
    tools: &'a Tools,
    begun: &'a Begun,
    scope: Scope,
    memory: Memory,
    progress: Progress,
}

/// Erases: first the moment is marked and names go, then jobs end, then rows go, the log last, because ends of jobs are told in it.
pub async fn run(tools: &Tools, begun: &Begun, asked: &EraseContact) -> Result<Step, Failed> {
    let memory = begun.memory.clone().and_then(|m| serde_json::from_value(m).ok()).unwrap_or_default();
    let scope = Scope { tenant: begun.claim.tenant(), session: asked.session };
    let mut work = Work { tools, begun, scope, memory, progress: Progress { done: 0, total: 1 } };
    let until = match work.memory.until {
        Some(until) => until,
        None => match work.begin(asked).await? {
            Some(until) => until,
            None => return Ok(Step::Lost),
        },
    };
    // Somebody who is heard of again may have been merged meanwhile: what moved with that is looked for there.
    let chats = erasures::with_survivors(&tools.pool, scope.tenant, &work.memory.chats).await?;
    let person = Person { names: work.memory.names.clone(), chats };
    let erasure = sweep::Erasure { scope, person, until };
    work.forget_names(&erasure).await?;
    if !work.end_jobs(&erasure).await? {
        return Ok(Step::Wait(LOOK_EVERY));
    }
    if !(work.rows(&erasure).await? && work.exports(&erasure).await? && work.events(&erasure).await?) {
        return Ok(Step::Lost);
    }
    // Once it is said to be done, nobody tells any more what was read before.
    if let Some(left) = work.told_as_read().await? {
        return Ok(Step::Wait(left));
    }
    work.answers(&erasure).await?;
    Ok(Step::Done(Box::new(work.ending(asked, until).await?)))
}

impl Work<'_> {
    /// Says how far it has come. `false`: another does it by now.
    async fn note(&self) -> Result<bool, Failed> {
        let memory = serde_json::json!(self.memory);
        Ok(background_jobs::note(&self.tools.pool, &self.begun.claim, self.progress, Some(&memory)).await?)
    }

    /// Finds out who it is, and parts before from after. A name that was learned meanwhile is looked for again, until there is none: from the
    /// mark on nothing is learned any more. All names are remembered before the first is taken away, because one leads to the others. `None`:
    /// another does it by now.
    async fn begin(&mut self, asked: &EraseContact) -> Result<Option<DateTime<Utc>>, Failed> {
        let (pool, job) = (&self.tools.pool, self.begun.claim.job());
        let mut named = Person::named(asked.address.as_ref(), asked.chat);
        named.names.append(&mut self.memory.names);
        named.chats.append(&mut self.memory.chats);
        let mut person = erasures::find(pool, self.scope, named).await?;
        let mut late = BTreeSet::new();
        let until = loop {
            // What ends while the moment is marked is told after it: known from before, or as one that ended since.
            let before = sweep::Erasure { scope: self.scope, person: person.clone(), until: store::snapshot::now(pool).await? };
            late.extend(sweep::open_jobs(pool, &before).await?.into_iter().map(|job| job.id));
            let until = erasures::begin(pool, self.scope, job, &person).await?;
            let again = erasures::find(pool, self.scope, person.clone()).await?;
            if again == person {
                break until;
            }
            person = again;
        };
        let erasure = sweep::Erasure { scope: self.scope, person, until };
        late.extend(sweep::open_jobs(pool, &erasure).await?.into_iter().map(|job| job.id));
        self.memory.late = late.into_iter().collect();
        (self.memory.names, self.memory.chats, self.memory.until) = (erasure.person.names, erasure.person.chats, Some(until));
        Ok(self.note().await?.then_some(until))
    }

    async fn forget_names(&mut self, erasure: &sweep::Erasure) -> Result<(), Failed> {
        let forgotten = erasures::forget_names(&self.tools.pool, self.scope, self.begun.claim.job(), &erasure.person).await?;
        self.memory.count(ErasedStore::Chats, forgotten.chats.unsigned_abs());
        self.memory.count(ErasedStore::Contacts, forgotten.contacts.unsigned_abs());
        self.memory.count(ErasedStore::Memberships, forgotten.members.unsigned_abs());
        Ok(())
    }

    /// Withdraws what waits, and waits for what runs: what becomes of it is for its caller to know. `false`: not yet.
    async fn end_jobs(&mut self, erasure: &sweep::Erasure) -> Result<bool, Failed> {
        let now = store::snapshot::now(&self.tools.pool).await?;
        let mut running = false;
        for job in sweep::open_jobs(&self.tools.pool, erasure).await? {
            match job.state {
                JobState::Queued => {
                    let ended = self.end(&job, QueuedEnd::ContactErased).await?;
                    self.memory.count(ErasedStore::QueuedJobs, u64::from(ended));
                    // One that was started at this moment is looked at again.
                    running |= !ended;
                }
                JobState::Running if now - erasure.until > OUTCOME_WITHIN => running |= !self.end(&job, QueuedEnd::ErasedMeanwhile).await?,
                JobState::Running => running = true,
                JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown => {}
            }
        }
        self.note().await?;
        Ok(!running)
    }

    async fn end(&self, job: &LaneJob, end: QueuedEnd) -> Result<bool, Failed> {
        let events = ends::end_queued(&self.tools.pool, job, end).await?;
        if let Err(why) = queue::events::publish(&self.tools.pool, &self.tools.redis, job.tenant, &events).await {
            tracing::debug!(cause = %why, job = %job.id, "ended and not published: the reconciler will");
        }
        Ok(!events.is_empty())
    }

    /// Messages and jobs. `false`: another does it by now.
    async fn rows(&mut self, erasure: &sweep::Erasure) -> Result<bool, Failed> {
        loop {
            let gone = sweep::messages(&self.tools.pool, erasure, BATCH).await?;
            self.memory.count(ErasedStore::Messages, gone);
            self.progress.done += gone;
            self.progress.total = self.progress.total.max(self.progress.done + 1);
            if !self.note().await? {
                return Ok(false);
            }
            if gone == 0 {
                break;
            }
        }
        let keys = sweep::keys(&self.tools.pool, erasure).await?;
        self.memory.count(ErasedStore::IdempotencyKeys, keys);
        sweep::requests(&self.tools.pool, erasure).await?;
        loop {
            let emptied = sweep::jobs(&self.tools.pool, erasure, BATCH).await?;
            self.memory.count(ErasedStore::Jobs, emptied);
            if emptied == 0 {
                return self.note().await;
            }
        }
    }

    /// Exports, now that none can be made any more of what is gone. `false`: another does it by now.
    async fn exports(&mut self, erasure: &sweep::Erasure) -> Result<bool, Failed> {
        let Scope { tenant, session } = self.scope;
        let objects = store::exports::remove_of_person(&self.tools.pool, tenant, session, &erasure.person.chats).await?;
        for object in &objects {
            export::forget(self.tools, object).await;
        }
        self.memory.count(ErasedStore::Exports, objects.len() as u64);
        self.note().await
    }

    /// The log from its beginning to its end of now, then what was made of it. `false`: another does it by now.
    async fn events(&mut self, erasure: &sweep::Erasure) -> Result<bool, Failed> {
        let (pool, tenant) = (&self.tools.pool, self.scope.tenant);
        let (floor, head) = sweep::log_bounds(pool, tenant).await?;
        let mut after = self.memory.log_at.unwrap_or(floor).max(floor);
        let start = self.progress.done;
        while after < head {
            let up_to = head.min(after + WINDOW);
            let gone = sweep::events(pool, erasure, &self.memory.late, (after, up_to)).await?;
            if gone.events > 0 {
                self.memory.emptied_at = None;
            }
            self.memory.count(ErasedStore::Events, gone.events.unsigned_abs());
            self.memory.count(ErasedStore::WebhookDeliveries, gone.answers.unsigned_abs());
            (after, self.memory.log_at) = (up_to, Some(up_to));
            self.progress = Progress { done: start + (up_to - floor).unsigned_abs(), total: start + (head - floor).unsigned_abs() };
            if !self.note().await? {
                return Ok(false);
            }
        }
        let _ = contract::fault_point!("worker.erase.streams", "job" => self.begun.claim.job());
        let entries = queue::erasure::forget(pool, &self.tools.redis, tenant, head).await?;
        self.memory.count(ErasedStore::StreamEntries, entries);
        self.note().await
    }

    /// For how long what was read of the log before it was emptied may still be told. `None`: no longer.
    async fn told_as_read(&mut self) -> Result<Option<Duration>, Failed> {
        let now = store::snapshot::now(&self.tools.pool).await?;
        let emptied = *self.memory.emptied_at.get_or_insert(now);
        self.note().await?;
        Ok((AS_READ + MARGIN).checked_sub((now - emptied).to_std().unwrap_or_default()).filter(|left| !left.is_zero()))
    }

    /// What receivers answered to events that the log has no longer, and to those that they were told meanwhile.
    async fn answers(&mut self, erasure: &sweep::Erasure) -> Result<(), Failed> {
        let pool = &self.tools.pool;
        let (floor, _) = sweep::log_bounds(pool, self.scope.tenant).await?;
        loop {
            let meanwhile = sweep::answers_meanwhile(pool, erasure, BATCH).await?;
            let below = sweep::answers_below(pool, erasure, floor, BATCH).await?;
            self.memory.count(ErasedStore::WebhookDeliveries, meanwhile + below);
            if meanwhile + below == 0 {
                return Ok(());
            }
        }
    }

    async fn ending(self, asked: &EraseContact, until: DateTime<Utc>) -> Result<Ending, Failed> {
        let count = |store: &ErasedStore| self.memory.counts.get(store).copied().unwrap_or_default();
        let erased = ErasedStore::ALL.iter().map(|store| ErasedCount { store: *store, count: count(store) }).collect();
        let mut chats = erasures::by_session(&self.tools.pool, self.scope.tenant, &self.memory.chats).await?;
        if chats.is_empty() {
            chats.push((self.begun.job.session, Vec::new()));
        }
        let (job, at) = (self.begun.claim.job(), Timestamp(until));
        let fact = |chats| Fact::ContactErased(ContactErasedBody { erasure: ErasureFact { job, until: at, chats } });
        let result = JobResult::Erased { until: Timestamp(until), erased, kept: Remainder::all() };
        Ok(Ending {
            outcome: Outcome::Succeeded { evidence: None, result: Some(result) },
            told: chats.into_iter().map(|(session, chats)| (session, fact(chats))).collect(),
            command: Some(Command::EraseContact(EraseContact { session: asked.session, address: None, chat: None })),
        })
    }
}
