//! Logging in, staying logged in, logging out.

use axum::{Json, extract::State, response::IntoResponse};
use contract::{TenantId, UserId};
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use store::{
    tokens::{self, Rotation},
    users::{self, Rol, Standing},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    auth::{self, Caller, RefreshToken},
    extract::{Body, OptionalBody},
    problem::{Code, Problem},
    state::AppState,
};

/// How long a login lives without being refreshed.
const REFRESH_LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);
/// Tokens lie in no cache.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];
/// Longer passwords cost hashing time and nothing else.
const LONGEST_PASSWORD: usize = 1024;

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(refresh)).routes(routes!(logout)).routes(routes!(me))
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
struct TokenPair {
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
    id: UserId,
    tenant: TenantId,
    tenant_name: String,
    email: String,
    name: String,
    /// `ADMIN` or `EMPLEADO`.
    rol: &'static str,
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
    (tenant, user, rol): (TenantId, UserId, Rol),
    login: Uuid,
    refresh: RefreshToken,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<impl IntoResponse + use<>, Problem> {
    let access_token = app.tokens.sign(tenant, user, rol.as_str(), login, now).map_err(|why| Problem::internal().because(why))?;
    let pair = TokenPair { access_token, refresh_token: refresh.into_text(), token_type: "Bearer", expires_in: auth::LIFETIME };
    Ok((NO_STORE, Json(pair)))
}

/// Logs in.
#[utoipa::path(post, path = "/auth/login", operation_id = "login", tag = "auth", request_body = Login,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn login(State(app): State<AppState>, body: Body<Login>) -> Result<impl IntoResponse, Problem> {
    let Login { email, password } = body.value;
    let wrong = || Problem::new(Code::InvalidCredentials, "e-mail or password is wrong");
    if password.len() > LONGEST_PASSWORD {
        return Err(wrong());
    }
    let found = users::credentials(&app.pool, &email).await?;
    // An unknown address costs the same work as a wrong password.
    let hash = found.as_ref().and_then(|u| u.password_hash.clone());
    if !app.passwords.matches(password, hash).await {
        return Err(wrong());
    }
    let user = found.ok_or_else(wrong)?;
    check(user.standing)?;
    let refresh = RefreshToken::random().ok_or_else(Problem::internal)?;
    let family = Uuid::now_v7();
    let now = tokens::issue(&app.pool, user.tenant, user.user, family, &refresh.hash(), REFRESH_LIFETIME).await?;
    pair(&app, (user.tenant, user.user, user.rol), family, refresh, now)
}

/// Buys the next pair of tokens. The immediate predecessor is answered for 30 s with the same successor; anything older ends the login.
#[utoipa::path(post, path = "/auth/refresh", operation_id = "refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn refresh(State(app): State<AppState>, body: Body<Refresh>) -> Result<impl IntoResponse, Problem> {
    let token = body.value.refresh_token;
    let refused = || Problem::new(Code::InvalidRefreshToken, "the refresh token does not count (any more): log in again");
    let hash = auth::hash_of(&token);
    let presented = tokens::find(&app.pool, &hash).await?.filter(|p| p.live).ok_or_else(refused)?;
    match presented.standing {
        Standing::UserInactive => return Err(refused()),
        Standing::Active | Standing::TenantSuspended => check(presented.standing)?,
    }
    let mut successors = app.tokens.successors(&token).map(|secret| RefreshToken::from_secret(&secret));
    let next = successors.next().ok_or_else(Problem::internal)?;
    let (next, now) = match tokens::rotate(&app.pool, presented.tenant, &hash, &next.hash(), REFRESH_LIFETIME).await? {
        Rotation::Rotated(now) => (next, now),
        Rotation::Repeated { successor, now } => {
            let stored = std::iter::once(next).chain(successors).find(|t| t.hash().as_slice() == successor);
            (stored.ok_or_else(refused)?, now)
        }
        Rotation::Reused => {
            tracing::warn!(tenant = %presented.tenant, user = %presented.user, "an old refresh token was presented: the login has been ended");
            app.standings.forget(presented.user.uuid(), presented.family);
            return Err(refused());
        }
    };
    pair(&app, (presented.tenant, presented.user, presented.rol), presented.family, next, now)
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
        (Some(token), _) => tokens::find(&app.pool, &auth::hash_of(&token)).await?.map(|p| (p.tenant, p.user, p.family)),
        (None, Ok(caller)) => Some((caller.tenant, caller.user, caller.login)),
        (None, Err(refused)) => return Err(refused),
    };
    if let Some((tenant, user, family)) = login {
        tokens::revoke(&app.pool, tenant, family).await?;
        app.standings.forget(user.uuid(), family);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Who the caller is.
#[utoipa::path(get, path = "/me", operation_id = "me", tag = "auth", responses((status = 200, body = Me)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn me(State(app): State<AppState>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    let user = users::profile(&app.pool, caller.tenant, caller.user).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(Me {
        id: user.id,
        tenant: caller.tenant,
        tenant_name: user.tenant_name,
        email: user.email,
        name: user.name,
        rol: user.rol.as_str(),
    }))
}
