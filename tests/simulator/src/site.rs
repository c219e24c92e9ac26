//! One page's address: TLS, the document and its scripts, and the socket beside them.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::{
    World,
    faults::Kind,
    page::{self, Manner, Profile},
    socket,
};

/// The parts that a slow page arrives in.
const PARTS: usize = 3;
/// The most that one upload may hold.
const MEDIA_LIMIT: usize = 64 << 20;
/// `hasSynced` flips so long after the page's version is known, at the earliest.
const SYNCED_AFTER_MS: u64 = 1_300;

#[derive(Clone)]
struct Site {
    world: Arc<World>,
    profile: Profile,
}

impl Site {
    /// How the next document is to be, by the faults that are armed.
    fn manner(&self) -> Manner {
        let take = |kind| self.world.lock().faults.take(kind, "");
        let broken = take(Kind::BreakExport).and_then(|f| f.export).unwrap_or_default();
        Manner {
            strict: take(Kind::Strict).is_some(),
            synced_after_ms: take(Kind::SyncedAfter).and_then(|f| f.ms).unwrap_or(SYNCED_AFTER_MS),
            broken: broken.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        }
    }
}

/// Serves one page profile for ever.
pub async fn serve(listener: TcpListener, tls: TlsAcceptor, world: Arc<World>, profile: Profile) {
    let router = Router::new()
        .route("/", get(document))
        .route("/{script}", get(script))
        .route("/ws/chat", get(socket::upgrade))
        .route("/mms/upload", post(upload).layer(DefaultBodyLimit::max(MEDIA_LIMIT)))
        .route("/mms/{hash}", get(download))
        .route("/pictures/{wid}", get(picture))
        .route("/csp", post(violation))
        .fallback(unserved)
        .with_state(Site { world: world.clone(), profile })
        .layer(axum::Extension(world));
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                router.clone().oneshot(request.map(Body::new))
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

/// Reports, and refuses nothing: what asks any other host for anything is a mistake of whoever runs in the page.
const POLICY: &str = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data: wss://web.whatsapp.com; report-uri /csp";

async fn document(State(site): State<Site>, _: Request) -> Response {
    let taken = |kind| site.world.lock().faults.take(kind, "");
    if let Some(fault) = taken(Kind::SlowStart) {
        tokio::time::sleep(Duration::from_millis(fault.ms.unwrap_or(3_000))).await;
    }
    if taken(Kind::PageError).is_some() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let html = match (taken(Kind::BlankPage), taken(Kind::SlowModules)) {
        (Some(_), _) => "<!doctype html><title>WhatsApp Web</title>".to_owned(),
        (None, Some(fault)) => page::html(PARTS, fault.ms.unwrap_or(2_500)),
        (None, None) => page::html(1, 0),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY_REPORT_ONLY, POLICY),
    ];
    (headers, html).into_response()
}

/// A browser tells of a request to another host.
async fn violation(State(site): State<Site>, body: Bytes) -> StatusCode {
    let report: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    site.world.lock().stray("request", report["csp-report"]["blocked-uri"].as_str().unwrap_or("?"));
    StatusCode::NO_CONTENT
}

async fn unserved(State(site): State<Site>, request: Request) -> StatusCode {
    site.world.lock().stray("unserved", &format!("{} {}", request.method(), request.uri().path()));
    StatusCode::NOT_FOUND
}

/// The smallest picture there is, whoever it is of.
async fn picture(_: Path<String>) -> Response {
    const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    ([(header::CONTENT_TYPE, "image/gif")], PIXEL).into_response()
}

async fn script(State(site): State<Site>, Path(name): Path<String>) -> Response {
    let part = name.strip_prefix("part").and_then(|n| n.strip_suffix(".js")).and_then(|n| n.parse().ok()).filter(|n| *n < PARTS);
    let text = match (name.as_str(), part) {
        ("app.js", _) => page::part(site.profile, &site.manner(), 0, 1),
        // The first alone says how the page is to be.
        (_, Some(0)) => page::part(site.profile, &site.manner(), 0, PARTS),
        (_, Some(n)) => page::part(site.profile, &Manner::default(), n, PARTS),
        // Browsers ask by themselves.
        ("favicon.ico", _) => return StatusCode::NO_CONTENT.into_response(),
        _ => {
            site.world.lock().stray("unserved", &format!("GET /{name}"));
            return StatusCode::NOT_FOUND.into_response();
        }
    };
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// Media are kept by their hash, as the page names them: `{path, hash}`.
async fn upload(State(site): State<Site>, body: Bytes) -> Response {
    let stall = site.world.lock().faults.take(Kind::UploadStall, "").and_then(|f| f.ms);
    if let Some(ms) = stall {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    if site.world.lock().faults.take(Kind::UploadError, "").is_some() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    let path = format!("/mms/{}", URL_SAFE_NO_PAD.encode(digest));
    let hash = base64::engine::general_purpose::STANDARD.encode(digest);
    site.world.lock().blobs.insert(path.clone(), body);
    axum::Json(serde_json::json!({"path": path, "hash": hash})).into_response()
}

async fn download(State(site): State<Site>, Path(hash): Path<String>) -> Response {
    if site.world.lock().faults.take(Kind::DownloadGone, "").is_some() {
        return StatusCode::GONE.into_response();
    }
    let blob = site.world.lock().blobs.get(&format!("/mms/{hash}")).cloned();
    blob.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |blob| ([(header::CONTENT_TYPE, "application/octet-stream")], blob).into_response(),
    )
}
