//! People of a tenant, as its ADMINs manage them.

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use contract::{AuditAction, UserId};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    links::{self, NewLink, Purpose},
    snapshot::Snapshot,
    users::{self, Change, Changed, Invite, NewUser, Rol, User},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{NO_STORE, Page};
use crate::{
    auth::{Admin, Credential, Kind, Secret, link_url},
    extract::{Body, Change as Patched, Limit, Named, Params, Patch, plain_text},
    once::{self, Once},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

const LONGEST_NAME: usize = 100;
const LONGEST_EMAIL: usize = 254;

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, invite))
        .routes(routes!(one, change))
        .routes(routes!(reinvite))
        .routes(routes!(reset_password))
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Role {
    /// Everything of the tenant.
    #[serde(rename = "ADMIN")]
    Admin,
    /// What is granted to it.
    #[serde(rename = "EMPLEADO")]
    Empleado,
}

impl From<Role> for Rol {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Empleado => Self::Empleado,
        }
    }
}

/// A person.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User)]
struct UserView {
    id: UserId,
    email: String,
    name: String,
    /// `ADMIN` or `EMPLEADO`.
    rol: String,
    /// `invited`, `active` or `disabled`.
    state: String,
    /// Whether a send to somebody whose chat was not granted to it is accepted, and grants that chat.
    can_start_chats: bool,
    /// When it last asked for a new password; make a link with `POST /users/{user}/password-reset`.
    password_reset_requested_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<User> for UserView {
    fn from(u: User) -> Self {
        Self {
            id: u.id,
            email: u.email,
            name: u.name,
            rol: u.rol,
            state: u.state,
            can_start_chats: u.can_start_chats,
            password_reset_requested_at: u.reset_requested_at.map(Timestamp),
            created_at: u.created_at.into(),
        }
    }
}

/// A link that works once.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct OneTimeLink {
    /// To be given to the person. What follows `#` is the token that the API takes; browsers send it to nobody.
    url: String,
    expires_at: Timestamp,
}

impl OneTimeLink {
    fn new(app: &AppState, purpose: Purpose, secret: Secret, expires_at: chrono::DateTime<chrono::Utc>) -> Self {
        Self { url: link_url(app.tokens.issuer(), purpose, secret), expires_at: expires_at.into() }
    }
}

/// A person who has been invited.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Invited {
    #[serde(flatten)]
    user: UserView,
    /// Shown once: null in the answer to a repeated request.
    invitation: Option<OneTimeLink>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Invitation {
    /// Where the person will log in.
    email: String,
    /// 1 to 100 characters; the person may change it.
    name: String,
    rol: Role,
    #[serde(default)]
    can_start_chats: bool,
}

/// A merge patch (RFC 7396): what is left out stays; nothing of this can be taken away.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserPatch {
    /// 1 to 100 characters.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false)]
    name: Patched<String>,
    /// A change logs the person out.
    #[serde(default)]
    #[schema(value_type = Option<Role>, nullable = false)]
    rol: Patched<Role>,
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false)]
    can_start_chats: Patched<bool>,
    /// `disabled` logs the person out and voids its links.
    #[serde(default)]
    #[schema(value_type = Option<WantedState>, nullable = false)]
    state: Patched<WantedState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum WantedState {
    /// Let in. Who never accepted its invitation is invited again.
    Active,
    /// Not let in.
    Disabled,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct List {
    /// 1 to 200, 50 where nothing is said.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<UserId>,
}

/// The tenant's people, oldest first.
#[utoipa::path(get, path = "/users", operation_id = "listUsers", tag = "users", params(List),
    responses((status = 200, body = Page<UserView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let tenant = admin.0.tenant;
    let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
    let rows = users::list(&mut snapshot, tenant, cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |u| u.id.to_string(), UserView::from))
}

/// Invites somebody. That another tenant has a user of this address is not told here: the person learns it on acceptance.
#[utoipa::path(post, path = "/users", operation_id = "inviteUser", tag = "users", request_body = Invitation,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Invited, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn invite(State(app): State<AppState>, admin: Admin, once: Once, body: Body<Invitation>) -> Result<Response, Problem> {
    let key = once.with_body(body.sha256);
    if let Some(before) = once::made(&app, &admin.0, key.as_ref()).await? {
        return Ok(once::replayed(invited(&app, admin, before, None).await?));
    }
    let Invitation { email, name, rol, can_start_chats } = body.value;
    check_email(&email)?;
    plain_text(&name, LONGEST_NAME, "name")?;
    let (tenant, id) = (admin.0.tenant, UserId::new());
    let secret = Secret::random(Kind::Invitation).ok_or_else(Problem::internal)?;
    let link = NewLink { hash: secret.hash(), lifetime: Purpose::Invitation.lifetime() };
    let new = NewUser { id, email: &email, name: &name, rol: rol.into(), can_start_chats };
    let act = Act::new(admin.0.principal, AuditAction::UserInvited, id, json!({"rol": rol, "canStartChats": can_start_chats}));
    let expires_at = users::invite(&app.pool, tenant, &new, &link, &act, key.as_ref()).await.map_err(|why| match why {
        Invite::EmailTaken => Problem::new(Code::EmailTaken, "the tenant has a user of this address").field("email"),
        Invite::Store(why) => why.into(),
    })?;
    match expires_at {
        Some(at) => invited(&app, admin, id, Some(OneTimeLink::new(&app, Purpose::Invitation, secret, at))).await,
        // The same request came at the same moment.
        None => {
            let before = once::made(&app, &admin.0, key.as_ref()).await?.ok_or_else(Problem::internal)?;
            Ok(once::replayed(invited(&app, admin, before, None).await?))
        }
    }
}

