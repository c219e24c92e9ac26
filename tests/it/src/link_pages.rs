//! The link that a customer gets: what it may do, and for how long. What the customer sees is in `browser_link_page`.

use harness::{Stack, Tenant, client::Answer, people::link_token};
use reqwest::{Method, StatusCode};
use serde_json::json;

async fn look(ana: &Tenant, token: &str) -> Answer {
    ana.client.stranger().ask(Method::GET, "/api/link", &[("zaguan-link", token)], None).await
}

#[tokio::test]
async fn a_link_ends_with_the_rights_of_whoever_made_it() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let other = ana.person("ADMIN").await;
    let mail = &other.email;
    for (end, back) in [
        (
            format!("update app_user set state = 'disabled' where email = '{mail}'"),
            format!("update app_user set state = 'active' where email = '{mail}'"),
        ),
        (
            format!("update app_user set rol = 'EMPLEADO' where email = '{mail}'"),
            format!("update app_user set rol = 'ADMIN' where email = '{mail}'"),
        ),
    ] {
        let link = harness::until("the maker to count again", crate::SOON, || async {
            let made = other.client.post("/api/whatsapp/link-page", json!({})).await;
            (made.status == StatusCode::CREATED).then_some(made.body)
        })
        .await;
        let token = link_token(&link);
        assert_eq!(look(&ana, &token).await.status, StatusCode::OK);
        stack.postgres.sql(&end);
        let ended = look(&ana, &token).await;
        assert_eq!((ended.status, &ended.body["code"]), (StatusCode::GONE, &json!("link_expired")), "{end}");
        let started = ana.client.stranger().ask(Method::POST, "/api/link/start", &[("zaguan-link", &token)], None).await;
        assert_eq!(started.status, StatusCode::GONE);
        stack.postgres.sql(&back);
    }
    for end in ["revoked_at = clock_timestamp()", "expires_at = clock_timestamp()"] {
        let key = ana.key(json!({"scopes": ["sessions:link"]})).await;
        let token = link_token(&key.client.post("/api/whatsapp/link-page", json!({})).await.ok());
        assert_eq!(look(&ana, &token).await.status, StatusCode::OK);
        stack.postgres.sql(&format!("update api_key set {end}"));
        assert_eq!(look(&ana, &token).await.status, StatusCode::GONE, "{end}");
    }
}

#[tokio::test]
async fn a_key_that_only_links_lets_no_customer_replace_the_account() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let asked = json!({"allowNewAccount": true});
    let links = ana.key(json!({"scopes": ["sessions:link"]})).await;
    let refused = links.client.post("/api/whatsapp/link-page", asked.clone()).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::FORBIDDEN, &json!("scope_missing")));
    let controls = ana.key(json!({"scopes": ["sessions:link", "sessions:control"]})).await;
    assert_eq!(controls.client.post("/api/whatsapp/link-page", asked).await.status, StatusCode::CREATED);
}
