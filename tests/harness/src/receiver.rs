//! An endpoint that webhooks are sent to: it keeps what comes, and answers as a test wants.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

/// A request that came.
#[derive(Debug, Clone)]
pub struct Got {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub raw: Bytes,
    /// The same, read.
    pub body: Value,
    /// When.
    pub at: Instant,
}

impl Got {
    /// A header, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    /// The event's place in the log; 0 where it has none.
    pub fn seq(&self) -> i64 {
        self.body["seq"].as_i64().unwrap_or_default()
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// With a status.
    Status(u16),
    /// With a status, headers and a body.
    Full(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// With a status, after so long.
    Late(Duration, u16),
    /// Never.
    Never,
}

type Answers = Arc<dyn Fn(&Got) -> Reply + Send + Sync>;

struct Shared {
    connections: AtomicUsize,
    got: Mutex<Vec<Got>>,
    answers: Mutex<Answers>,
}

/// The endpoint. It ends, with its connections, when dropped.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.down();
    }
}

impl Receiver {
    /// One that takes everything, on a port of 127.0.0.1.
    pub async fn start() -> Self {
        let answers: Answers = Arc::new(|_| Reply::Status(200));
        let shared = Arc::new(Shared { connections: AtomicUsize::new(0), got: Mutex::default(), answers: Mutex::new(answers) });
        let mut receiver = Self { port: crate::free_port(), shared, server: None };
        receiver.up().await;
        receiver
    }

    /// Where it listens.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How it answers from now on.
    pub fn answers(&self, how: impl Fn(&Got) -> Reply + Send + Sync + 'static) {
        *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(how);
    }

    /// Nobody listens any more; connections break.
    pub fn down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    /// Listens again.
    pub async fn up(&mut self) {
        let (shared, port) = (self.shared.clone(), self.port);
        // What listened before may not be gone yet.
        let listener =
            crate::until("the receiver's port", Duration::from_secs(5), || async { TcpListener::bind(("127.0.0.1", port)).await.ok() })
                .await;
        self.server = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                connections.spawn(async move {
                    let serve = service_fn(move |request| take(shared.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        }));
    }

    /// What has come so far.
    pub fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The `seq` of each, as they came.
    pub fn seqs(&self) -> Vec<i64> {
        self.shared.got.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Got::seq).collect()
    }

    /// Waits until `enough` says so of what has come.
    pub async fn until(&self, what: &str, within: Duration, enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        crate::until(what, within, || {
            let got = self.got();
            let enough = enough(&got).then_some(got);
            async move { enough }
        })
        .await
    }
}

async fn take(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = serde_json::from_slice(&raw).unwrap_or_default();
    let got = Got { path: head.uri.path().to_owned(), headers: head.headers, raw, body, at: Instant::now() };
    let answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let reply = answers(&got);
    shared.got.lock().unwrap_or_else(PoisonError::into_inner).push(got);
    let (status, headers, body) = match reply {
        Reply::Status(status) => (status, Vec::new(), Vec::new()),
        Reply::Full(status, headers, body) => (status, headers, body),
        Reply::Late(after, status) => {
            tokio::time::sleep(after).await;
            (status, Vec::new(), Vec::new())
        }
        Reply::Never => std::future::pending().await,
    };
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(name, value);
    }
    Ok(answer.body(Full::new(body.into())).expect("the test's answer is one"))
}
