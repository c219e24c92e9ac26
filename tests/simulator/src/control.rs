//! The control API: what tests do with phones, and how they make the world misbehave. JSON over plain HTTP. README.md lists it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    World,
    faults::{Fault, Kind},
    socket,
    world::{Contact, Past, Refusal, SocketId, digits},
};

type App = State<Arc<World>>;

/// Serves for ever.
pub async fn serve(listener: TcpListener, world: Arc<World>) {
    let control = Router::new()
        .route("/accounts", post(make_account))
        .route("/accounts/{phone}/scan", post(scan))
        .route("/accounts/{phone}/enter-code", post(enter_code))
        .route("/accounts/{phone}/devices", get(devices))
        .route("/accounts/{phone}/devices/{device}", delete(remove_device))
        .route("/accounts/{phone}/ban", post(ban))
        .route("/accounts/{phone}/unban", post(unban))
        .route("/accounts/{phone}/offline", post(offline))
        .route("/accounts/{phone}/online", post(online))
        .route("/accounts/{phone}/send", post(send))
        .route("/accounts/{phone}/read", post(read))
        .route("/accounts/{phone}/chats/{peer}/messages", get(messages))
        .route("/accounts/{phone}/chats/{peer}/flip", post(flip))
        .route("/accounts/{phone}/contacts", post(contacts))
        .route("/accounts/{phone}/history", post(history))
        .route("/accounts/{phone}/lid-migration", post(migrate))
        .route("/accounts/{phone}/move-lid", post(move_lid))
        .route("/faults", post(arm))
        .route("/faults/{id}", delete(disarm))
        .route("/stats", get(stats))
        .route("/strict", get(strict))
        .route("/reset", post(reset))
        .with_state(world);
    let _ = axum::serve(listener, Router::new().nest("/control", control)).await;
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("no such {what}")),
            Self::Conflict(why) => (StatusCode::CONFLICT, why.to_owned()),
        };
        (status, Json(json!({"error": error}))).into_response()
    }
}

#[derive(Deserialize)]
struct NewAccount {
    phone: String,
    name: Option<String>,
    lid: Option<String>,
}

async fn make_account(State(world): App, Json(new): Json<NewAccount>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(world.lock().make_account(&new.phone, new.name, new.lid)))
}

#[derive(Deserialize)]
struct Qr {
    qr: String,
}

async fn scan(State(world): App, Path(phone): Path<String>, Json(Qr { qr }): Json<Qr>) -> Result<Json<Value>, Refusal> {
    let (socket, creds) = world.lock().scan(&phone, &qr)?;
    sync_later(&world, &phone, socket);
    Ok(Json(json!({"device": creds["device"]})))
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

async fn enter_code(State(world): App, Path(phone): Path<String>, Json(Code { code }): Json<Code>) -> Result<Json<Value>, Refusal> {
    let (socket, creds) = world.lock().enter_code(&phone, &code)?;
    sync_later(&world, &phone, socket);
    Ok(Json(json!({"device": creds["device"]})))
}

/// The phone needs a moment to hand over what it has.
fn sync_later(world: &Arc<World>, phone: &str, socket: SocketId) {
    let fault = world.lock().faults.take(Kind::SyncDelay, &digits(phone));
    let world = world.clone();
    tokio::spawn(async move {
        match fault {
            Some(Fault { ms: None, id, .. }) => while_armed(&world, id).await,
            fault => tokio::time::sleep(Duration::from_millis(fault.and_then(|f| f.ms).unwrap_or(200))).await,
        }
        world.lock().sync(socket);
        socket::feed_history(world, socket).await;
    });
}

async fn while_armed(world: &World, fault: u64) {
    while world.lock().faults.is_armed(fault) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn contacts(State(world): App, Path(phone): Path<String>, Json(book): Json<Vec<Contact>>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!(world.lock().save_contacts(&phone, book)?)))
}

async fn history(State(world): App, Path(phone): Path<String>, Json(past): Json<Past>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({"chats": world.lock().make_history(&phone, past)?})))
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Lid,
    Phone,
}

/// Into which form a chat goes, and whether the keys of its stored messages follow.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flip {
    to: Form,
    #[serde(default)]
    rekey: bool,
}

