//! Passwords: changed by who knows it, set anew by who was given a link. Nothing is sent by e-mail: an ADMIN makes the link and hands it over.

use axum::{extract::State, response::Response};
use contract::{AuditAction, Principal, TenantId, UserId};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use store::{
    audit::Act,
    links::{self, Purpose},
    users,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::{TokenPair, logged_in, redeem};
use crate::{
    auth::{self, Caller, Credential, LONGEST_PASSWORD, throttle},
    extract::{Body, Client},
    problem::{Code, Problem},
    state::AppState,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(change)).routes(routes!(forgot)).routes(routes!(reset))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PasswordChange {
    current_password: String,
    /// 8 characters to 1024 bytes.
    new_password: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Forgotten {
    email: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PasswordReset {
    /// What follows `#` in the link's URL.
    token: String,
    /// 8 characters to 1024 bytes.
    password: String,
}

/// Changes the caller's password. All its logins end, this one too; the answer is a new one.
#[utoipa::path(post, path = "/auth/password", operation_id = "changePassword", tag = "auth", request_body = PasswordChange,
    responses((status = 200, body = TokenPair)),
    extensions(("x-roles" = json!(["ADMIN", "EMPLEADO"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn change(State(app): State<AppState>, caller: Caller, client: Client, body: Body<PasswordChange>) -> Result<Response, Problem> {
    let PasswordChange { current_password, new_password } = body.value;
    auth::acceptable_password(&new_password).map_err(|why| Problem::new(Code::InvalidBody, why).field("newPassword"))?;
    let wrong = || Problem::new(Code::InvalidCredentials, "the current password is wrong").field("currentPassword");
    let user = users::fetch(&app.pool, caller.tenant, caller.user).await?.ok_or_else(Problem::not_found)?;
    // A stolen access token must not be good for guessing the password.
    let attempt = throttle::login(&app, client.0, &user.email).await.map_err(|too_many| too_many.problem)?;
    let checked = users::credentials(&app.pool, &user.email).await?.filter(|c| c.user == caller.user).ok_or_else(wrong)?;
    if current_password.len() > LONGEST_PASSWORD || !app.passwords.matches(current_password, checked.password_hash.clone()).await {
        return Err(wrong());
    }
    let hash = app.passwords.hash(new_password).await.ok_or_else(Problem::internal)?;
    let act = Act::new(caller.principal, AuditAction::PasswordChanged, caller.user, json!({}));
    let generation = links::change_password(&app.pool, &checked, &hash, &act).await?.ok_or_else(wrong)?;
    attempt.forgive(&app).await;
    app.standings.forget(|c| matches!(c, Credential::Token { user, .. } if *user == caller.user));
    logged_in(&app, &users::Credentials { generation, ..checked }).await
}

/// Says that one cannot log in. The tenant's ADMINs see it (`passwordResetRequestedAt`, audit log) and can make a link; nothing is sent by
/// e-mail. The answer is the same whether or not there is such a user.
#[utoipa::path(post, path = "/auth/password/forgot", operation_id = "forgotPassword", tag = "auth", request_body = Forgotten,
    responses((status = 202, description = "Noted, if there is such a user.")),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn forgot(State(app): State<AppState>, client: Client, body: Body<Forgotten>) -> Result<StatusCode, Problem> {
    let email = body.value.email;
    // Too many: not noted, and not told either.
    if email.contains('\0') || throttle::attempt(&app, client.0).await.is_err() {
        return Ok(StatusCode::ACCEPTED);
    }
    let found = users::credentials(&app.pool, &email).await?;
    // Somebody who is not there costs the same statement.
    let (tenant, user) = found.map_or_else(|| (TenantId::new(), UserId::new()), |c| (c.tenant, c.user));
    let detail = json!({"address": client.0.map(|a| a.to_string())});
    links::forgot_password(&app.pool, tenant, user, &Act::new(None::<Principal>, AuditAction::PasswordForgotten, user, detail)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Sets a new password with a link that an ADMIN made. All logins of the person end.
#[utoipa::path(post, path = "/auth/password/reset", operation_id = "resetPassword", tag = "auth", request_body = PasswordReset,
    responses((status = 204, description = "Set: log in.")),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn reset(State(app): State<AppState>, client: Client, body: Body<PasswordReset>) -> Result<StatusCode, Problem> {
    let PasswordReset { token, password } = body.value;
    throttle::attempt(&app, client.0).await?;
    redeem(&app, Purpose::PasswordReset, &token, password, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
