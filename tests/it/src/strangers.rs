//! Guessing is slowed down where it comes from, and locks nobody else out.

use harness::Stack;
use reqwest::{Method, StatusCode};
use serde_json::json;

#[tokio::test]
async fn a_stranger_is_slowed_down_and_the_admin_is_not_locked_out() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("ADMIN").await;
    let at = |address: &str| ana.client.stranger().calling_from(address.parse().unwrap());
    let stranger = at("127.0.0.2");
    for _ in 0..10 {
        assert_eq!(stranger.try_login(&person.email, "a guess").await.status, StatusCode::UNAUTHORIZED);
    }
    let refused = stranger.try_login(&person.email, &person.password).await;
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (429, &json!("rate_limited")), "the right password is no way round it");
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 901);

    // What the stranger says of itself changes nothing.
    for said in ["9.9.9.9", "127.0.0.1", "127.0.0.99", "127.0.0.3, 127.0.0.4"] {
        let body = json!({"email": person.email.to_uppercase(), "password": "a guess"});
        let answer = stranger.ask(Method::POST, "/api/auth/login", &[("x-forwarded-for", said), ("x-real-ip", said)], Some(body)).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{said}");
    }
    assert!(at("127.0.0.1").try_login(&person.email, &person.password).await.status.is_success(), "the ADMIN is elsewhere");
    assert_eq!(
        stranger.try_login("nobody@x.example", "a guess").await.status,
        StatusCode::UNAUTHORIZED,
        "another account is another count"
    );

    // Behind our proxy each caller has a count of its own.
    let proxied = async |client: &str, password: &str| {
        let body = json!({"email": person.email, "password": password});
        let headers = [("x-forwarded-for", client)];
        at("127.0.0.99").ask(Method::POST, "/api/auth/login", &headers, Some(body)).await.status.as_u16()
    };
    for _ in 0..10 {
        assert_eq!(proxied("1.1.1.1, 198.51.100.7", "a guess").await, 401);
    }
    assert_eq!(proxied("9.9.9.9, 198.51.100.7", "a guess").await, 429, "what stands before our proxy's word is made up");
    assert_eq!(proxied("198.51.100.7, 198.51.100.8", &person.password).await, 200);

    let rows = ana.client.get(&format!("/api/audit?target={}", person.id)).await.ok();
    let count = |action: &str| rows["items"].as_array().unwrap().iter().filter(|r| r["action"] == action).count();
    assert_eq!((count("login.failed"), count("login.throttled")), (1, 1), "aggregated: {rows}");
}

#[tokio::test]
async fn without_redis_everybody_is_let_through_and_it_is_counted() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("EMPLEADO").await;
    stack.redis.kill().await;
    for _ in 0..3 {
        assert_eq!(ana.client.try_login(&person.email, "a guess").await.status, StatusCode::UNAUTHORIZED);
    }
    assert!(ana.client.try_login(&person.email, &person.password).await.status.is_success());
    let metrics = reqwest::get(stack.api.metrics_url()).await.unwrap().text().await.unwrap();
    assert!(metrics.lines().any(|l| l.starts_with("zaguan_throttle_open_total") && l.contains("redis")), "{metrics}");
}
