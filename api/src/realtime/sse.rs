//! Server-sent events: `id` is the `seq`, `data` the envelope. No `event` field: a client hears types that it does not know by name too.

use std::{convert::Infallible, time::Duration};

use axum::response::{IntoResponse, Response, sse};
use futures::stream;
use http::{HeaderName, HeaderValue};
use tokio::{sync::mpsc, time::Instant};

use super::{Ending, Feed, Next};
use crate::{limits::Place, state::AppState};

/// Events in the pipe to one client, beyond what its connection holds.
const PIPE: usize = 16;
/// How long one may be there. After that its reader's rights may be others, or it may have been erased: the stream ends, and its client comes
/// again behind what it has.
const PIPED_FOR: Duration = Duration::from_secs(2);
/// Proxies that would hold events back until there are many.
const UNBUFFERED: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Answers with a stream. `most` ends it after so long: where nothing outlives a response (Lambda), it comes again with its cursor.
pub fn respond(app: &AppState, feed: Feed, place: Place, most: Option<Duration>) -> Response {
    let (pipe, out) = mpsc::channel(PIPE);
    // Ends with the client, with the caller's rights, or with the process.
    app.tasks.spawn(pump(feed, place, pipe, most.map(|most| Instant::now() + most)));
    let events = stream::unfold(out, |mut out: mpsc::Receiver<(Instant, sse::Event)>| async {
        let (since, event) = out.recv().await?;
        if since.elapsed() > PIPED_FOR {
            Ending::TooSlow.count("sse");
            return None;
        }
        Some((Ok::<_, Infallible>(event), out))
    });
    let mut response = sse::Sse::new(events).into_response();
    response.headers_mut().insert(UNBUFFERED.0, UNBUFFERED.1);
    response
}

async fn pump(mut feed: Feed, mut place: Place, pipe: mpsc::Sender<(Instant, sse::Event)>, until: Option<Instant>) {
    // All clients of a process that goes come again: not all at once.
    let pause = Duration::from_millis(1000 + u64::from(uuid::Uuid::now_v7().as_bytes()[15]) * 16);
    let _ = pipe.send((Instant::now(), judged(feed.judged()).retry(pause))).await;
    let ending = loop {
        // Room first: what has been judged does not wait for it.
        let permit = tokio::select! {
            permit = pipe.reserve() => permit,
            ending = feed.ended() => break ending,
            () = reached(until) => break Ending::Stopping,
        };
        let Ok(permit) = permit else { return };
        let next = tokio::select! {
            next = feed.next() => next,
            () = pipe.closed() => return,
            () = reached(until) => break Ending::Stopping,
        };
        let event = match next {
            Next::Event(event) => Ok(sse::Event::default().id(event.seq.to_string()).data(event.json())),
            Next::Told(told) => sse::Event::default().json_data(&*told),
            Next::Gap(gap) => sse::Event::default().json_data(&gap),
            Next::Judged(seq) => Ok(judged(seq)),
            Next::End(ending) => break ending,
        };
        // An envelope is always JSON.
        if let Ok(event) = event {
            permit.send((Instant::now(), event));
        }
        place.keep().await;
    };
    ending.count("sse");
    tracing::debug!(why = ending.as_str(), "stream ends");
    // For whoever looks at the wire; a client comes again either way, and hears in full what is wrong.
    let _ = pipe.try_send((Instant::now(), sse::Event::default().comment(format!("ends: {}", ending.as_str()))));
}

/// Advances the client's cursor and dispatches nothing.
fn judged(seq: i64) -> sse::Event {
    sse::Event::default().id(seq.to_string())
}

async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
