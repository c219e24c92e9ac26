//! Socket.IO over the same feed as server-sent events: the feed judges, this writes. WebSocket only, so that no process has to be found again.

mod line;
mod listener;
mod packet;
mod wwebjs;

use axum::{
    Router,
    extract::{Query, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    auth::{Rule, address},
    problem::{Code, Problem},
    state::AppState,
};

/// What no address may hold: it ends up in logs.
const SECRETS: [&str; 6] = ["token", "apiKey", "ticket", "auth", "access_token", "authorization"];

/// What a client says in the address.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "EIO")]
    protocol: Option<String>,
    transport: Option<String>,
}

/// At the root, where clients look for it. `rule`: who may listen; none: nobody.
pub fn router(rule: Option<Rule>) -> Router<AppState> {
    let open = get(move |State(app), request| open(app, rule, request));
    Router::new().route("/socket.io/", open.clone()).route("/socket.io", open)
}

async fn open(app: AppState, rule: Option<Rule>, mut request: Request) -> Result<Response, Problem> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let key = admit(&app, &parts)?;
    let rule = rule.ok_or_else(Problem::internal)?;
    let (from, listening) = (address::client(&parts, &app), app.clone());
    // Ends with the client, with the caller's rights, or with the process.
    app.tasks.spawn(async move {
        if let Ok(io) = upgrade.await {
            listener::serve(listening, rule, from, io).await;
        }
    });
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|why| Problem::internal().because(why))?;
    let headers = [
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// The key of a request for a WebSocket that may be opened.
fn admit(app: &AppState, parts: &Parts) -> Result<HeaderValue, Problem> {
    if app.on_lambda {
        return Err(Problem::new(Code::Unsupported, "a Lambda function holds no connection: follow GET /api/events/stream or /api/events"));
    }
    let query = parts.uri.query().unwrap_or_default();
    let names = query.split('&').filter_map(|pair| pair.split('=').next());
    if let Some(name) = names.into_iter().find(|name| SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name))) {
        return Err(Problem::new(Code::InvalidParameter, "credentials belong into `auth`, never into an address").field(name));
    }
    let Query(asked) = Query::<Asked>::try_from_uri(&parts.uri)
        .map_err(|_| Problem::new(Code::InvalidParameter, "expected EIO=4&transport=websocket, as Socket.IO clients send it"))?;
    if asked.protocol.as_deref() != Some("4") {
        return Err(Problem::new(Code::InvalidParameter, "this is Socket.IO for clients of version 3 and later (EIO=4)").field("EIO"));
    }
    if asked.transport.as_deref() != Some("websocket") {
        let detail = "long polling is not served: give the client transports: ['websocket']";
        return Err(Problem::new(Code::InvalidParameter, detail).field("transport"));
    }
    let header = |name| parts.headers.get(name);
    let names = |name, word: &str| {
        let value = parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        value.is_some_and(|v| v.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let upgrades =
        names(header::CONNECTION, "upgrade") && names(header::UPGRADE, "websocket") && names(header::SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = header(header::SEC_WEBSOCKET_KEY).filter(|_| upgrades) else {
        return Err(Problem::new(
            Code::MalformedRequest,
            "expected a WebSocket's handshake; a proxy in between may have dropped its headers",
        ));
    };
    match header(header::ORIGIN) {
        Some(origin) if !app.origins.allows(origin, header(header::HOST)) => {
            Err(Problem::new(Code::OriginForbidden, "the operator names the origins whose pages may call (CORS_ORIGINS)"))
        }
        Some(_) | None => Ok(key.clone()),
    }
}
