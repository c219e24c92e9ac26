//! Who calls: a person with a token, or a machine with a key.

use std::{net::IpAddr, time::Duration};

use axum::extract::FromRequestParts;
use chrono::{DateTime, Utc};
use contract::{KeyId, Principal, Scope, TenantId, UserId};
use http::{header, request::Parts};
use serde::{Deserialize, Serialize};
use store::{
    grants::Viewer,
    keys::{self, Reach},
    tokens::Hash,
    users::{self, Rol, Standing},
};
use uuid::Uuid;

use super::{
    address,
    rule::{self, ChatNeed, Rule, Scopes},
    secret::ApiKey,
    standing::Known,
    ticket,
};
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// What the caller showed, without its secret: enough to ask again whether it still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credential {
    /// An access token.
    Token {
        /// Whose.
        tenant: TenantId,
        /// Who.
        user: UserId,
        /// The role it was made for.
        admin: bool,
        /// The login it came from.
        login: Uuid,
        /// When its time is over.
        expires_at: DateTime<Utc>,
    },
    /// An API key.
    Key {
        /// Which.
        id: KeyId,
        /// Of its secret.
        hash: Hash,
    },
}

/// Somebody whose credential counts and who may call this operation. Default deny: a handler without this extractor (or one made of it)
/// serves nobody's data.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Whose.
    pub tenant: TenantId,
    /// Who: what idempotency, jobs and messages remember.
    pub principal: Principal,
    /// The role of now, whatever the token says; of a key, its maker's.
    pub rol: Rol,
    /// Whether it may write to people whose chats were not granted to it.
    pub can_start_chats: bool,
    /// The person who answers for it: itself, or the key's maker.
    pub user: UserId,
    credential: Credential,
    viewer: Viewer,
    scopes: Option<Scopes>,
    reach: Reach,
    expires_at: Option<DateTime<Utc>>,
    /// When it was asked for, by the database's clock.
    now: DateTime<Utc>,
    rule: Rule,
}

