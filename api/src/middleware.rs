//! Around every request: its id, one log line, its numbers, and the body of a problem.

use std::{any::Any, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method};
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use crate::problem::Problem;

/// Names a request, in the answer, in problems and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer of the routes. Logs carry the route's template, never the path: paths hold phone numbers.
pub async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(request.headers().get(REQUEST_ID));
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = method_name(request.method());
    let span = tracing::info_span!("request", requestId = %id, method, route, tenant = Empty, user = Empty, session = Empty);
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    finish(&span, &id, method, route, began, response)
}

/// A refusal of what never came to the routes.
pub fn rendered(problem: Problem) -> Response {
    let id = request_id(None);
    finish(&Span::none(), &id, "OTHER", "unmatched".to_owned(), Instant::now(), problem.into_response())
}

fn finish(span: &Span, id: &str, method: &'static str, route: String, began: Instant, mut response: Response) -> Response {
    let _entered = span.enter();
    let mut code = None;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        code = Some(problem.code.as_str());
        if problem.code.status().is_server_error() && problem.chain().is_some() {
            tracing::error!(code, cause = problem.chain(), "request failed");
        }
        let mut rendered = problem.render(id);
        // What the router said about the refusal (`Allow`) stays.
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        for (name, value) in response.headers() {
            rendered.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        response = rendered;
    }
    response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(status, code, ms = (seconds * 1e3).round(), "answered");
    metrics::counter!("zaguan_http_requests_total", "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!("zaguan_http_request_seconds", "method" => method, "route" => route).record(seconds);
    response
}

/// A caller's own id is kept where it cannot forge a log line or grow without bound.
fn request_id(given: Option<&HeaderValue>) -> String {
    let fits = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    given.and_then(|v| v.to_str().ok()).filter(fits).map_or_else(new_id, str::to_owned)
}

/// Names what a socket asked for, as a request is named.
pub(crate) fn new_id() -> String {
    format!("req_{}", Uuid::now_v7().simple())
}

/// A metric label has few values, whatever callers send.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// A panic ends its request only; the hook set in `main` has logged where it was.
pub fn on_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}
