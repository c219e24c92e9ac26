//! Who calls.

use axum::extract::FromRequestParts;
use chrono::{DateTime, Utc};
use contract::{TenantId, UserId};
use http::{header, request::Parts};
use store::{
    grants::Viewer,
    users::{Rol, Standing},
};
use uuid::Uuid;

use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// A user with a token that counts. Default deny: a handler without this extractor (or one made of it) serves nobody's data.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Whose.
    pub tenant: TenantId,
    /// Who.
    pub user: UserId,
    /// As it is now, whatever the token says.
    pub rol: Rol,
    /// The login that the token came from.
    pub login: Uuid,
    expires_at: Option<DateTime<Utc>>,
}

impl Caller {
    /// In whose eyes the store looks.
    pub const fn viewer(&self) -> Viewer {
        Viewer::new(self.tenant, self.user, self.rol)
    }
    /// When the credential's time is over, by the database's clock; none: never. A stream ends then.
    pub const fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.expires_at
    }

    /// The same caller as it is now, from an answer of the database that is at most a second old: whoever holds a request open asks before
    /// each thing it hands out, and ends with what this refuses.
    ///
    /// # Errors
    /// As for a new request: `unauthenticated`, `token_expired`, `tenant_suspended`, `unavailable`.
    pub async fn recheck(&self, app: &AppState) -> Result<Self, Problem> {
        let (status, now) = app.standings.of(&app.pool, self.tenant, self.user, self.login).await?.ok_or_else(refused)?;
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Problem::new(Code::TokenExpired, "refresh it: POST /api/auth/refresh"));
        }
        match status.standing {
            Standing::TenantSuspended => {
                return Err(Problem::new(Code::TenantSuspended, "the operator of this installation suspended the tenant"));
            }
            Standing::UserInactive => return Err(refused()),
            Standing::Active => {}
        }
        if !status.login_live || self.rol != status.rol { Err(refused()) } else { Ok(*self) }
    }

    /// # Errors
    /// `role_forbidden` for everyone but an ADMIN.
    pub fn admin(self) -> Result<Admin, Problem> {
        match self.rol {
            Rol::Admin => Ok(Admin(self)),
            Rol::Empleado => Err(Problem::new(Code::RoleForbidden, "only an ADMIN may do this")),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(*caller);
        }
        let caller = authenticate(parts, app).await?;
        tracing::Span::current().record("tenant", tracing::field::display(caller.tenant));
        tracing::Span::current().record("user", tracing::field::display(caller.user));
        // Other extractors of the same request find it there.
        parts.extensions.insert(caller);
        Ok(caller)
    }
}

fn refused() -> Problem {
    Problem::new(Code::Unauthenticated, "send an access token that counts: Authorization: Bearer …")
}

async fn authenticate(parts: &Parts, app: &AppState) -> Result<Caller, Problem> {
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or_else(refused)?;
    let (scheme, token) = header.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused());
    }
    let claims = app.tokens.check(token.trim()).map_err(|_| refused())?;
    let rol = Rol::from_name(&claims.rol).ok_or_else(refused)?;
    let expires_at = Some(DateTime::from_timestamp(claims.exp, 0).ok_or_else(refused)?);
    Caller { tenant: claims.tenant, user: claims.user, rol, login: claims.sid, expires_at }.recheck(app).await
}

/// A caller who is an ADMIN of its tenant.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub Caller);

impl FromRequestParts<AppState> for Admin {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, app).await?.admin()
    }
}
