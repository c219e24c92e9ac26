//! Logging in, staying logged in, logging out.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{AuditAction, Principal, Scope, TenantId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit,
    audit::Act,
    links::{self, Purpose, Redeemed, UseLink},
    tokens::{self, Rotation},
    users::{self, Credentials, Rol, Standing},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::NO_STORE;
use crate::{
    auth::{self, Caller, Credential, Kind, LONGEST_PASSWORD, Secret, throttle},
    extract::{Body, Client, OptionalBody, plain_text},
    problem::{Code, Problem},
    state::AppState,
};

/// How long a login lives without being refreshed.
const REFRESH_LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);
/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(refresh)).routes(routes!(logout)).routes(routes!(accept)).routes(routes!(me))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Login {
    email: String,
    password: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refresh {
    refresh_token: String,
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Logout {
    /// Ends the login of this token; without it, that of the access token.
    refresh_token: Option<String>,
}

/// What a login answers.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenPair {
    /// Goes into `Authorization: Bearer`.
    access_token: String,
    /// Buys the next pair, once.
    refresh_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token's end.
    expires_in: i64,
}

/// The caller.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Me {
    /// The user or key.
    id: Principal,
    tenant: TenantId,
    tenant_name: String,
    /// A person's; null for a key.
    email: Option<String>,
    /// A person's; null for a key.
    name: Option<String>,
    /// `ADMIN` or `EMPLEADO`; of a key, its maker's.
    rol: &'static str,
    /// Whether a person may write to people whose chats were not granted to it.
    can_start_chats: bool,
    /// What a key may be used for; null for a person.
    scopes: Option<Vec<Scope>>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Acceptance {
    /// What follows `#` in the invitation's URL.
    token: String,
    /// 8 characters to 1024 bytes.
    password: String,
    /// Replaces the name that the ADMIN wrote.
    name: Option<String>,
}

fn check(standing: Standing) -> Result<(), Problem> {
    match standing {
        Standing::Active => Ok(()),
        Standing::TenantSuspended => Err(Problem::new(Code::TenantSuspended, "the operator of this installation suspended the tenant")),
        Standing::UserInactive => Err(Problem::new(Code::InvalidCredentials, "e-mail or password is wrong")),
    }
}

fn pair(
    app: &AppState,
    (tenant, user, rol): (TenantId, contract::UserId, Rol),
    login: Uuid,
    refresh: Secret,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Response, Problem> {
    let access_token = app.tokens.sign(tenant, user, rol.as_str(), login, now).map_err(|why| Problem::internal().because(why))?;
    let pair = TokenPair { access_token, refresh_token: refresh.into_text(), token_type: "Bearer", expires_in: auth::LIFETIME };
    Ok((NO_STORE, Json(pair)).into_response())
}

/// Starts a login of somebody whose password has just been checked or set.
pub(super) async fn logged_in(app: &AppState, user: &Credentials) -> Result<Response, Problem> {
    let refresh = Secret::random(Kind::Refresh).ok_or_else(Problem::internal)?;
    let family = Uuid::now_v7();
    let now = tokens::issue(&app.pool, user, family, &refresh.hash(), REFRESH_LIFETIME).await?;
    pair(app, (user.tenant, user.user, user.rol), family, refresh, now)
}

fn wrong() -> Problem {
    Problem::new(Code::InvalidCredentials, "e-mail or password is wrong")
}

/// Logs in. Attempts on an account are limited for each address from which they come.
#[utoipa::path(post, path = "/auth/login", operation_id = "login", tag = "auth", request_body = Login,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn login(State(app): State<AppState>, client: Client, body: Body<Login>) -> Result<Response, Problem> {
    let Login { email, password } = body.value;
    if password.len() > LONGEST_PASSWORD || email.contains('\0') {
        return Err(wrong());
    }
    let attempt = match throttle::login(&app, client.0, &email).await {
        Ok(attempt) => attempt,
        Err(too_many) => {
            let found = if too_many.first { users::credentials(&app.pool, &email).await? } else { None };
            note_failure(&app, found.as_ref(), AuditAction::LoginThrottled, client).await?;
            return Err(too_many.problem);
        }
    };
    let found = users::credentials(&app.pool, &email).await?;
    // An unknown address costs the same work as a wrong password.
    let hash = found.as_ref().and_then(|u| u.password_hash.clone());
    if !app.passwords.matches(password, hash).await {
        note_failure(&app, found.as_ref(), AuditAction::LoginFailed, client).await?;
        return Err(wrong());
    }
    let user = found.ok_or_else(wrong)?;
    check(user.standing)?;
    attempt.forgive(&app).await;
    logged_in(&app, &user).await
}

async fn note_failure(app: &AppState, user: Option<&Credentials>, action: AuditAction, client: Client) -> Result<(), Problem> {
    let Some(user) = user else { return Ok(()) };
    let address = client.0.map(|a| a.to_string());
    Ok(audit::login_failed(&app.pool, user.tenant, user.user, action, address).await?)
}

/// Buys the next pair of tokens. The immediate predecessor is answered for 30 s with the same successor; anything older ends the login.
#[utoipa::path(post, path = "/auth/refresh", operation_id = "refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn refresh(State(app): State<AppState>, body: Body<Refresh>) -> Result<Response, Problem> {
    let token = body.value.refresh_token;
    let refused = || Problem::new(Code::InvalidRefreshToken, "the refresh token does not count (any more): log in again");
    let hash = auth::hash_of(&token);
    let presented = tokens::find(&app.pool, &hash).await?.filter(|p| p.live).ok_or_else(refused)?;
    match presented.standing {
        Standing::UserInactive => return Err(refused()),
        Standing::Active | Standing::TenantSuspended => check(presented.standing)?,
    }
    let mut successors = app.tokens.successors(&token).map(|secret| Secret::of(Kind::Refresh, &secret));
    let next = successors.next().ok_or_else(Problem::internal)?;
    let who = (presented.tenant, presented.user);
    let (next, now) = match tokens::rotate(&app.pool, who, &hash, &next.hash(), REFRESH_LIFETIME).await? {
        Rotation::Rotated(now) => (next, now),
        Rotation::Repeated { successor, now } => {
            let stored = std::iter::once(next).chain(successors).find(|t| t.hash().as_slice() == successor);
            (stored.ok_or_else(refused)?, now)
        }
        Rotation::Reused => {
            tracing::warn!(tenant = %presented.tenant, user = %presented.user, "an old refresh token was presented: the login has been ended");
            forget(&app, presented.family);
            return Err(refused());
        }
    };
    pair(&app, (presented.tenant, presented.user, presented.rol), presented.family, next, now)
}

