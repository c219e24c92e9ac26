//! The lanes as an apalis backend: one worker a host, for all its sessions.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use apalis::prelude::{WorkerBuilder, WorkerContext};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::Task,
};
use contract::{JobId, Lane, SessionId};
use store::lane_jobs::LaneJob;
use tokio::sync::mpsc;
use tower::layer::util::Identity;

use crate::Hub;

/// What an attempt answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The job has ended: its entry goes.
    Ack,
    /// It has not: the entry stays, and is looked at again.
    Again,
}

/// A job to run. Dropping it without a word (a panic, a cancelled task) ends the attempt like an error.
pub struct Entry {
    /// For which session.
    pub session: SessionId,
    /// What.
    pub job: Arc<LaneJob>,
    ticket: Ticket,
}

struct Ticket {
    hub: Arc<Hub>,
    lane: Lane,
    session: SessionId,
    job: JobId,
    done: Done,
}

impl Ticket {
    fn end(mut self, done: Done) {
        self.done = done;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub.finished(self.session, self.lane, self.job, self.done);
    }
}

impl Entry {
    pub(crate) fn new(hub: Arc<Hub>, job: LaneJob) -> Self {
        let ticket = Ticket { hub, lane: job.lane, session: job.session, job: job.id, done: Done::Again };
        Self { session: job.session, job: Arc::new(job), ticket }
    }
}

/// The stream of jobs that the hub has taken.
pub struct LaneBackend(pub(crate) mpsc::UnboundedReceiver<Task<Entry>>);

/// The hub is gone: the worker ends.
#[derive(Debug, thiserror::Error)]
#[error("the hub has ended")]
pub struct HubEnded;

impl Backend for LaneBackend {
    type Task = Task<Entry>;
    type Error = HubEnded;
    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), HubEnded>> {
        Poll::Ready(Ok(()))
    }
    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Task<Entry>, HubEnded>>> {
        self.0.poll_recv(cx).map(|task| task.map(Ok))
    }
    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), HubEnded>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for LaneBackend {
    type Args = Entry;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;
    fn config(&self) -> &() {
        &()
    }
    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

/// Runs the worker until the hub ends. The lanes bound what runs at once, so the worker has no limit of its own.
pub(crate) async fn work<H, F>(backend: LaneBackend, name: String, handler: H)
where
    H: Fn(SessionId, Arc<LaneJob>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Done> + Send + 'static,
{
    let handle = move |entry: Entry| {
        let handler = handler.clone();
        let Entry { session, job, ticket } = entry;
        async move {
            ticket.end(catch(handler(session, job)).await);
            Ok::<(), std::convert::Infallible>(())
        }
    };
    if let Err(error) = WorkerBuilder::new(name).backend(backend).build(handle).run().await {
        tracing::error!(%error, "the worker ended");
    }
}

/// A panic ends this attempt and not the worker.
async fn catch(attempt: impl Future<Output = Done> + Send + 'static) -> Done {
    use futures::FutureExt;
    match std::panic::AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(done) => done,
        Err(_) => {
            tracing::error!("a job's handler panicked");
            Done::Again
        }
    }
}
