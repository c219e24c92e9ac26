//! The least that could answer the same requests: axum, a checked EdDSA token, one script call. It keeps nothing that a power cut leaves.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use harness::Error;
use redis::{Script, aio::MultiplexedConnection};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ACCEPT: &str = r"
local n = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], 'id', ARGV[1], 'position', n, 'state', 'queued', 'chat', ARGV[2], 'text', ARGV[3])
redis.call('ZADD', KEYS[3], n, ARGV[1])
return n";
const STATUS: &str = "return redis.call('HGETALL', KEYS[1])";

#[derive(Clone)]
struct App {
    redis: MultiplexedConnection,
    key: Arc<UnparsedPublicKey<Vec<u8>>>,
    accept: Arc<Script>,
    status: Arc<Script>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

/// Serves until it is killed.
///
/// # Errors
/// What kept it from serving.
pub async fn serve(addr: SocketAddr, redis: &str, key: &str) -> Result<(), Error> {
    let app = App {
        redis: redis::Client::open(redis)?.get_multiplexed_async_connection().await?,
        key: Arc::new(UnparsedPublicKey::new(&ED25519, STANDARD.decode(key)?)),
        accept: Arc::new(Script::new(ACCEPT)),
        status: Arc::new(Script::new(STATUS)),
    };
    let router = Router::new().route("/chats/{chat}/messages", post(send)).route("/jobs/{id}", get(job)).with_state(app);
    Ok(axum::serve(TcpListener::bind(addr).await?, router).await?)
}

/// A key pair: a token that it signed, and its public half.
///
/// # Errors
/// Where the system has no randomness.
pub fn token() -> Result<(String, String), Error> {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).map_err(|_| "no randomness")?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| "the pair is refused")?;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "typ": "JWT"})), part(&json!({"sub": "bench", "exp": u32::MAX})));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    Ok((format!("{signed}.{signature}"), STANDARD.encode(pair.public_key())))
}

fn caller(app: &App, headers: &HeaderMap) -> Result<Claims, StatusCode> {
    let checked = || {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let (signed, signature) = token.rsplit_once('.')?;
        app.key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        serde_json::from_slice::<Claims>(&URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?).ok()
    };
    checked().ok_or(StatusCode::UNAUTHORIZED)
}

#[derive(Deserialize)]
struct NewText {
    text: String,
}

async fn send(
    State(mut app): State<App>,
    Path(chat): Path<String>,
    headers: HeaderMap,
    Json(new): Json<NewText>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let caller = caller(&app, &headers)?;
    let id = contract::JobId::new().to_string();
    let mut script = app.accept.key(format!("n:{}", caller.sub));
    script.key(format!("job:{id}")).key(format!("lane:{}", caller.sub)).arg(&id).arg(&chat).arg(new.text);
    let position: i64 = script.invoke_async(&mut app.redis).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((StatusCode::ACCEPTED, Json(json!({"id": id, "state": "queued", "chat": chat, "position": position}))))
}

async fn job(State(mut app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    caller(&app, &headers)?;
    let status = app.status.key(format!("job:{id}")).invoke_async::<std::collections::BTreeMap<String, String>>(&mut app.redis).await;
    let job = status.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    if job.is_empty() { Err(StatusCode::NOT_FOUND) } else { Ok(Json(json!(job))) }
}
