//! zaguan-api: one router, served over TCP or as a Lambda function.

pub mod announce;
pub mod answers;
pub mod auth;
pub mod catalogue;
pub mod commands;
pub mod config;
pub mod cors;
pub mod extract;
pub mod lambda;
pub mod limits;
mod link_page;
pub mod middleware;
pub mod once;
pub mod openapi;
mod pages;
pub mod problem;
pub mod qr;
pub mod realtime;
mod routes;
pub mod serve;
pub mod state;
pub mod timestamp;
pub mod webhook_rules;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, routing::get};
use http::header;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use utoipa::openapi::OpenApi;

use crate::{problem::Problem, state::AppState};

/// Everything that is served, at the paths it has outside.
pub fn router(state: AppState) -> Router {
    let (routes, mut document) = routes::all().split_for_parts();
    openapi::complete(&mut document);
    let rules = Arc::new(auth::Rules::of(&document));
    // Whoever may listen to the one may listen to the other.
    let sockets = realtime::socketio::router(rules.get("/api/events/stream", &http::Method::GET));
    let routes = routes.layer(axum::middleware::from_fn_with_state((state.clone(), rules), auth::guard));
    let document = document.to_json().unwrap_or_default();
    let document = get(move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], document.clone())));
    let events = catalogue::asyncapi::document().to_string();
    let events = get(move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], events.clone())));
    let pages = routes::docs::router().merge(pages::router()).merge(link_page::router()).merge(sockets);
    observed(routes.route("/openapi.json", document).route("/asyncapi.json", events).merge(pages), state.origins.layer()).with_state(state)
}

/// What surrounds every route. Inside out: refusals, panics, size, pages of other origins, and the observer that names, counts and renders.
fn observed(routes: Router<AppState>, cors: Option<CorsLayer>) -> Router<AppState> {
    let routes = routes
        .fallback(|| std::future::ready(Problem::not_found()))
        .method_not_allowed_fallback(|| std::future::ready(Problem::new(problem::Code::MethodNotAllowed, "see /openapi.json")))
        .layer(CatchPanicLayer::custom(middleware::on_panic))
        .layer(DefaultBodyLimit::max(extract::BODY_LIMIT));
    let routes = match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(axum::middleware::from_fn(middleware::observe))
}

