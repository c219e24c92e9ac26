//! The same router as a Lambda function. What differs from a connection is here: the path as the caller wrote it, a process that is frozen
//! between two invocations, and nothing left to do once the answer is out.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, response::Response};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use lambda_http::{Request, RequestExt, aws_lambda_events::apigw::ApiGatewayV2httpRequestContext, request::RequestContext, service_fn};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tower::ServiceExt;

use crate::{
    config::LambdaResponse,
    middleware,
    problem::{Code, Problem},
    state::AppState,
};

/// After so long without an invocation nobody knows what has become of the connections.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// How long an answer waits for what its request started. All of it is bounded by itself; this only guards against a fault.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// What may stand in a path as it is; all else, `%` included, is written as its code.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b'$')
    .remove(b'&')
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Serves invocations until the environment is taken away.
///
/// # Errors
/// Where the Runtime API does not answer.
pub async fn run(app: Router, state: AppState, response: LambdaResponse) -> Result<(), lambda_http::Error> {
    // One invocation at a time: from here on, whoever waits for the tasks waits until none is left.
    state.tasks.close();
    let function = Arc::new(Function { app, state, last: Mutex::new(now()) });
    match response {
        LambdaResponse::Buffered => {
            let serve = move |request| {
                let function = function.clone();
                async move { Ok::<_, Infallible>(function.buffered(request).await) }
            };
            lambda_http::run(service_fn(serve)).await
        }
        LambdaResponse::Streaming => {
            let serve = move |request| {
                let function = function.clone();
                async move { Ok::<_, Infallible>(function.streamed(request).await) }
            };
            lambda_http::run_with_streaming_response(service_fn(serve)).await
        }
    }
}

struct Function {
    app: Router,
    state: AppState,
    /// When the last invocation ended, by the clock on the wall: the others stand still while the process is frozen.
    last: Mutex<SystemTime>,
}

impl Function {
    async fn buffered(&self, request: Request) -> Response {
        let (parts, body) = self.answer(request).await.into_parts();
        // Read here: a body may come from a task, which then has to be waited for as well.
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        self.settle().await;
        Response::from_parts(parts, Body::from(body))
    }

    async fn streamed(self: Arc<Self>, request: Request) -> Response {
        let (parts, body) = self.answer(request).await.into_parts();
        // The invocation ends with the body, so the body ends once nothing is left to do.
        let settled = stream::once(async move { self.settle().await }).filter_map(|()| std::future::ready(None));
        Response::from_parts(parts, Body::from_stream(body.into_data_stream().chain(settled)))
    }

    async fn answer(&self, request: Request) -> Response {
        self.thaw();
        match as_called(request) {
            Some(request) => self.app.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
            None => middleware::rendered(Problem::new(Code::MalformedRequest, "the path is none")),
        }
    }

    /// Connections that may have died in a freeze are not used again: a silent one would cost a deadline, or the answer.
    fn thaw(&self) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now().duration_since(last).is_ok_and(|frozen| frozen < STALE_AFTER) {
            return;
        }
        store::forget_idle(&self.state.pool);
        self.state.redis.renew();
    }

    async fn settle(&self) {
        if tokio::time::timeout(SETTLE_WITHIN, self.state.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.state.tasks.len(), "not everything had ended when the answer went out");
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now();
    }
}

fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "measures a freeze, through which every other clock stands still")]
    SystemTime::now()
}

/// The request with the path that the caller wrote. The runtime's own adds the stage, resolves `..`, and takes a path that an HTTP API has
/// decoded for one that is still to be decoded. `None`: no such path can be asked for.
fn as_called(mut request: Request) -> Option<Request> {
    let raw = request.raw_http_path();
    let path = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) if is_function_url(context) => raw.to_owned(),
        Some(RequestContext::ApiGatewayV2(context)) => utf8_percent_encode(without_stage(raw, context), PATH).to_string(),
        // REST APIs and load balancers pass on what was written; so does whatever comes without a context.
        Some(_) | None => raw.to_owned(),
    };
    let whole = match request.uri().query().filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    *request.uri_mut() = PathAndQuery::try_from(whole).ok().filter(|p| p.path().starts_with('/'))?.into();
    Some(request)
}