/// What somebody shows in a message, where no header can be sent.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// An access token, or an API key.
    Secret(&'a str),
    /// A ticket for one stream.
    Ticket(&'a str),
}

impl Caller {
    /// In whose eyes the store looks.
    pub const fn viewer(&self) -> Viewer {
        self.viewer
    }
    /// What the operation needs in the chats that it touches.
    pub const fn chat_need(&self) -> ChatNeed {
        self.rule.chat
    }
    /// What was shown: may be kept (of a stream's ticket, for as long as that counts) and shown again to [`Caller::with`].
    pub const fn credential(&self) -> Credential {
        self.credential
    }
    /// The login that the token came from; none: a key.
    pub const fn login(&self) -> Option<Uuid> {
        match self.credential {
            Credential::Token { login, .. } => Some(login),
            Credential::Key { .. } => None,
        }
    }
    /// What a key may be used for; none: a person.
    pub const fn scopes(&self) -> Option<Scopes> {
        self.scopes
    }
    /// Whether it may do what the scope is for, as far as scopes go: a person always may.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.is_none_or(|scopes| scopes.has(scope))
    }
    /// Whether it may see what links a phone: codes to scan and to type.
    pub fn may_link(&self) -> bool {
        self.rol == Rol::Admin && self.has(Scope::SessionsLink)
    }
    /// When the credential's time is over, by the database's clock; none: never. A stream ends then.
    pub const fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.expires_at
    }

    /// How long the credential still counts; none: for ever.
    pub fn ends_in(&self) -> Option<Duration> {
        self.expires_at.map(|end| (end - self.now).to_std().unwrap_or_default())
    }

    /// Who shows this in a message from an address, if it counts and the rule lets it in.
    ///
    /// # Errors
    /// As for a new request.
    pub async fn who_shows(app: &AppState, shown: Shown<'_>, from: Option<IpAddr>, rule: Rule) -> Result<Self, Problem> {
        let credential = match shown {
            Shown::Secret(text) => credential(text, app)?,
            Shown::Ticket(text) => ticket::redeem(app, text).await?,
        };
        if let Credential::Key { .. } = credential {
            from_allowed_address(app, credential, from).await?;
        }
        Self::with(app, credential, rule).await
    }

    /// The same caller as it is now, from an answer of the database that is at most a second old: whoever holds a request open asks before
    /// each thing it hands out, and ends with what this refuses. Grants are not part of it: they are part of every query.
    ///
    /// # Errors
    /// As for a new request: `unauthenticated`, `token_expired`, `tenant_suspended`, `role_forbidden`, `scope_missing`, `unavailable`.
    pub async fn recheck(&self, app: &AppState) -> Result<Self, Problem> {
        Self::with(app, self.credential, self.rule).await
    }

    /// Who has this credential, if it counts and the rule lets it in.
    ///
    /// # Errors
    /// As for a new request.
    pub async fn with(app: &AppState, credential: Credential, rule: Rule) -> Result<Self, Problem> {
        let (known, now) = app.standings.of(&app.pool, credential).await?.ok_or_else(refused)?;
        let caller = match (known, credential) {
            (Known::User(status), Credential::Token { tenant, user, admin, login, expires_at }) => {
                let rol = if admin { Rol::Admin } else { Rol::Empleado };
                if !status.login_live || rol != status.rol {
                    return Err(refused());
                }
                let viewer = match rol {
                    Rol::Admin => Viewer::all(tenant),
                    Rol::Empleado => Viewer::granted(tenant, Principal::User(user)),
                };
                let credential = Credential::Token { tenant, user, admin, login, expires_at };
                let can_start_chats = status.can_start_chats;
                check(&status.standing)?;
                let (principal, expires_at) = (Principal::User(user), Some(expires_at));
                Self {
                    tenant,
                    principal,
                    rol,
                    can_start_chats,
                    user,
                    credential,
                    viewer,
                    scopes: None,
                    reach: Reach::Tenant,
                    expires_at,
                    now,
                    rule,
                }
            }
            (Known::Key(status), Credential::Key { id, .. }) => {
                if status.revoked {
                    return Err(refused());
                }
                check(&status.standing)?;
                Self { now, ..Self::of_key(id, &status, credential, rule) }
            }
            (Known::User(_), Credential::Key { .. }) | (Known::Key(_), Credential::Token { .. }) => return Err(refused()),
        };
        if caller.expires_at.is_some_and(|end| end <= now) {
            return Err(Problem::new(Code::TokenExpired, "its time is over: POST /api/auth/refresh, or ask an ADMIN for another key"));
        }
        rule.admit(caller.rol, caller.scopes)?;
        Ok(caller)
    }

    /// A key sees what was granted to it, or, without lists, what its maker sees now.
    fn of_key(id: KeyId, status: &keys::Status, credential: Credential, rule: Rule) -> Self {
        let principal = Principal::Key(id);
        let viewer = match (status.reach, status.rol) {
            (Reach::Sessions | Reach::Chats, _) => Viewer::granted(status.tenant, principal),
            (Reach::Tenant, Rol::Admin) => Viewer::all(status.tenant),
            (Reach::Tenant, Rol::Empleado) => Viewer::granted(status.tenant, Principal::User(status.maker)),
        };
        Self {
            tenant: status.tenant,
            principal,
            rol: status.rol,
            can_start_chats: false,
            user: status.maker,
            credential,
            viewer,
            scopes: Some(status.scopes.iter().copied().collect()),
            reach: status.reach,
            expires_at: status.expires_at,
            now: status.now,
            rule,
        }
    }

    /// An ADMIN of the whole tenant, or a key that reaches all of it.
    ///
    /// # Errors
    /// `role_forbidden` for everyone else.
    pub fn admin(self) -> Result<Admin, Problem> {
        match (self.rol, self.reach) {
            (Rol::Admin, Reach::Tenant) => Ok(Admin(self)),
            (Rol::Admin, Reach::Sessions | Reach::Chats) => Err(Problem::new(Code::RoleForbidden, "the key does not reach so far")),
            (Rol::Empleado, _) => Err(Problem::new(Code::RoleForbidden, "only an ADMIN may do this")),
        }
    }

    /// The same for a session that it reaches: a key with a list of sessions administers those.
    ///
    /// # Errors
    /// `role_forbidden` for everyone else.
    pub fn session_admin(self) -> Result<Admin, Problem> {
        match (self.rol, self.reach) {
            (Rol::Admin, Reach::Sessions) => Ok(Admin(self)),
            (Rol::Admin, Reach::Tenant | Reach::Chats) | (Rol::Empleado, _) => self.admin(),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(*caller);
        }
        let rule = rule::declared(parts)?;
        let credential = match ticket::of(parts) {
            Some(ticket) => ticket::redeem(app, &ticket).await?,
            None => shown(parts, app)?,
        };
        if let Credential::Key { .. } = credential {
            from_allowed_address(app, credential, address::client(parts, app)).await?;
        }
        let caller = Self::with(app, credential, rule).await?;
        let span = tracing::Span::current();
        span.record("tenant", tracing::field::display(caller.tenant));
        span.record("user", tracing::field::display(caller.principal));
        // The guard put it there for the extractors that follow.
        parts.extensions.insert(caller);
        Ok(caller)
    }
}