async fn invited(app: &AppState, admin: Admin, id: UserId, invitation: Option<OneTimeLink>) -> Result<Response, Problem> {
    let user = users::fetch(&app.pool, admin.0.tenant, id).await?.ok_or_else(Problem::not_found)?;
    let location = [(header::LOCATION, format!("/api/users/{id}"))];
    Ok((StatusCode::CREATED, NO_STORE, location, Json(Invited { user: user.into(), invitation })).into_response())
}

/// An address in the loosest sense: it is never written to by us.
fn check_email(email: &str) -> Result<(), Problem> {
    let parts = email.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if parts.is_some() && email.len() <= LONGEST_EMAIL && !email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Ok(())
    } else {
        Err(Problem::new(Code::InvalidBody, "expected an e-mail address of at most 254 bytes").field("email"))
    }
}

/// One person.
#[utoipa::path(get, path = "/users/{user}", operation_id = "getUser", tag = "users", params(("user" = UserId, Path)),
    responses((status = 200, body = UserView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn one(State(app): State<AppState>, admin: Admin, user: Named<UserId>) -> Result<Json<UserView>, Problem> {
    let user = users::fetch(&app.pool, admin.0.tenant, user.0).await?;
    user.map(|u| Json(u.into())).ok_or_else(Problem::not_found)
}

/// Changes a person. The last active ADMIN stays one.
#[utoipa::path(patch, path = "/users/{user}", operation_id = "changeUser", tag = "users", params(("user" = UserId, Path)),
    request_body(content((UserPatch = "application/merge-patch+json"), (UserPatch = "application/json"))),
    responses((status = 200, body = UserView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn change(
    State(app): State<AppState>,
    admin: Admin,
    user: Named<UserId>,
    patch: Patch<UserPatch>,
) -> Result<Json<UserView>, Problem> {
    let UserPatch { name, rol, can_start_chats, state } = patch.0;
    let (name, rol) = (name.required("name")?, rol.required("rol")?);
    let (can_start_chats, state) = (can_start_chats.required("canStartChats")?, state.required("state")?);
    if let Some(name) = &name {
        plain_text(name, LONGEST_NAME, "name")?;
    }
    // What is told is that the name was changed, not to what.
    let detail = json!({"name": name.is_some(), "rol": rol, "canStartChats": can_start_chats, "state": state});
    let act = Act::new(admin.0.principal, AuditAction::UserChanged, user.0, detail);
    let change = Change { name, rol: rol.map(Rol::from), can_start_chats, enabled: state.map(|s| s == WantedState::Active) };
    match users::change(&app.pool, admin.0.tenant, user.0, &change, &act).await? {
        Changed::Done(changed) => {
            app.standings.forget(|c| matches!(c, Credential::Token { user: u, .. } if *u == user.0));
            Ok(Json(changed.into()))
        }
        Changed::LastAdmin => Err(Problem::new(Code::LastAdmin, "make somebody else an ADMIN first")),
        Changed::NotFound => Err(Problem::not_found()),
    }
}

/// Makes an invitation anew; the older link is void.
#[utoipa::path(post, path = "/users/{user}/invitation", operation_id = "reinviteUser", tag = "users",
    params(("user" = UserId, Path), ("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = OneTimeLink)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn reinvite(State(app): State<AppState>, admin: Admin, user: Named<UserId>, once: Once) -> Result<impl IntoResponse, Problem> {
    make_link(&app, admin, user.0, Purpose::Invitation, once).await
}

/// Makes a link with which the person sets a new password within an hour. Nothing is sent by e-mail: hand the link over yourself.
#[utoipa::path(post, path = "/users/{user}/password-reset", operation_id = "resetUserPassword", tag = "users",
    params(("user" = UserId, Path), ("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = OneTimeLink)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn reset_password(State(app): State<AppState>, admin: Admin, user: Named<UserId>, once: Once) -> Result<impl IntoResponse, Problem> {
    make_link(&app, admin, user.0, Purpose::PasswordReset, once).await
}

async fn make_link(app: &AppState, admin: Admin, user: UserId, purpose: Purpose, once: Once) -> Result<impl IntoResponse + use<>, Problem> {
    let key = once.without_body();
    once::first(app, &admin.0, key.as_ref()).await?;
    let (kind, action, state) = match purpose {
        Purpose::Invitation => (Kind::Invitation, AuditAction::UserReinvited, "the user is not invited (any more)"),
        Purpose::PasswordReset => (Kind::PasswordReset, AuditAction::PasswordLinkMade, "the user is not active"),
    };
    let tenant = admin.0.tenant;
    let secret = Secret::random(kind).ok_or_else(Problem::internal)?;
    let act = Act::new(admin.0.principal, action, user, json!({}));
    let link = NewLink { hash: secret.hash(), lifetime: purpose.lifetime() };
    let made = links::make(&app.pool, tenant, user, purpose, &link, &act, key.as_ref()).await?;
    if made.is_none() {
        // The same request may have come at the same moment.
        once::first(app, &admin.0, key.as_ref()).await?;
    }
    match made {
        Some(expires_at) => Ok((StatusCode::CREATED, NO_STORE, Json(OneTimeLink::new(app, purpose, secret, expires_at)))),
        None if users::fetch(&app.pool, tenant, user).await?.is_some() => Err(Problem::new(Code::UserState, state)),
        None => Err(Problem::not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_two_parts_and_nothing_that_is_not_seen() {
        for good in ["a@b", "ana.maria+x@ejemplo.test", "ñ@ejemplo.test"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b\n", "a@b\0", &format!("{}@b", "a".repeat(254))] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }
}
