//! Tickets: what a browser's `EventSource`, which sends no headers, carries in the address instead of a token. One opens one stream, within
//! 30 s, and opens nothing else.

use axum::extract::Query;
use chrono::DateTime;
use http::{Uri, request::Parts};
use serde::Deserialize;
use uuid::Uuid;

use super::{Caller, Claims, Credential, jwt::TICKET};
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Seconds within which a ticket must be used.
pub const TICKET_LIFETIME: i64 = 30;
/// The one operation that takes tickets.
const STREAM: &str = "/api/events/stream";

impl Caller {
    /// A ticket for one stream of this caller.
    ///
    /// # Errors
    /// `unavailable` where the database does not tell the time.
    pub async fn ticket(&self, app: &AppState) -> Result<String, Problem> {
        let now = store::snapshot::now(&app.pool).await?.timestamp();
        let claims = Claims {
            user: self.user,
            rol: self.rol.as_str().to_owned(),
            tenant: self.tenant,
            iss: String::new(),
            aud: String::new(),
            exp: now + TICKET_LIFETIME,
            iat: now,
            jti: Uuid::now_v7(),
            sid: self.login().unwrap_or_default(),
            of: Some(self.credential()),
        };
        app.tokens.seal(&TICKET, &claims).map_err(|why| Problem::internal().because(why))
    }
}

#[derive(Deserialize)]
struct InAddress {
    ticket: Option<String>,
}

/// The ticket in the address of a request that may come with one.
pub(super) fn of(parts: &Parts) -> Option<String> {
    let query = |uri: &Uri| Query::<InAddress>::try_from_uri(uri).ok().and_then(|Query(q)| q.ticket);
    (parts.uri.path() == STREAM).then(|| query(&parts.uri)).flatten()
}

/// What its buyer showed; it counts once.
pub(super) async fn redeem(app: &AppState, ticket: &str) -> Result<Credential, Problem> {
    let refused =
        || Problem::new(Code::Unauthenticated, "the ticket does not count: buy one with POST /api/events/ticket, use it once, within 30 s");
    let claims = app.tokens.open(&TICKET, ticket).map_err(|_| refused())?;
    let credential = claims.of.ok_or_else(refused)?;
    let used_within = DateTime::from_timestamp(claims.exp, 0).ok_or_else(refused)?;
    // In Postgres, not Redis: a store that forgets would let it be used again.
    if !store::tokens::spend_ticket(&app.pool, claims.tenant, claims.jti, used_within).await? {
        return Err(refused());
    }
    Ok(credential)
}
