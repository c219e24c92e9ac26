//! AWS Lambda's Runtime API as a function sees it: it asks for the next event and posts an answer. One function, one environment.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    Error,
    process::Process,
    services::{Api, Shared},
};

type Outcome = Result<Bytes, Bytes>;
type Invocation = (Value, oneshot::Sender<Outcome>);

/// What the emulator knows.
struct Environment {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    running: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
}

/// The emulator.
pub struct RuntimeApi {
    address: SocketAddr,
    events: mpsc::UnboundedSender<Invocation>,
    _server: tokio::task::JoinHandle<()>,
}

impl RuntimeApi {
    /// Listens on a free port.
    ///
    /// # Errors
    /// The system's.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (events, inbox) = mpsc::unbounded_channel();
        let environment = Arc::new(Environment { events: inbox.into(), running: Mutex::default() });
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let environment = environment.clone();
                tokio::spawn(async move {
                    let serve = service_fn(move |request| {
                        let environment = environment.clone();
                        async move { environment.serve(request).await }
                    });
                    // A function that was killed ends its connection as it likes.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Ok(Self { address, events, _server: server })
    }

    /// `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One invocation with the bytes that the function answers, in whatever form. `Err`: what it posted as an error.
    pub async fn raw(&self, event: Value, within: Duration) -> Outcome {
        let (answer, answered) = oneshot::channel();
        self.events.send((event, answer)).expect("the emulator runs");
        tokio::time::timeout(within, answered).await.expect("the function answers in time").expect("the emulator runs")
    }

    /// One invocation that must succeed.
    pub async fn invoke(&self, event: Value, within: Duration) -> Value {
        let answer =
            self.raw(event, within).await.unwrap_or_else(|error| panic!("the function failed: {}", String::from_utf8_lossy(&error)));
        serde_json::from_slice(&answer).expect("an answer is JSON")
    }
}

impl Environment {
    async fn serve(&self, request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        let answer = match parts.as_slice() {
            ["runtime", "invocation", "next"] => self.next().await,
            ["runtime", "invocation", id, how @ ("response" | "error")] => {
                let body = request.into_body().collect().await?.to_bytes();
                let waiting = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(*id);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(if *how == "response" { Ok(body) } else { Err(body) });
                }
                plain(StatusCode::ACCEPTED)
            }
            ["runtime", "init", "error"] => plain(StatusCode::ACCEPTED),
            _ => plain(StatusCode::NOT_FOUND),
        };
        Ok(answer)
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        let Some((event, answer)) = self.events.lock().await.recv().await else { return plain(StatusCode::GONE) };
        let id = crate::random_word(16);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), answer);
        let soon = std::time::SystemTime::now() + Duration::from_secs(60);
        let deadline = soon.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", id)
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:zaguan-api");
        response.body(Full::from(event.to_string())).expect("the headers are right")
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(json!({"status": "OK"}).to_string()));
    *response.status_mut() = status;
    response
}

/// The API as a Lambda function.
pub struct Function {
    /// Its process: SIGSTOP is the freeze.
    pub process: Process,
    /// Who invokes it.
    pub runtime: RuntimeApi,
}

impl Function {
    /// Starts one with the keys of an API, so that tokens of the one are good at the other. `response`: `buffered` or `streaming`.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(shared: &Shared, api: &Api, name: &str, response: &str) -> Result<Self, Error> {
        let runtime = RuntimeApi::start().await?;
        let command = command(shared, api, &runtime.address().to_string(), response);
        Ok(Self { process: Process::start(name, &shared.logs, command)?, runtime })
    }
}

fn command(shared: &Shared, api: &Api, runtime: &str, response: &str) -> Command {
    let mut command = api.command(shared);
    command.env("AWS_LAMBDA_RUNTIME_API", runtime).env("AWS_LAMBDA_FUNCTION_NAME", "zaguan-api");
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    command.env("LAMBDA_RESPONSE", response).env("DATABASE_POOL", "2");
    command
}

/// The API as a function of the emulator that cargo-lambda brings (`cargo-lambda` is on the PATH of `make test`).
pub struct Emulated {
    /// Where the emulator listens: `http://…`.
    pub url: String,
    _emulator: Process,
    _function: Process,
}

impl Emulated {
    /// Starts the emulator as infra/README.md says, waits until it listens, and starts the function.
    ///
    /// # Errors
    /// What kept either from starting.
    pub async fn start(shared: &Shared, api: &Api) -> Result<Self, Error> {
        let port = crate::ports::free_port().to_string();
        let mut watch = Command::new("cargo-lambda");
        watch.args(["lambda", "watch", "--only-lambda-apis", "-A", "127.0.0.1", "-P", &port]);
        let emulator = Process::start("cargo-lambda", &shared.logs, watch)?;
        let address = format!("127.0.0.1:{port}");
        crate::until_true("the emulator to listen", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(&address).await.is_ok()
        })
        .await;
        let function = command(shared, api, &format!("http://{address}/.rt/zaguan-api"), "buffered");
        let function = Process::start("emulated", &shared.logs, function)?;
        Ok(Self { url: format!("http://{address}"), _emulator: emulator, _function: function })
    }
}
