//! A connection: packets in and out, and whether there is still somebody.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use uuid::Uuid;

use super::packet::{self, Packet};

/// The largest message that a client may send.
pub const MOST: usize = 64 * 1024;
/// What is read at once, kept for each connection.
const BUFFER: usize = 4 * 1024;
/// How long a client that is let go may take to hear why.
const PARTING: Duration = Duration::from_secs(5);

/// What comes from a client.
pub enum Heard {
    /// A packet.
    Packet(Packet),
    /// Something that is none.
    Nonsense,
    /// More than [`MOST`] at once.
    TooLarge,
    /// Nothing any more: it went, or it has been silent for too long.
    Gone,
}

/// The connection is broken.
pub struct Broken;

/// A connection and its heartbeat.
pub struct Line {
    ws: WebSocketStream<TokioIo<Upgraded>>,
    /// How often the client is asked whether it lives.
    every: Duration,
    /// How long it may take to answer, and how long anything may take to be written.
    within: Duration,
    ask_at: Instant,
    /// Since when it has been asked without having said anything.
    asked: Option<Instant>,
}

impl Line {
    /// Opens the protocol on a connection.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn open(io: Upgraded, every: Duration) -> Result<Self, Broken> {
        // Nothing is held back: what is written has been handed to the kernel when `say` returns.
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
        let config = config.max_message_size(Some(MOST)).max_frame_size(Some(MOST));
        let ws = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
        let within = every + Duration::from_secs(5);
        let mut line = Self { ws, every, within, ask_at: Instant::now() + every, asked: None };
        let sid = Uuid::new_v4().simple().to_string();
        line.say(packet::open(&sid, every.as_millis(), within.as_millis(), MOST)).await?;
        Ok(line)
    }

    /// What comes next. May be dropped and called again, if something is said in between.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let silent_at = self.asked.map_or(self.ask_at, |asked| asked + self.within);
            let message = tokio::select! {
                message = self.ws.next() => message,
                () = sleep_until(silent_at) => {
                    let now = Instant::now();
                    if self.asked.is_some() {
                        return Heard::Gone;
                    }
                    (self.asked, self.ask_at) = (Some(now), now + self.every);
                    match self.say(packet::PING).await {
                        Ok(()) => continue,
                        Err(Broken) => return Heard::Gone,
                    }
                }
            };
            self.asked = None;
            match message {
                Some(Ok(Message::Text(text))) => match Packet::read(&text) {
                    Some(Packet::Pong) => {}
                    Some(Packet::Close) => return Heard::Gone,
                    Some(packet) => return Heard::Packet(packet),
                    None => return Heard::Nonsense,
                },
                Some(Ok(Message::Binary(_))) => return Heard::Nonsense,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(Error::Capacity(_))) => return Heard::TooLarge,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Heard::Gone,
            }
        }
    }

    /// Says something; returns once it has left. Dropped, it leaves with what is said next.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn say(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Broken> {
        let said = timeout(self.within, self.ws.send(Message::Text(text.into()))).await;
        said.map_err(|_| Broken)?.map_err(|_| Broken)
    }

    /// Says the last words and closes, as far as the other side still takes anything.
    pub async fn close(mut self, last: Vec<String>, code: CloseCode, reason: &'static str) {
        let closing = async {
            for text in last {
                self.ws.send(Message::Text(text.into())).await?;
            }
            self.ws.close(Some(CloseFrame { code, reason: reason.into() })).await?;
            // The answer, so that what was said is not lost with a reset.
            while self.ws.next().await.is_some_and(|message| message.is_ok()) {}
            Ok::<_, Error>(())
        };
        let _ = timeout(PARTING, closing).await;
    }
}
