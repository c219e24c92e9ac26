//! Pages of other origins: those of the operator's list may call, all others find nothing that a browser would let them read.

use harness::{PAGE_ORIGIN, Stack};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::json;

fn said<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |v| v.to_str().expect("text"))
}

async fn ask(stack: &Stack, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", stack.api.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("the API answers")
}

#[tokio::test]
async fn a_page_of_the_list_may_call_with_what_callers_send_and_read_what_they_need() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let wanted = "authorization,content-type,idempotency-key,prefer";
    let asks = [("origin", PAGE_ORIGIN), ("access-control-request-method", "POST"), ("access-control-request-headers", wanted)];
    let allowed = ask(&stack, Method::OPTIONS, "/api/messages", &asks).await;
    assert!(allowed.status().is_success());
    let headers = allowed.headers();
    assert_eq!(said(headers, "access-control-allow-origin"), PAGE_ORIGIN);
    assert!(said(headers, "access-control-allow-methods").contains("POST"));
    let taken = said(headers, "access-control-allow-headers").to_ascii_lowercase();
    assert!(wanted.split(',').all(|name| taken.contains(name)), "{taken}");
    assert_eq!(headers.get("access-control-allow-credentials"), None);

    let bearer = format!("Bearer {}", ana.client.token());
    let list = ask(&stack, Method::GET, "/api/chats", &[("origin", PAGE_ORIGIN), ("authorization", &bearer)]).await;
    assert_eq!((list.status().as_u16(), said(list.headers(), "access-control-allow-origin")), (200, PAGE_ORIGIN));
    let shown = said(list.headers(), "access-control-expose-headers").to_ascii_lowercase();
    for name in ["zaguan-seq", "retry-after", "location", "ratelimit", "ratelimit-policy", "idempotency-replayed", "x-request-id"] {
        assert!(shown.split(',').any(|s| s.trim() == name), "{name} in {shown}");
    }
    assert!(said(list.headers(), "vary").to_ascii_lowercase().contains("origin"), "no cache answers another page with it");
    let refusal = ask(&stack, Method::GET, "/api/chats", &[("origin", PAGE_ORIGIN)]).await;
    assert_eq!((refusal.status().as_u16(), said(refusal.headers(), "access-control-allow-origin")), (401, PAGE_ORIGIN), "it can read why");

    // What an `EventSource` opens.
    let ticket = ana.client.post("/api/events/ticket", json!({})).await.ok()["ticket"].as_str().unwrap().to_owned();
    let stream = ask(&stack, Method::GET, &format!("/api/events/stream?ticket={ticket}"), &[("origin", PAGE_ORIGIN)]).await;
    assert_eq!((stream.status().as_u16(), said(stream.headers(), "access-control-allow-origin")), (200, PAGE_ORIGIN));
}

#[tokio::test]
async fn a_page_of_any_other_origin_may_not() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let bearer = format!("Bearer {}", ana.client.token());
    let (path, port) = (format!("{PAGE_ORIGIN}/"), format!("{PAGE_ORIGIN}:8443"));
    let (longer, plain) = (format!("{PAGE_ORIGIN}.evil.example"), PAGE_ORIGIN.replace("https", "http"));
    for origin in ["https://evil.example", "null", "*", &path, &port, &longer, &plain, &PAGE_ORIGIN.to_uppercase()] {
        let asks = [("origin", origin), ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
        let preflight = ask(&stack, Method::OPTIONS, "/api/chats", &asks).await;
        assert_eq!(preflight.headers().get("access-control-allow-origin"), None, "{origin}");
        let list = ask(&stack, Method::GET, "/api/chats", &[("origin", origin), ("authorization", &bearer)]).await;
        assert_eq!(list.headers().get("access-control-allow-origin"), None, "{origin}");
    }
}