fn refused() -> Problem {
    Problem::new(Code::Unauthenticated, "send an access token or API key that counts: Authorization: Bearer …")
}

fn check(standing: &Standing) -> Result<(), Problem> {
    match standing {
        Standing::Active => Ok(()),
        Standing::UserInactive => Err(refused()),
        Standing::TenantSuspended => Err(Problem::new(Code::TenantSuspended, "the operator of this installation suspended the tenant")),
    }
}

/// What the request shows. Two credentials at once are none: which of them was meant?
fn shown(parts: &Parts, app: &AppState) -> Result<Credential, Problem> {
    let text = |name: &str| {
        let mut all = parts.headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(one), None) => one.to_str().map(Some).map_err(|_| refused()),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(refused()),
        }
    };
    let bearer = text(header::AUTHORIZATION.as_str())?;
    let shown = match (bearer, text("x-api-key")?) {
        (Some(header), None) => {
            let (scheme, token) = header.split_once(' ').ok_or_else(refused)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(refused());
            }
            token.trim()
        }
        (None, Some(key)) if ApiKey::looks_like(key) => key,
        (None, _) | (Some(_), Some(_)) => return Err(refused()),
    };
    credential(shown, app)
}

/// What a token or key says of itself.
fn credential(shown: &str, app: &AppState) -> Result<Credential, Problem> {
    if ApiKey::looks_like(shown) {
        let (id, hash) = ApiKey::read(shown).ok_or_else(refused)?;
        return Ok(Credential::Key { id, hash });
    }
    let claims = app.tokens.check(shown).map_err(|_| refused())?;
    let admin = Rol::from_name(&claims.rol).ok_or_else(refused)? == Rol::Admin;
    let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or_else(refused)?;
    Ok(Credential::Token { tenant: claims.tenant, user: claims.user, admin, login: claims.sid, expires_at })
}

/// A key with a list of networks is refused from elsewhere, and where nobody knows from where.
async fn from_allowed_address(app: &AppState, credential: Credential, from: Option<IpAddr>) -> Result<(), Problem> {
    let Some((Known::Key(status), _)) = app.standings.of(&app.pool, credential).await? else { return Err(refused()) };
    let Some(cidrs) = &status.cidrs else { return Ok(()) };
    let inside = |from: IpAddr| cidrs.iter().filter_map(|text| address::network(text).ok()).any(|net| net.contains(&from));
    if from.is_some_and(inside) { Ok(()) } else { Err(Problem::new(Code::AddressForbidden, "this key may not be used from this address")) }
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

impl Known {
    /// When it was asked of the database.
    pub(super) fn now(&self) -> DateTime<Utc> {
        match self {
            Self::User(users::Status { now, .. }) => *now,
            Self::Key(status) => status.now,
        }
    }
}
