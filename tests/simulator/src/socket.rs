//! The page's socket: frames in, frames out.

use std::{sync::Arc, time::Duration};

use axum::{Extension, body::Body, extract::Request, http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::{
    World,
    faults::Kind,
    world::{Out, SocketId, State},
};

/// Codes a list has; the first lives longer.
const CODES: u32 = 6;
const FIRST_CODE_MS: u64 = 60_000;
const NEXT_CODE_MS: u64 = 20_000;
/// A pairing code.
const PAIRING_MS: u64 = 180_000;
/// Between two chunks of history.
const HISTORY_PAUSE_MS: u64 = 20;

/// Takes the upgrade over from HTTP.
pub async fn upgrade(Extension(world): Extension<Arc<World>>, mut request: Request) -> Response {
    let refused = |status| Response::builder().status(status).body(Body::empty()).unwrap_or_default();
    if world.lock().faults.take(Kind::RefuseConnect, "").is_some() {
        return refused(StatusCode::SERVICE_UNAVAILABLE);
    }
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else { return refused(StatusCode::BAD_REQUEST) };
    let mut text = key.as_bytes().to_vec();
    // RFC 6455, section 1.3.
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &text));
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            talk(world, stream).await;
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-accept", accept)
        .body(Body::empty())
        .unwrap_or_default()
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(world: Arc<World>, stream: WebSocketStream<S>) {
    let (mut sink, mut source) = stream.split();
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let id = world.lock().connect(out);
    let mut late = FuturesUnordered::new();
    loop {
        tokio::select! {
            frame = source.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(frame) = serde_json::from_str::<Value>(&text) {
                        arrived(&world, id, frame);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            told = outgoing.recv() => match told {
                Some(Out::Frame(frame)) => if sink.send(Message::text(frame.to_string())).await.is_err() { break },
                Some(Out::Later(ms, frame)) => late.push(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    frame
                }),
                Some(Out::Close) | None => break,
            },
            Some(frame) = late.next() => if sink.send(Message::text(frame.to_string())).await.is_err() { break },
        }
    }
    world.lock().disconnect(id);
}

/// A frame of a page, and what may befall it.
fn arrived(world: &Arc<World>, id: SocketId, frame: Value) {
    let (delay, times) = {
        let mut state = world.lock();
        let owner = state.owner(id).map(|(phone, _)| phone).unwrap_or_default();
        let op = frame["op"].as_str().unwrap_or_default().to_owned();
        let mut take = |kind| state.faults.take_frame(kind, &owner, &op);
        if take(Kind::FrameDrop).is_some() {
            return;
        }
        (take(Kind::FrameDelay), if take(Kind::FrameDuplicate).is_some() { 2 } else { 1 })
    };
    let world = world.clone();
    let hear = move || (0..times).for_each(|_| heard(&world, id, &frame));
    match delay {
        None => hear(),
        Some(fault) => drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(fault.ms.unwrap_or(500))).await;
            hear();
        })),
    }
}

/// A page that comes with credentials.
fn hello(world: &Arc<World>, id: SocketId, device: &str, takeover: bool) {
    let mut state = world.lock();
    state.stats.takeovers += u64::from(takeover);
    if let Some(seconds) = state.banned(device) {
        state.tell(id, json!({"ev": "ban", "seconds": seconds}));
        return state.cut(id);
    }
    if state.refuses(device) {
        return state.cut(id);
    }
    if state.conflicts(id, device) {
        return;
    }
    if !state.resume(id, device) {
        let reason = state.why_removed(device).to_owned();
        return state.tell(id, json!({"ev": "loggedout", "reason": reason}));
    }
    state.sync(id);
    tokio::spawn(feed_history(world.clone(), id));
}

/// The answer to a request, by its number.
fn answer(frame: &Value, fields: Value) -> Value {
    let mut answer = json!({"ev": "res", "n": frame["n"]});
    if let (Some(answer), Value::Object(fields)) = (answer.as_object_mut(), fields) {
        answer.extend(fields);
    }
    answer
}

fn heard(world: &Arc<World>, id: SocketId, frame: &Value) {
    let mut state = world.lock();
    state.stats.frames += 1;
    let text = |name: &str| frame[name].as_str().unwrap_or_default();
    match text("op") {
        "hello" if frame["creds"]["device"].is_string() => {
            drop(state);
            hello(world, id, frame["creds"]["device"].as_str().unwrap_or_default(), frame["takeover"] == true);
        }
        "hello" | "ref" if state.owner(id).is_none() => drop(tokio::spawn(codes(world.clone(), id))),
        "altlink" if state.owner(id).is_none() => pairing(world, &mut state, id, frame),
        "qr" => state.tell(id, answer(frame, qr(text("text")))),
        "stray" => state.stray(text("what"), text("name")),
        // Nobody looks at these.
        "typing" | "presence" | "sub" => {}
        // Asked at the moment in which the page was linked.
        "hello" | "ref" => {}
        _ => match state.owner(id) {
            Some((phone, device)) => {
                drop(state);
                asked(world, id, (&phone, &device), frame);
            }
            // A page that has lost its account, to another browser or its phone, and has not heard yet.
            None if frame["n"].is_number() => state.tell(id, answer(frame, json!({"error": "not_linked"}))),
            None => {}
        },
    }
}