async fn flip(State(world): App, Path((phone, peer)): Path<(String, String)>, Json(flip): Json<Flip>) -> Result<Json<Value>, Refusal> {
    let chat = world.lock().flip(&phone, &peer, matches!(flip.to, Form::Lid), flip.rekey)?;
    Ok(Json(json!({"chat": chat})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Migration {
    migrated: bool,
    #[serde(default)]
    rekey: bool,
}

async fn migrate(State(world): App, Path(phone): Path<String>, Json(to): Json<Migration>) -> Result<StatusCode, Refusal> {
    world.lock().migrate(&phone, to.migrated, to.rekey)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLid {
    lid: Option<String>,
}

async fn move_lid(State(world): App, Path(phone): Path<String>, Json(to): Json<NewLid>) -> Result<Json<Value>, Refusal> {
    let (from, to) = world.lock().move_lid(&phone, to.lid.as_deref())?;
    Ok(Json(json!({"from": from, "lid": to})))
}

async fn devices(State(world): App, Path(phone): Path<String>) -> Result<Json<Value>, Refusal> {
    let mut state = world.lock();
    let ids: Vec<_> = state.account(&phone)?.devices.iter().map(|d| json!({"id": d.id})).collect();
    Ok(Json(json!(ids)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

async fn remove_device(
    State(world): App,
    Path((phone, device)): Path<(String, String)>,
    Query(why): Query<Why>,
) -> Result<StatusCode, Refusal> {
    world.lock().remove_device(&phone, &device, why.reason.as_deref().unwrap_or("device_removed"))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    minutes: Option<u64>,
}

async fn ban(State(world): App, Path(phone): Path<String>, Json(ban): Json<Ban>) -> Result<StatusCode, Refusal> {
    world.lock().ban(&phone, ban.minutes.unwrap_or(60).max(1) * 60)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unban(State(world): App, Path(phone): Path<String>) -> Result<StatusCode, Refusal> {
    world.lock().ban(&phone, 0)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn offline(State(world): App, Path(phone): Path<String>) -> Result<StatusCode, Refusal> {
    world.lock().set_online(&phone, false)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn online(State(world): App, Path(phone): Path<String>) -> Result<StatusCode, Refusal> {
    world.lock().set_online(&phone, true)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn send(State(world): App, Path(phone): Path<String>, Json(mut message): Json<Value>) -> Result<Json<Value>, Refusal> {
    let mut state = world.lock();
    let to = message["to"].as_str().ok_or(Refusal::NotFound("to"))?.to_owned();
    let chat = if to.contains('@') { to } else { state.account(&to)?.wid() };
    let id = message["id"].as_str().map_or_else(new_id, str::to_owned);
    message["id"] = json!(id);
    message["chat"] = json!(chat);
    if message["text"].is_string() {
        message["body"] = message["text"].clone();
    }
    message["type"] = json!(if message["type"] == "text" { "chat" } else { message["type"].as_str().unwrap_or("chat") });
    let phone = state.account(&phone)?.phone.clone();
    let sent = state.send(&phone, None, &message)?;
    state.confirm(&sent);
    Ok(Json(json!({"id": id})))
}

/// As a phone makes them: `3A` and 18 hex digits.
fn new_id() -> String {
    let mut bytes = [0u8; 9];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    bytes.iter().fold(String::from("3A"), |id, byte| id + &format!("{byte:02X}"))
}

#[derive(Deserialize)]
struct Chat {
    chat: String,
}

async fn read(State(world): App, Path(phone): Path<String>, Json(Chat { chat }): Json<Chat>) -> Result<Json<Value>, Refusal> {
    let mut state = world.lock();
    let chat = if chat.contains('@') { chat } else { format!("{}@c.us", digits(&chat)) };
    Ok(Json(json!({"read": state.read(&phone, &chat)?})))
}

async fn messages(State(world): App, Path((phone, peer)): Path<(String, String)>) -> Result<Json<Value>, Refusal> {
    let mut state = world.lock();
    let peer = if peer.contains('@') { peer } else { format!("{}@c.us", digits(&peer)) };
    let shown = state.account(&phone)?.chats.get(&peer).cloned().unwrap_or_default();
    Ok(Json(json!(shown)))
}

async fn arm(State(world): App, Json(fault): Json<Fault>) -> Response {
    if let Some(name) = fault.rest.keys().next() {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": format!("a fault has no {name}")}))).into_response();
    }
    Json(json!({"id": world.lock().fault(fault)})).into_response()
}

async fn disarm(State(world): App, Path(id): Path<u64>) -> Result<StatusCode, Refusal> {
    if world.lock().faults.disarm(id) { Ok(StatusCode::NO_CONTENT) } else { Err(Refusal::NotFound("fault")) }
}

async fn stats(State(world): App) -> Json<Value> {
    Json(json!(world.lock().stats))
}

/// What pages did that they could not do on the real site.
async fn strict(State(world): App) -> Json<Value> {
    Json(json!(world.lock().strays))
}

async fn reset(State(world): App) -> StatusCode {
    world.lock().reset();
    StatusCode::NO_CONTENT
}