fn forget(app: &AppState, family: Uuid) {
    app.standings.forget(|c| matches!(c, Credential::Token { login, .. } if *login == family));
}

/// Ends a login: its refresh tokens at once, its access tokens within a second.
#[utoipa::path(post, path = "/auth/logout", operation_id = "logout", tag = "auth", request_body = Option<Logout>,
    responses((status = 204, description = "Logged out, or never was in.")),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn logout(
    State(app): State<AppState>,
    caller: Result<Caller, Problem>,
    body: OptionalBody<Logout>,
) -> Result<impl IntoResponse, Problem> {
    let login = match (body.0.refresh_token, caller) {
        (Some(token), _) => tokens::find(&app.pool, &auth::hash_of(&token)).await?.map(|p| (p.tenant, p.family)),
        (None, Ok(caller)) => caller.login().map(|login| (caller.tenant, login)),
        (None, Err(refused)) => return Err(refused),
    };
    if let Some((tenant, family)) = login {
        tokens::revoke(&app.pool, tenant, family).await?;
        forget(&app, family);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts an invitation: sets the password and logs in. An address that another user of the installation logs in with is refused here.
#[utoipa::path(post, path = "/auth/invitations/accept", operation_id = "acceptInvitation", tag = "auth", request_body = Acceptance,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn accept(State(app): State<AppState>, client: Client, body: Body<Acceptance>) -> Result<Response, Problem> {
    let Acceptance { token, password, name } = body.value;
    if let Some(name) = &name {
        plain_text(name, 100, "name")?;
    }
    throttle::attempt(&app, client.0).await?;
    let user = redeem(&app, Purpose::Invitation, &token, password, name.as_deref()).await?;
    logged_in(&app, &user).await
}

/// Uses a one-time link to set a password.
pub(super) async fn redeem(
    app: &AppState,
    purpose: Purpose,
    token: &str,
    password: String,
    name: Option<&str>,
) -> Result<Credentials, Problem> {
    auth::acceptable_password(&password).map_err(|why| Problem::new(Code::InvalidBody, why).field("password"))?;
    let void = || Problem::new(Code::InvalidLink, "it has been used, replaced, or its time is over: ask an ADMIN for another");
    let hash = auth::hash_of(token);
    // Asked before the costly part.
    let (tenant, user) = links::holder(&app.pool, &hash, purpose).await?.ok_or_else(void)?;
    let password_hash = app.passwords.hash(password).await.ok_or_else(Problem::internal)?;
    let action = match purpose {
        Purpose::Invitation => AuditAction::UserJoined,
        Purpose::PasswordReset => AuditAction::PasswordReset,
    };
    let act = Act::new(Principal::User(user), action, user, json!({}));
    let new = Redeemed { hash, password_hash: &password_hash, name };
    let credentials = links::redeem(&app.pool, (tenant, user), purpose, &new, &act).await.map_err(|why| match why {
        UseLink::Void => void(),
        UseLink::EmailTaken => {
            Problem::new(Code::EmailTaken, "another user of this installation has the address: ask for an invitation to another")
        }
        UseLink::Store(why) => why.into(),
    })?;
    app.standings.forget(|c| matches!(c, Credential::Token { user: u, .. } if *u == user));
    Ok(credentials)
}

/// Who the caller is.
#[utoipa::path(get, path = "/me", operation_id = "me", tag = "auth", responses((status = 200, body = Me)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn me(State(app): State<AppState>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    let user = users::fetch(&app.pool, caller.tenant, caller.user).await?.ok_or_else(Problem::not_found)?;
    let is_person = caller.scopes().is_none();
    Ok(Json(Me {
        id: caller.principal,
        tenant: caller.tenant,
        tenant_name: user.tenant_name,
        email: is_person.then_some(user.email),
        name: is_person.then_some(user.name),
        rol: caller.rol.as_str(),
        can_start_chats: caller.can_start_chats,
        scopes: caller.scopes().map(|set| Scope::ALL.iter().copied().filter(|s| set.has(*s)).collect()),
    }))
}
