//! Who holds the URL of a link page: a person without an account, who may see one session being linked and nothing else.

use axum::extract::FromRequestParts;
use http::request::Parts;
use store::{
    link_pages::{self, LinkPage},
    sessions::{self, Session},
};

use super::{hash_of, jwt};
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

const PREFIX: &str = "zgl_";
/// Carries the token: the URL has it after `#`, so that no server or proxy on the way logs it.
pub const HEADER: &str = "zaguan-link";

/// A fresh token and what is stored of it; `None` where the system has no randomness.
pub fn new_token() -> Option<(String, store::tokens::Hash)> {
    let token = format!("{PREFIX}{}", jwt::encode(&jwt::random()?));
    let hash = hash_of(&token);
    Some((token, hash))
}

/// The holder of an open page.
#[derive(Debug, Clone)]
pub struct LinkCaller {
    /// What is stored of the token.
    pub hash: store::tokens::Hash,
    /// What it may do.
    pub page: LinkPage,
    /// The session as it was when the request came.
    pub session: Session,
}

impl FromRequestParts<AppState> for LinkCaller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let token = parts.headers.get(HEADER).and_then(|v| v.to_str().ok());
        let token = token.ok_or_else(|| Problem::new(Code::Unauthenticated, "send the token of the link: Zaguan-Link: zgl_…"))?;
        let hash = hash_of(token);
        // Unknown and run out are answered alike.
        let gone = || Problem::new(Code::LinkExpired, "ask for another link");
        let page = link_pages::fetch(&app.pool, &hash).await?.ok_or_else(gone)?;
        let session = sessions::fetch(&app.pool, page.tenant, &sessions::Named::Id(page.session)).await?.ok_or_else(gone)?;
        tracing::Span::current().record("tenant", tracing::field::display(page.tenant));
        tracing::Span::current().record("session", tracing::field::display(page.session));
        Ok(Self { hash, page, session })
    }
}