/// The OpenAPI document.
pub fn document() -> OpenApi {
    let (_, mut document) = routes::all().split_for_parts();
    openapi::complete(&mut document);
    document
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request, response::Response, routing::get};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use contract::Timings;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    /// An application whose stores are not there: what is refused at the door never asks them.
    async fn state() -> AppState {
        let _ = rustls::crypto::ring::default_provider().install_default();
        auth::install();
        let tokens = auth::Tokens::read(&STANDARD.encode([7; 32]), "http://z.test".into(), false).unwrap();
        let pool = store::connect_lazy("postgres://nobody@127.0.0.1:1/none", 1).unwrap();
        let keys = service::seal::MasterKeys { master_key: STANDARD.encode([7; 32]).into(), master_key_previous: None };
        let sealer = keys.sealer(service::Environment::Development).unwrap();
        AppState::new(pool, queue::Redis::connect("redis://127.0.0.1:1").await.unwrap(), (tokens, sealer), Timings::default())
    }
    async fn send(request: Request<Body>) -> Response {
        router(state().await).oneshot(request).await.unwrap()
    }
    async fn body(response: Response) -> Value {
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }
    fn login(content_type: &str, body: impl Into<Body>) -> Request<Body> {
        Request::post("/api/auth/login").header("content-type", content_type).body(body.into()).unwrap()
    }
    fn request(method: &str, path: &str) -> Request<Body> {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn what_the_router_refuses_is_a_problem_with_the_requests_id() {
        let response = send(Request::get("/api/nowhere").header("x-request-id", "abc-1").body(Body::empty()).unwrap()).await;
        assert_eq!((response.status().as_u16(), &response.headers()["x-request-id"]), (404, &"abc-1".parse().unwrap()));
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem = body(response).await;
        assert_eq!(
            (&problem["code"], &problem["requestId"], &problem["type"]),
            (&json!("not_found"), &json!("abc-1"), &json!("/problems/not_found"))
        );

        let response = send(request("DELETE", "/api/jobs")).await;
        assert_eq!(response.status(), 405);
        assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
        assert_eq!(body(response).await["code"], "method_not_allowed");
    }

    #[tokio::test]
    async fn a_request_id_that_could_forge_a_log_line_is_replaced() {
        let long = "x".repeat(65);
        for forged in ["a b", "{\"x\":1}", &long] {
            let response = send(Request::get("/livez").header("x-request-id", forged).body(Body::empty()).unwrap()).await;
            assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        }
    }

    #[tokio::test]
    async fn every_operation_with_roles_refuses_a_request_without_a_token() {
        let document = serde_json::to_value(document()).unwrap();
        let mut tried = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation["x-roles"].as_array().unwrap().is_empty() {
                    continue;
                }
                let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
                let path = parts.collect::<Vec<_>>().join("/");
                let response = send(request(&method.to_uppercase(), &path)).await;
                assert_eq!(
                    (response.status().as_u16(), &response.headers()["www-authenticate"]),
                    (401, &"Bearer".parse().unwrap()),
                    "{method} {path}"
                );
                assert_eq!(body(response).await["code"], "unauthenticated");
                tried += 1;
            }
        }
        assert!(tried > 20);
    }

    #[tokio::test]
    async fn a_body_is_refused_for_what_is_wrong_with_it() {
        let cases = [
            (login("application/json", "{"), 400, "malformed_request", Value::Null),
            (login("application/json", r#"{"email": "a", "password": 1}"#), 422, "invalid_body", json!("password")),
            (login("application/json", r#"{"email": "a", "password": "b", "rol": "ADMIN"}"#), 422, "invalid_body", json!("rol")),
            (login("text/plain", "{}"), 415, "unsupported_media_type", Value::Null),
            (login("application/json", vec![b' '; extract::BODY_LIMIT + 1]), 413, "body_too_large", Value::Null),
        ];
        for (request, status, code, field) in cases {
            let response = send(request).await;
            assert_eq!(response.status(), status, "{code}");
            let problem = body(response).await;
            assert_eq!((&problem["code"], &problem["field"]), (&json!(code), &field));
        }
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_only_and_tells_nothing() {
        let boom = get(|| async {
            if true {
                panic!("secret")
            }
        });
        let app = observed(Router::new().route("/boom", boom), None).with_state(state().await);
        let response = app.oneshot(request("GET", "/boom")).await.unwrap();
        assert_eq!(response.status(), 500);
        let problem = body(response).await;
        assert_eq!(problem["code"], "internal");
        assert!(!problem.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn the_same_router_answers_lambda_events() {
        let gateway = json!({"version": "2.0", "routeKey": "$default", "rawPath": "/livez", "rawQueryString": "", "headers": {},
            "requestContext": {"http": {"method": "GET", "path": "/livez", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "x"},
                "accountId": "1", "apiId": "a", "domainName": "d", "requestId": "r", "routeKey": "$default", "stage": "$default",
                "time": "12/Mar/2020:19:03:58 +0000", "timeEpoch": 1_583_348_638_390_i64}, "isBase64Encoded": false});
        let balancer = json!({"requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/1"}},
            "httpMethod": "GET", "path": "/livez", "queryStringParameters": {}, "headers": {"host": "x"}, "body": "", "isBase64Encoded": false});
        for event in [gateway, balancer] {
            let event = lambda_http::request::from_str(&event.to_string()).unwrap();
            assert_eq!(send(event.map(|b| Body::from(b.to_vec()))).await.status(), 200);
        }
    }
}
