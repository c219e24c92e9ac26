//! Pages for people who have no other program yet: where the one-time links of users lead. The token stands behind `#`, which browsers send
//! to nobody; the page gives it to the API with the password.

use std::sync::LazyLock;

use axum::{
    Router,
    response::{Html, IntoResponse},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::header;
use ring::digest::{SHA256, digest};

use crate::state::AppState;

const ACCOUNT: &str = include_str!("account.html");

/// Only what stands in the page runs, and it talks to us alone.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| STANDARD.encode(digest(&SHA256, inside(ACCOUNT, tag).as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        hash("script"),
        hash("style")
    )
});

fn inside<'a>(page: &'a str, tag: &str) -> &'a str {
    let rest = page.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{tag}>")).map_or("", |(text, _)| text)
}

/// At the root.
pub fn router() -> Router<AppState> {
    Router::new().route("/invitation", get(account)).route("/password-reset", get(account))
}

async fn account() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(ACCOUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_script_and_the_style_that_are_in_the_page() {
        assert!(inside(ACCOUNT, "script").contains("invitations/accept") && inside(ACCOUNT, "style").contains("font"));
        assert_eq!(ACCOUNT.matches("<script").count() + ACCOUNT.matches("<style").count(), 2);
        assert!(!ACCOUNT.contains("style=") && !ACCOUNT.contains("onclick") && !POLICY.contains("unsafe"));
    }
}
