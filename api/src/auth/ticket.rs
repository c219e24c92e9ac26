//! Tickets: what a browser's `EventSource`, which sends no headers, carries in the address instead of a token. One opens one stream, within
//! 30 s, and opens nothing else.

use axum::{extract::FromRequestParts, extract::Query};
use chrono::DateTime;
use http::request::Parts;
use serde::Deserialize;
use uuid::Uuid;

use super::{Caller, Claims, caller::admit, jwt::TICKET};
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Seconds within which a ticket must be used.
pub const TICKET_LIFETIME: i64 = 30;

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
            sid: self.login,
            until: self.expires_at().map(|end| end.timestamp()),
        };
        app.tokens.seal(&TICKET, &claims).map_err(|why| Problem::internal().because(why))
    }
}

/// A caller that may come with a ticket in the address.
#[derive(Debug, Clone, Copy)]
pub struct TicketCaller(pub Caller);

#[derive(Deserialize)]
struct InAddress {
    ticket: Option<String>,
}

impl FromRequestParts<AppState> for TicketCaller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let ticket = Query::<InAddress>::from_request_parts(parts, app).await.ok().and_then(|Query(q)| q.ticket);
        let caller = match ticket {
            Some(ticket) => redeem(app, &ticket).await?,
            None => Caller::from_request_parts(parts, app).await?,
        };
        parts.extensions.insert(caller);
        Ok(Self(caller))
    }
}

async fn redeem(app: &AppState, ticket: &str) -> Result<Caller, Problem> {
    let refused =
        || Problem::new(Code::Unauthenticated, "the ticket does not count: buy one with POST /api/events/ticket, use it once, within 30 s");
    let claims = app.tokens.open(&TICKET, ticket).map_err(|_| refused())?;
    let until = claims.until.ok_or_else(refused)?;
    let used_within = DateTime::from_timestamp(claims.exp, 0).ok_or_else(refused)?;
    // In Postgres, not Redis: a store that forgets would let it be used again.
    if !store::tokens::spend_ticket(&app.pool, claims.tenant, claims.jti, used_within).await? {
        return Err(refused());
    }
    admit(app, &Claims { exp: until, ..claims }).await
}