/// Function URLs speak the form of HTTP APIs, and leave the path as it is.
fn is_function_url(context: &ApiGatewayV2httpRequestContext) -> bool {
    context.domain_name.as_deref().is_some_and(|domain| domain.contains(".lambda-url."))
}

/// HTTP APIs put the stage in front of the path, unless it is the default one.
fn without_stage<'a>(path: &'a str, context: &ApiGatewayV2httpRequestContext) -> &'a str {
    let stage = context.stage.as_deref().filter(|stage| *stage != "$default");
    let rest = stage.and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage));
    match rest {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) | None => path,
    }
}

#[cfg(test)]
mod tests {
    use lambda_http::aws_lambda_events::{
        alb::{AlbTargetGroupRequest, AlbTargetGroupRequestContext},
        apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
    };

    use super::*;

    fn called(event: &impl serde::Serialize) -> Option<String> {
        let request = lambda_http::request::from_str(&serde_json::to_string(event).unwrap()).unwrap();
        as_called(request).map(|r| r.uri().to_string())
    }
    fn rest(path: &str, stage: &str) -> ApiGatewayProxyRequest {
        let mut event = ApiGatewayProxyRequest::default();
        event.path = Some(path.into());
        event.request_context.stage = Some(stage.into());
        event
    }
    fn http(path: &str, stage: &str, domain: &str) -> ApiGatewayV2httpRequest {
        let mut event = ApiGatewayV2httpRequest::default();
        event.version = Some("2.0".into());
        event.raw_path = Some(path.into());
        event.request_context.stage = Some(stage.into());
        event.request_context.domain_name = Some(domain.into());
        event
    }
    fn balancer(path: &str) -> AlbTargetGroupRequest {
        let mut event = AlbTargetGroupRequest::default();
        event.path = Some(path.into());
        event.request_context = AlbTargetGroupRequestContext::default();
        event
    }

    #[test]
    fn a_path_is_what_the_caller_wrote_whoever_brings_it() {
        let written = "/api/chats/%2B551199%40c.us";
        for event in [
            called(&rest(written, "prod")),
            called(&balancer(written)),
            called(&http(written, "$default", "x.lambda-url.eu-west-1.on.aws")),
        ] {
            assert_eq!(event.as_deref(), Some(written));
        }
        // An HTTP API has decoded it.
        assert_eq!(called(&http("/api/chats/+551199@c.us", "$default", "api.test")).as_deref(), Some("/api/chats/+551199@c.us"));
    }

    #[test]
    fn a_path_that_was_decoded_once_is_not_decoded_again() {
        assert_eq!(called(&http("/api/chats/%40 é?", "$default", "api.test")).as_deref(), Some("/api/chats/%2540%20%C3%A9%3F"));
    }

    #[test]
    fn a_stage_is_no_part_of_the_path_and_a_path_may_begin_like_one() {
        for (path, stage, expected) in [
            ("/prod/livez", "prod", "/livez"),
            ("/prod", "prod", "/"),
            ("/products", "prod", "/products"),
            ("/livez", "$default", "/livez"),
            ("/prod/prod/x", "prod", "/prod/x"),
        ] {
            assert_eq!(called(&http(path, stage, "api.test")).as_deref(), Some(expected));
        }
        assert_eq!(called(&rest("/livez", "prod")).as_deref(), Some("/livez"));
        assert_eq!(called(&rest("/api/../livez", "prod")).as_deref(), Some("/api/../livez"), "nothing is resolved");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(called(&balancer("/a b")), None);
        assert_eq!(called(&rest("*", "prod")), None);
    }
}
