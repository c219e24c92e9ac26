//! The lanes as an apalis backend: a worker runs the handler for each entry, and what the handler answers is settled by a guard.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{WorkerBuilder, WorkerContext};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::Task,
};
use contract::{JobId, Lane, SessionId};
use futures::{FutureExt, future::BoxFuture};
use store::lane_jobs::LaneJob;
use tokio::sync::mpsc;

use crate::{Hub, lease::Owned};

/// A job of a lane, on its way to the handler. A command that does not decode is handed over as well: the handler records that.
pub struct Entry {
    /// For which session.
    pub session: SessionId,
    /// What to do.
    pub job: Arc<LaneJob>,
    owed: Option<Owed>,
}

impl Entry {
    pub(crate) fn new(job: LaneJob, owed: Owed) -> Self {
        Self { session: job.session, job: Arc::new(job), owed: Some(owed) }
    }
}

/// What the handler says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The job has ended: its entry goes, the next is taken.
    Ack,
    /// It has not: the entry stays and is looked at again shortly, if its lane is still open then.
    Again,
}

/// The end of an attempt, owed to its lane. Given whatever happens to the handler: an answer, a panic, a timeout, the worker's end.
pub(crate) struct Owed {
    hub: Arc<Hub>,
    owned: Arc<Owned>,
    lane: Lane,
    job: JobId,
    done: Done,
}

impl Owed {
    pub(crate) fn new(hub: Arc<Hub>, owned: Arc<Owned>, lane: Lane, job: JobId) -> Self {
        Self { hub, owned, lane, job, done: Done::Again }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.hub.settle(self.owned.clone(), self.lane, self.job, self.done);
    }
}

/// The lanes of one hub.
pub struct LaneBackend {
    pub(crate) rx: mpsc::UnboundedReceiver<Task<Entry>>,
}

impl Backend for LaneBackend {
    type Task = Task<Entry>;
    type Error = std::convert::Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Task<Entry>, Self::Error>>> {
        self.rx.poll_recv(cx).map(|task| task.map(Ok))
    }
    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for LaneBackend {
    type Args = Entry;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = SettleLayer;

    fn config(&self) -> &() {
        &()
    }
    fn middleware(&mut self, _: &mut WorkerContext) -> SettleLayer {
        SettleLayer
    }
}

/// Settles each attempt by what the service below answers.
#[derive(Debug, Clone, Copy)]
pub struct SettleLayer;

impl<S> tower::Layer<S> for SettleLayer {
    type Service = Settle<S>;
    fn layer(&self, inner: S) -> Settle<S> {
        Settle(inner)
    }
}

/// The service of [`SettleLayer`].
#[derive(Debug, Clone)]
pub struct Settle<S>(S);

impl<S> tower::Service<Task<Entry>> for Settle<S>
where
    S: tower::Service<Task<Entry>, Response = Done>,
    S::Future: Send + 'static,
    S::Error: fmt::Debug,
{
    type Response = Done;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Done, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, mut task: Task<Entry>) -> Self::Future {
        let owed = task.args.owed.take();
        let attempt = self.0.call(task);
        async move {
            let answer = attempt.await;
            if let (Some(mut owed), Ok(done)) = (owed, &answer) {
                owed.done = *done;
            }
            answer
        }
        .boxed()
    }
}

/// The handler as a service that outlives its panics and its hanging: the worker and the other sessions must.
struct Handler<F> {
    handler: Arc<F>,
    within: Duration,
}

impl<F, R> tower::Service<Task<Entry>> for Handler<F>
where
    F: Fn(SessionId, Arc<LaneJob>) -> R + Send + Sync + 'static,
    R: Future<Output = Done> + Send + 'static,
{
    type Response = Done;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Done, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, task: Task<Entry>) -> Self::Future {
        let (handler, within, (entry, _)) = (self.handler.clone(), self.within, task.take());
        let (session, job) = (entry.session, entry.job.id);
        let attempt = AssertUnwindSafe(async move { handler(entry.session, entry.job).await }).catch_unwind();
        async move {
            let (counter, message) = match tokio::time::timeout(within, attempt).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(_)) => ("zaguan_handler_panics", "the handler panicked"),
                Err(_) => ("zaguan_handler_timeouts", "the handler did not come to an end"),
            };
            metrics::counter!(counter).increment(1);
            tracing::error!(%session, %job, message);
            Ok(Done::Again)
        }
        .boxed()
    }
}

impl Hub {
    /// Runs the worker: calls `handler` for each entry, for all sessions beside one another, in order within a lane. A call that panics, or
    /// lasts longer than [`contract::Timings::attempt_within`], is dropped and made again. Never ends by itself; dropping it puts back what runs.
    pub async fn worker<F, R>(&self, backend: LaneBackend, name: String, handler: F)
    where
        F: Fn(SessionId, Arc<LaneJob>) -> R + Send + Sync + 'static,
        R: Future<Output = Done> + Send + 'static,
    {
        let worker =
            WorkerBuilder::new(name).backend(backend).build(Handler { handler: Arc::new(handler), within: self.timings.attempt_within() });
        if let Err(error) = worker.run().await {
            tracing::error!(%error, "the worker ended");
        }
    }
}
