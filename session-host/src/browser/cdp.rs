//! A small client for the DevTools protocol: numbered calls with deadlines, one bounded queue of events.
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Larger than the largest answer we ask for.
const MAX_MESSAGE: usize = 64 << 20;
/// Events waiting for the keeper of the page. The page numbers its own, so what does not fit shows as a gap and is asked for again.
const EVENT_QUEUE: usize = 1024;
/// With `Runtime.enable` the page's own console comes along. It is dropped unparsed.
const CONSOLE: &str = r#"{"method":"Runtime.consoleAPICalled""#;

/// Why a protocol call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdpError {
    #[error("the DevTools socket cannot be opened")]
    Connect(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("{method}: {message}")]
    Protocol { method: &'static str, message: String },
    #[error("{0}: deadline passed")]
    Deadline(&'static str),
    #[error("{0}: the DevTools socket is closed")]
    Closed(&'static str),
    #[error("{0}: the renderer crashed")]
    Crashed(&'static str),
}

/// One message from the browser that answers no call.
#[derive(Debug)]
pub(crate) struct CdpEvent {
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) session: Option<String>,
}

enum Reply {
    Done(Value),
    Refused(String),
    Crashed,
}

type Waiting = HashMap<u64, (Option<String>, oneshot::Sender<Reply>)>;

#[derive(Default)]
struct Pending(Mutex<Waiting>);

impl Pending {
    fn map(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A crashed renderer never answers (`Page.crash` itself does not): wake whoever waits for that session.
    fn crashed(&self, session: Option<&str>) {
        let mut map = self.map();
        let dead: Vec<u64> = map.iter().filter(|(_, (s, _))| s.as_deref() == session).map(|(id, _)| *id).collect();
        for id in dead {
            if let Some((_, waiter)) = map.remove(&id) {
                let _ = waiter.send(Reply::Crashed);
            }
        }
    }
}

/// Takes the entry out when the caller gives up, however it does so.
struct Entry<'a>(&'a Pending, u64);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.map().remove(&self.1);
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "sessionId")]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Value>,
}

fn value(raw: Option<&RawValue>) -> Value {
    raw.and_then(|r| serde_json::from_str(r.get()).ok()).unwrap_or(Value::Null)
}

/// A connection to one browser. Clones share it; it ends when the socket does or after [`Cdp::hang_up`].
#[derive(Clone)]
pub(crate) struct Cdp {
    out: mpsc::Sender<String>,
    pending: Arc<Pending>,
    next: Arc<AtomicU64>,
    hang_up: CancellationToken,
}

impl Cdp {
    /// Opens the socket. The event channel closes when the socket does; all waiting calls then end with [`CdpError::Closed`].
    pub(crate) async fn connect(url: &str, within: Duration, tasks: &TaskTracker) -> Result<(Self, mpsc::Receiver<CdpEvent>), CdpError> {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        // A browser may take the connection and say nothing.
        let opened = tokio::time::timeout(within, connect_async_with_config(url, Some(config), true)).await;
        let (socket, _) = opened.map_err(|_| CdpError::Deadline("connect"))?.map_err(|e| CdpError::Connect(Box::new(e)))?;
        let (sink, stream) = socket.split();
        let (out, outgoing) = mpsc::channel::<String>(256);
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let cdp = Self { out, pending: Arc::default(), next: Arc::default(), hang_up: CancellationToken::new() };
        tasks.spawn(write(sink, outgoing, cdp.hang_up.clone()));
        tasks.spawn(read(stream, events, cdp.pending.clone(), cdp.hang_up.clone()));
        Ok((cdp, receiver))
    }

    /// Ends the connection from our side.
    pub(crate) fn hang_up(&self) {
        self.hang_up.cancel();
    }

    /// One call. Cancelling it, or its deadline, does not undo what the browser was asked to do.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        params: Value,
        session: Option<&str>,
        deadline: Duration,
    ) -> Result<Value, CdpError> {
        let id = self.next.fetch_add(1, Relaxed) + 1;
        let (tx, rx) = oneshot::channel();
        self.pending.map().insert(id, (session.map(str::to_owned), tx));
        let _entry = Entry(&self.pending, id);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let work = async {
            self.out.send(message.to_string()).await.map_err(|_| CdpError::Closed(method))?;
            // The reader may have ended between the insert above and its last clearing of the map.
            tokio::select! {
                reply = rx => match reply {
                    Ok(Reply::Done(v)) => Ok(v),
                    Ok(Reply::Refused(message)) => Err(CdpError::Protocol { method, message }),
                    Ok(Reply::Crashed) => Err(CdpError::Crashed(method)),
                    Err(_) => Err(CdpError::Closed(method)),
                },
                () = self.hang_up.cancelled() => Err(CdpError::Closed(method)),
            }
        };
        tokio::time::timeout(deadline, work).await.unwrap_or(Err(CdpError::Deadline(method)))
    }
}

async fn write(mut sink: futures::stream::SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<String>, hang_up: CancellationToken) {
    loop {
        let text = tokio::select! {
            text = outgoing.recv() => text,
            () = hang_up.cancelled() => None,
        };
        let Some(text) = text else { break };
        if sink.send(Message::text(text)).await.is_err() {
            break;
        }
    }
    let _ = sink.close().await;
}

async fn read(
    mut stream: futures::stream::SplitStream<Socket>,
    events: mpsc::Sender<CdpEvent>,
    pending: Arc<Pending>,
    hang_up: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = hang_up.cancelled() => None,
        };
        let Some(Ok(message)) = message else { break };
        if let Message::Text(text) = message
            && !text.starts_with(CONSOLE)
        {
            dispatch(&text, &events, &pending);
        }
    }
    hang_up.cancel(); // whoever inserts a call from here on learns at once that nobody reads
    pending.map().clear();
}

/// Never waits: neither for a caller nor for the keeper of the page.
fn dispatch(text: &str, events: &mpsc::Sender<CdpEvent>, pending: &Pending) {
    let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return };
    if let Some(id) = frame.id {
        let Some((_, waiter)) = pending.map().remove(&id) else { return };
        let reply = match frame.error {
            Some(e) => Reply::Refused(e["message"].as_str().unwrap_or("refused without a message").to_owned()),
            None => Reply::Done(value(frame.result)),
        };
        let _ = waiter.send(reply);
    } else if let Some(method) = frame.method {
        let session = frame.session.map(Cow::into_owned);
        if method == "Inspector.targetCrashed" {
            pending.crashed(session.as_deref());
        }
        let _ = events.try_send(CdpEvent { method: method.into_owned(), params: value(frame.params), session });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_that_takes_the_connection_and_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/devtools/browser/x", silent.local_addr().unwrap());
        let tasks = TaskTracker::new();
        let connected = Cdp::connect(&url, Duration::from_millis(100), &tasks);
        let connected = tokio::time::timeout(Duration::from_secs(5), connected).await.unwrap();
        assert!(matches!(connected, Err(CdpError::Deadline("connect"))));
    }
}