/// A page asks for a pairing code.
fn pairing(world: &Arc<World>, state: &mut State, id: SocketId, frame: &Value) {
    let phone = frame["phone"].as_str().unwrap_or_default();
    let Some((number, code)) = state.pairing_code(id, phone) else {
        return state.tell(id, answer(frame, json!({"error": "rate_overlimit"})));
    };
    let ttl = state.faults.take(Kind::PairingFast, phone).and_then(|f| f.ms).unwrap_or(PAIRING_MS);
    state.tell(id, answer(frame, json!({"code": code})));
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(ttl)).await;
        world.lock().end_pairing(id, number);
    });
}

/// What a linked page asks or says.
fn asked(world: &Arc<World>, id: SocketId, (phone, device): (&str, &str), frame: &Value) {
    let mut state = world.lock();
    let text = |name: &str| frame[name].as_str().unwrap_or_default();
    let fields = match text("op") {
        "logout" => {
            let _ = state.remove_device(phone, device, "user_initiated");
            return;
        }
        "got" => return state.got(id, frame["ids"].as_array().map_or(&[][..], Vec::as_slice)),
        "got.history" => return state.got_history(id, frame["chunk"].as_u64().unwrap_or_default()),
        "read" => {
            let _ = state.read(phone, text("chat"));
            return;
        }
        "send" => {
            drop(state);
            return send(world, id, (phone, device), frame);
        }
        "exists" => {
            let (wid, lid) = state.account(text("wid")).map(|a| (a.wid(), a.lid_wid())).ok().unzip();
            json!({"wid": wid, "lid": lid})
        }
        "group.create" => {
            let members = frame["participants"].as_array().cloned().unwrap_or_default();
            json!({"group": state.make_group(phone, text("title"), &members)})
        }
        "group.invite" => json!({"code": "SimulatedInvite"}),
        "block" => json!({}),
        "altlink" => json!({"error": "already_linked"}),
        "history" => json!({"msgs": state.past_of(phone, text("chat"))}),
        op => {
            state.stray("unserved", &format!("ws {op}"));
            json!({"error": "unknown_op"})
        }
    };
    if frame["n"].is_number() {
        state.tell(id, answer(frame, fields));
    }
}

/// What the code for a text looks like: so many modules a side, row by row, `1` for a dark one.
fn qr(text: &str) -> Value {
    let Ok(code) = qrcode::QrCode::new(text) else { return json!({"error": "too_long"}) };
    let modules: String = code.to_colors().into_iter().map(|c| c.select('1', '0')).collect();
    json!({"side": code.width(), "modules": modules})
}

/// A message from a page, and what may befall it.
fn send(world: &Arc<World>, id: SocketId, (phone, device): (&str, &str), frame: &Value) {
    let mut state = world.lock();
    if state.faults.take(Kind::LoseFrameBefore, phone).is_some() {
        return state.cut(id);
    }
    if state.faults.take(Kind::SendError, phone).is_some() {
        return state.tell(id, answer(frame, json!({"error": "rate_limit"})));
    }
    let mut message = frame["m"].clone();
    message["author"] = Value::Null;
    let sent = match state.send(phone, Some(device), &message) {
        Ok(sent) => sent,
        Err(_) => return state.tell(id, answer(frame, json!({"error": "bad_request"}))),
    };
    if state.faults.take(Kind::LoseFrameAfter, phone).is_some() {
        return state.cut(id);
    }
    // No receipt of this message: neither the server's nor the phone's.
    if state.faults.take(Kind::AckDrop, phone).is_some() {
        return;
    }
    // The server's ack comes before the phone's.
    let result = answer(frame, json!({"t": sent.at}));
    match state.faults.take(Kind::AckDelay, phone) {
        Some(fault) => {
            let world = world.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(fault.ms.unwrap_or(1_000))).await;
                let mut state = world.lock();
                state.tell(id, result);
                state.confirm(&sent);
            });
        }
        None => {
            state.tell(id, result);
            state.confirm(&sent);
        }
    }
}

/// Chunks of the phone's past, one after another, until the page has them all or is gone.
pub async fn feed_history(world: Arc<World>, id: SocketId) {
    let mut last = None;
    loop {
        let pause = {
            let mut state = world.lock();
            let Some(chunk) = state.send_history(id, last) else { return };
            last = Some(chunk);
            let phone = state.owner(id).map(|(phone, _)| phone).unwrap_or_default();
            state.faults.take(Kind::HistoryDelay, &phone).and_then(|f| f.ms).unwrap_or(HISTORY_PAUSE_MS)
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// A list of codes, one after another, until the page is linked or gone.
async fn codes(world: Arc<World>, id: SocketId) {
    for n in 0..CODES {
        let ttl = {
            let mut state = world.lock();
            let fast = state.faults.take(Kind::QrFast, "").and_then(|f| f.ms);
            let ttl = fast.unwrap_or(if n == 0 { FIRST_CODE_MS } else { NEXT_CODE_MS });
            if !state.issue_code(id, ttl) {
                return;
            }
            ttl
        };
        tokio::time::sleep(Duration::from_millis(ttl)).await;
    }
    world.lock().no_code(id);
}
