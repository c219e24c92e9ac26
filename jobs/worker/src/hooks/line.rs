//! One HTTP/1.1 connection. Whoever uses it drives it: no task of its own, and no wake-up between two.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of an answer is read.
const READ: usize = 64 * 1024;
/// How much of it is kept.
const KEPT: usize = 256;
/// Room for headers; a receiver that sends more has failed.
const HEADERS: usize = 64 * 1024;

/// A connection.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    over: bool,
    used: Instant,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// How it began.
    pub start: Vec<u8>,
    /// Why not all of it was read.
    pub cut: Option<&'static str>,
}

/// Why nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// It closed, or did not speak HTTP.
    Broken,
    /// It took too long.
    TimedOut,
}

impl Line {
    /// Speaks HTTP over a stream.
    ///
    /// # Errors
    /// Hyper's.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().max_buf_size(HEADERS).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), over: false, used: Instant::now() })
    }

    /// Whether nothing says that it has ended.
    pub fn lives(&mut self) -> bool {
        if !self.over && (&mut self.driver).now_or_never().is_some() {
            self.over = true;
        }
        !self.over && !self.sender.is_closed()
    }

    /// For how long nothing was sent over it.
    pub fn idle(&self) -> Duration {
        self.used.elapsed()
    }

    /// Sends a request and reads what comes back, within a time. A status is an answer whatever becomes of the body.
    ///
    /// # Errors
    /// [`Silent`].
    pub async fn ask(&mut self, request: Request<Full<Bytes>>, within: Duration) -> Result<Answer, Silent> {
        let deadline = tokio::time::Instant::now() + within;
        let mut answer = None;
        let Self { sender, driver, over, .. } = self;
        let asking = ask(sender, request, &mut answer);
        let outcome = tokio::time::timeout_at(deadline, driven(asking, driver, over)).await;
        self.used = Instant::now();
        let failed = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(())) => Some(Silent::Broken),
            Err(_) => Some(Silent::TimedOut),
        };
        match (answer, failed) {
            (Some(mut answer), failed) => {
                if let Some(why) = failed {
                    answer.cut = Some(if why == Silent::TimedOut { "body_timeout" } else { "body_broken" });
                }
                self.over |= answer.cut.is_some();
                Ok(answer)
            }
            (None, failed) => {
                self.over = true;
                Err(failed.unwrap_or(Silent::Broken))
            }
        }
    }
}

/// Runs `asking` while it drives the connection. One that ends may have left something to read.
async fn driven(
    asking: impl Future<Output = hyper::Result<()>>,
    driver: &mut Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    over: &mut bool,
) -> Result<(), ()> {
    let mut asking = std::pin::pin!(asking);
    if !*over {
        tokio::select! {
            biased;
            asked = &mut asking => return asked.map_err(drop),
            _ = driver => *over = true,
        }
    }
    asking.await.map_err(drop)
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>, answer: &mut Option<Answer>) -> hyper::Result<()> {
    let (head, mut body) = sender.send_request(request).await?.into_parts();
    let answer = answer.insert(Answer { status: head.status, headers: head.headers, start: Vec::new(), cut: None });
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        answer.start.extend_from_slice(&data[..data.len().min(KEPT - answer.start.len())]);
        if read > READ {
            answer.cut = Some("body_too_long");
            break;
        }
    }
    Ok(())
}
