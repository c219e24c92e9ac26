//! `Idempotency-Key` on requests that make something else than a job: a repeated one is answered with what the first one made, as it is now.
//! A secret is shown to the first only: it is kept nowhere.

use axum::{
    extract::{FromRequestParts, OriginalUri},
    response::Response,
};
use http::request::Parts;
use store::{accept::IdempotencyKey as StoredKey, idempotency::Before};

use crate::{
    auth::Caller,
    extract::IdempotencyKey,
    problem::{Code, Problem},
    state::AppState,
};

/// The key that a request came with, if any, and what it is compared within: who, what and where.
#[derive(Debug, Clone)]
pub struct Once(Option<StoredKey>);

impl FromRequestParts<AppState> for Once {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let IdempotencyKey(key) = IdempotencyKey::from_request_parts(parts, app).await?;
        let Some(key) = key else { return Ok(Self(None)) };
        let caller = Caller::from_request_parts(parts, app).await?;
        let path = parts.extensions.get::<OriginalUri>().map_or_else(|| parts.uri.path(), |uri| uri.path()).to_owned();
        let method = parts.method.to_string();
        Ok(Self(Some(StoredKey { principal: caller.principal.uuid(), method, path, key, body_hash: [0; 32] })))
    }
}

impl Once {
    /// The key of a request with this body.
    pub fn with_body(self, sha256: [u8; 32]) -> Option<StoredKey> {
        self.0.map(|key| StoredKey { body_hash: sha256, ..key })
    }
    /// The key of a request without one.
    pub fn without_body(self) -> Option<StoredKey> {
        self.with_body([0; 32])
    }
}

/// What the same request made before.
///
/// # Errors
/// `idempotency_key_reused` where another one came with this key; `unavailable`.
pub async fn made<T: std::str::FromStr>(app: &AppState, caller: &Caller, key: Option<&StoredKey>) -> Result<Option<T>, Problem> {
    let Some(key) = key else { return Ok(None) };
    match store::idempotency::before(&app.pool, caller.tenant, key).await? {
        None => Ok(None),
        // Written by us only.
        Some(Before::Made(target)) => target.parse().map(Some).map_err(|_| Problem::internal()),
        Some(Before::OtherBody) => Err(key_reused()),
    }
}

/// For what holds nothing but a secret: refuses a request that was served before.
///
/// # Errors
/// `secret_shown_once`; as [`made`].
pub async fn first(app: &AppState, caller: &Caller, key: Option<&StoredKey>) -> Result<(), Problem> {
    match made::<String>(app, caller, key).await? {
        None => Ok(()),
        Some(_) => Err(shown_once()),
    }
}

/// The refusal of a request whose answer was a secret.
pub fn shown_once() -> Problem {
    Problem::new(Code::SecretShownOnce, "it was done before, and its secret is kept nowhere: use another key to make a new one")
}

/// The refusal of a key that came with another body.
pub fn key_reused() -> Problem {
    Problem::new(Code::IdempotencyKeyReused, "this key came with another body before").field("Idempotency-Key")
}

/// Marks the answer to a repeated request.
pub fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert("idempotency-replayed", http::HeaderValue::from_static("true"));
    response
}
