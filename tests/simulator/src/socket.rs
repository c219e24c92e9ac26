//! The page's socket: frames in, frames out.

use std::{sync::Arc, time::Duration};

use axum::{Extension, body::Body, extract::Request, http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt};
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
    world::{Out, SocketId},
};

/// Codes a list has; the first lives longer.
const CODES: u32 = 6;
const FIRST_CODE_MS: u64 = 60_000;
const NEXT_CODE_MS: u64 = 20_000;
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
    loop {
        tokio::select! {
            frame = source.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(frame) = serde_json::from_str::<Value>(&text) {
                        heard(&world, id, &frame);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            told = outgoing.recv() => match told {
                Some(Out::Frame(frame)) => if sink.send(Message::text(frame.to_string())).await.is_err() { break },
                Some(Out::Close) | None => break,
            },
        }
    }
    world.lock().disconnect(id);
}

fn heard(world: &Arc<World>, id: SocketId, frame: &Value) {
    let mut state = world.lock();
    state.stats.frames += 1;
    let op = frame["op"].as_str().unwrap_or_default();
    let answer = |fields: Value| {
        let mut answer = json!({"ev": "res", "n": frame["n"]});
        if let (Some(answer), Value::Object(fields)) = (answer.as_object_mut(), fields) {
            answer.extend(fields);
        }
        answer
    };
    let owner = state.owner(id);
    match (op, &owner) {
        ("hello", _) => match frame["creds"]["device"].as_str() {
            Some(device) if state.refuses(device) => state.cut(id),
            Some(device) if state.resume(id, device) => {
                state.sync(id);
                drop(state);
                tokio::spawn(feed_history(world.clone(), id));
            }
            Some(_) => state.tell(id, json!({"ev": "loggedout", "reason": "unknown_companion"})),
            None => {
                drop(state);
                tokio::spawn(codes(world.clone(), id));
            }
        },
        ("ref", None) => {
            drop(state);
            tokio::spawn(codes(world.clone(), id));
        }
        ("altlink", None) => {
            let code = state.pairing_code(id, frame["phone"].as_str().unwrap_or_default());
            state.tell(id, answer(json!({"code": code})));
        }
        ("logout", Some((phone, device))) => {
            let _ = state.remove_device(phone, device, "user_initiated");
        }
        ("got", Some(_)) => state.got(id, frame["ids"].as_array().map_or(&[][..], Vec::as_slice)),
        ("got.history", Some(_)) => state.got_history(id, frame["chunk"].as_u64().unwrap_or_default()),
        ("read", Some((phone, _))) => {
            let _ = state.read(phone, frame["chat"].as_str().unwrap_or_default());
        }
        ("exists", Some(_)) => {
            let found = state.account(frame["wid"].as_str().unwrap_or_default()).map(|a| (a.wid(), a.lid_wid())).ok();
            let (wid, lid) = found.unzip();
            state.tell(id, answer(json!({"wid": wid, "lid": lid})));
        }
        ("group.create", Some((phone, _))) => {
            let members = frame["participants"].as_array().cloned().unwrap_or_default();
            let group = state.make_group(phone, frame["title"].as_str().unwrap_or_default(), &members);
            state.tell(id, answer(json!({"group": group})));
        }
        ("group.invite", Some(_)) => state.tell(id, answer(json!({"code": "SimulatedInvite"}))),
        ("block", Some(_)) => state.tell(id, answer(json!({}))),
        ("send", Some((phone, device))) => {
            let (phone, device) = (phone.clone(), device.clone());
            drop(state);
            send(world, id, (&phone, &device), frame, &answer);
        }
        ("history", Some(_)) => state.tell(id, answer(json!({"msgs": []}))),
        // Typing, presence: nobody looks. What wants an answer gets one.
        _ if frame["n"].is_number() => state.tell(id, answer(json!({"error": "unknown_op"}))),
        _ => {}
    }
}

/// A message from a page, and what may befall it.
fn send(world: &Arc<World>, id: SocketId, (phone, device): (&str, &str), frame: &Value, answer: &dyn Fn(Value) -> Value) {
    let mut state = world.lock();
    if state.faults.take(Kind::LoseFrameBefore, phone).is_some() {
        return state.cut(id);
    }
    if state.faults.take(Kind::SendError, phone).is_some() {
        return state.tell(id, answer(json!({"error": "rate_limit"})));
    }
    let mut message = frame["m"].clone();
    message["author"] = Value::Null;
    let sent = match state.send(phone, Some(device), &message) {
        Ok(sent) => sent,
        Err(_) => return state.tell(id, answer(json!({"error": "bad_request"}))),
    };
    if state.faults.take(Kind::LoseFrameAfter, phone).is_some() {
        return state.cut(id);
    }
    // No receipt of this message: neither the server's nor the phone's.
    if state.faults.take(Kind::AckDrop, phone).is_some() {
        return;
    }
    // The server's ack comes before the phone's.
    let result = answer(json!({"t": sent.at}));
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
