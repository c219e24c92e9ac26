//! A token counts for whom it was made, for what it was made, and no longer than it should.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::join_all;
use harness::{Stack, client::ApiClient, until};
use reqwest::StatusCode;
use ring::hmac;
use serde_json::{Value, json};

async fn log_in(stack: &Stack, name: &str) -> (ApiClient, Value) {
    let (email, password) = (format!("{name}@tokens.example"), "a good password");
    stack.make_tenant(name, &email, password).expect("a login");
    let stranger = ApiClient::nobody(&stack.api.url());
    let tokens = stranger.try_login(&email, password).await.ok();
    (stranger.with_token(tokens["accessToken"].as_str().expect("a login")), tokens)
}

async fn refresh(client: &ApiClient, token: &Value) -> (u16, Value) {
    let answer = client.stranger().post("/api/auth/refresh", json!({"refreshToken": token})).await;
    (answer.status.as_u16(), answer.body)
}

#[tokio::test]
async fn a_refresh_token_is_good_once_its_predecessor_for_half_a_minute_and_an_older_one_ends_the_login() {
    let stack = Stack::start().await;
    let (ana, first) = log_in(&stack, "ana").await;
    let first = &first["refreshToken"];

    // An answer that was lost is given again, to many at once too.
    let answers = join_all((0..20).map(|_| refresh(&ana, first))).await;
    let second = answers[0].1["refreshToken"].clone();
    assert!(answers.iter().all(|(status, body)| *status == 200 && body["refreshToken"] == second), "{answers:?}");
    let (_, third) = refresh(&ana, &second).await;
    let third = &third["refreshToken"];
    assert!(third.is_string() && *third != second);

    let (status, body) = refresh(&ana, first).await;
    assert_eq!((status, &body["code"]), (401, &json!("invalid_refresh_token")));
    assert_eq!(refresh(&ana, third).await.0, 401, "somebody has a copy: the whole login ends");
    until("the access token to be refused", Duration::from_secs(2), || async {
        (ana.get("/api/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;

    let (bea, first) = log_in(&stack, "bea").await;
    let (_, second) = refresh(&bea, &first["refreshToken"]).await;
    stack.sql("update refresh_token set rotated_at = rotated_at - interval '31 seconds'").await.unwrap();
    assert_eq!(refresh(&bea, &first["refreshToken"]).await.0, 401);
    assert_eq!(refresh(&bea, &second["refreshToken"]).await.0, 401);
}

#[tokio::test]
async fn a_logout_ends_the_login_and_no_other() {
    let stack = Stack::start().await;
    let (ana, tokens) = log_in(&stack, "ana").await;
    let other = ana.try_login("ana@tokens.example", "a good password").await.ok();
    ana.post("/api/auth/logout", json!({})).await.ok();
    assert_eq!(ana.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh(&ana, &tokens["refreshToken"]).await.0, 401);
    assert!(ana.with_token(other["accessToken"].as_str().unwrap()).get("/api/me").await.status.is_success());
    ana.stranger().post("/api/auth/logout", json!({"refreshToken": other["refreshToken"]})).await.ok();
    assert_eq!(refresh(&ana, &other["refreshToken"]).await.0, 401);
}

#[tokio::test]
async fn a_forged_token_and_one_made_for_something_else_open_nothing() {
    let stack = Stack::start().await;
    let (ana, tokens) = log_in(&stack, "ana").await;
    let good = ana.token();
    let parts: Vec<&str> = good.split('.').collect();
    let jwks = ana.stranger().get("/.well-known/jwks.json").await.ok();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
    let kid = &header["kid"];
    let public = jwks["keys"].as_array().unwrap().iter().find(|k| k["kid"] == *kid).expect("the signing key is published");
    assert_eq!((&header["alg"], &header["typ"], &public["d"]), (&json!("EdDSA"), &json!("at+jwt"), &Value::Null));
    let x = public["x"].as_str().unwrap();

    let signed = |header: Value, claims: &str, key: Option<&[u8]>| {
        let start = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let signature = key.map(|key| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), start.as_bytes()));
        format!("{start}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref().map(|s| s.as_ref()).unwrap_or_default()))
    };
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["rol"] = json!("ADMIN");
    claims["adminId"] = json!("ten_00000000000000000000000000");
    let other_tenant = URL_SAFE_NO_PAD.encode(claims.to_string());
    let made = |alg: &str| json!({"alg": alg, "typ": "at+jwt", "kid": kid});
    let mut cases = vec![
        ("alg none", signed(made("none"), parts[1], None)),
        ("alg none without a signature's dot", format!("{}.{}", parts[0], parts[1])),
        ("HS256 keyed with the public key", signed(made("HS256"), parts[1], Some(&URL_SAFE_NO_PAD.decode(x).unwrap()))),
        ("HS256 keyed with the public key's text", signed(made("HS256"), parts[1], Some(x.as_bytes()))),
        ("another tenant under the old signature", format!("{}.{other_tenant}.{}", parts[0], parts[2])),
        ("a refresh token", tokens["refreshToken"].as_str().unwrap().to_owned()),
        ("a cut signature", good[..good.len() - 4].to_owned()),
        ("nothing", String::from("x")),
        ("a key that is none", format!("zgk_00000000000000000000000000_{x}")),
        ("half a key", "zgk_".to_owned()),
    ];
    for path in ["../../dev/null", "/proc/self/environ", "' or 1=1 --", ""] {
        cases.push(("a kid that is a path", signed(json!({"alg": "HS256", "typ": "at+jwt", "kid": path}), parts[1], Some(b""))));
    }
    let own = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("mine")});
    cases.push(("an embedded key", signed(json!({"alg": "HS256", "typ": "at+jwt", "kid": kid, "jwk": own}), parts[1], Some(b"mine"))));
    cases.push(("a key's address", signed(json!({"alg": "EdDSA", "typ": "at+jwt", "jku": "http://x.example"}), parts[1], Some(b"mine"))));
    let x5u = json!({"alg": "HS256", "typ": "at+jwt", "kid": kid, "x5u": "http://x.example/chain.pem"});
    cases.push(("a certificate's address", signed(x5u, parts[1], Some(b"mine"))));
    for (what, token) in cases {
        let answer = ana.with_token(&token).get("/api/me").await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (401, &json!("unauthenticated")), "{what}");
    }
    let both = ana.ask(reqwest::Method::GET, "/api/me", &[("x-api-key", "zgk_00000000000000000000000000_x")], None).await;
    assert_eq!(both.status, StatusCode::UNAUTHORIZED, "two credentials are none");
    assert_eq!(ana.stranger().get(&format!("/api/me?access_token={good}")).await.status, StatusCode::UNAUTHORIZED, "never in a URL");
    assert!(ana.get("/api/me").await.status.is_success());
}
