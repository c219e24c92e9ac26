//! API keys: for machines.

use std::collections::BTreeSet;

use axum::{Json, extract::State, response::IntoResponse, response::Response};
use chrono::{DateTime, Utc};
use contract::{AuditAction, ChatId, KeyId, Scope, SessionId, UserId};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    keys::{self, Key, NewKey},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{NO_STORE, Page, grants::is_storable};
use crate::{
    auth::{Admin, ApiKey, Credential, address, named_session},
    extract::{Body, Limit, Named, Params, plain_text},
    once::{self, Once},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

const LONGEST_NAME: usize = 100;
/// Of one list of a key.
const LONGEST_LIST: usize = 1000;

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(one, revoke))
}

/// An API key. It never does what its maker may not do now.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Key)]
struct KeyView {
    id: KeyId,
    name: String,
    scopes: Vec<Scope>,
    /// The only sessions that it reaches; null: all.
    sessions: Option<Vec<SessionId>>,
    /// Whether it reaches only what is granted to it: see `/keys/{key}/grants`.
    limited: bool,
    /// The only networks from which it may be used; null: all.
    cidrs: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// To the minute.
    last_used_at: Option<Timestamp>,
    created_by: UserId,
    created_at: Timestamp,
}

impl From<Key> for KeyView {
    fn from(k: Key) -> Self {
        Self {
            id: k.id,
            name: k.name,
            scopes: k.scopes,
            sessions: k.sessions,
            limited: k.limited,
            cidrs: k.cidrs,
            expires_at: k.expires_at.map(Timestamp),
            revoked_at: k.revoked_at.map(Timestamp),
            last_used_at: k.last_used_at.map(Timestamp),
            created_by: k.created_by,
            created_at: k.created_at.into(),
        }
    }
}

/// A key that has just been made.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct MadeKey {
    #[serde(flatten)]
    key: KeyView,
    /// Shown this once: `Authorization: Bearer` or `X-Api-Key`, never in a URL. Null in the answer to a repeated request.
    secret: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKey)]
struct Asked {
    /// 1 to 100 characters.
    name: String,
    /// What it may be used for; at least one.
    scopes: Vec<Scope>,
    /// The only sessions (ids or names) that it reaches.
    sessions: Option<Vec<String>>,
    /// The only chats that it reaches, to read and to write. An empty list: none until something is granted to it.
    chats: Option<Vec<ChatId>>,
    /// The only networks from which it may be used, as 203.0.113.0/24.
    cidrs: Option<Vec<String>>,
    expires_at: Option<DateTime<Utc>>,
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
    cursor: Option<KeyId>,
}

/// The tenant's keys, oldest first; revoked ones too.
#[utoipa::path(get, path = "/keys", operation_id = "listKeys", tag = "keys", params(List), responses((status = 200, body = Page<KeyView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor } = params.0;
    let mut snapshot = Snapshot::open(&app.pool, admin.0.tenant).await?;
    let rows = keys::list(&mut snapshot, admin.0.tenant, cursor, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |k| k.id.to_string(), KeyView::from))
}

/// Makes a key.
#[utoipa::path(post, path = "/keys", operation_id = "createKey", tag = "keys", request_body = Asked,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = MadeKey, headers(("Location" = String), ("Idempotency-Replayed" = String)))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn create(State(app): State<AppState>, admin: Admin, once: Once, body: Body<Asked>) -> Result<Response, Problem> {
    let once = once.with_body(body.sha256);
    if let Some(before) = once::made(&app, &admin.0, once.as_ref()).await? {
        return made_before(&app, admin, before).await;
    }
    let asked = body.value;
    let bad = |why: &'static str, field: &str| Problem::new(Code::InvalidBody, why).field(field);
    plain_text(&asked.name, LONGEST_NAME, "name")?;
    let scopes: Vec<Scope> = Scope::ALL.iter().copied().filter(|s| asked.scopes.contains(s)).collect();
    if scopes.is_empty() {
        return Err(bad("a key needs at least one scope", "scopes"));
    }
    if asked.expires_at.is_some_and(|at| !is_storable(at)) {
        return Err(bad("expected a time of this millennium", "expiresAt"));
    }
    let too_long = |length: Option<usize>| length.is_some_and(|n| n > LONGEST_LIST);
    let lengths = [
        ("sessions", asked.sessions.as_ref().map(Vec::len)),
        ("chats", asked.chats.as_ref().map(Vec::len)),
        ("cidrs", asked.cidrs.as_ref().map(Vec::len)),
    ];
    if let Some((field, _)) = lengths.into_iter().find(|(_, length)| too_long(*length)) {
        return Err(bad("expected at most 1000", field));
    }
    let cidrs = asked.cidrs.map(|all| all.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let sessions = match asked.sessions {
        None => None,
        Some(names) => {
            let mut found = BTreeSet::new();
            for name in names {
                found.insert(named_session(&app, &admin.0, Some(&name)).await.map_err(|p| p.field("sessions"))?.id);
            }
            Some(Vec::from_iter(found))
        }
    };
    let chats = asked.chats.map(|all| Vec::from_iter(BTreeSet::from_iter(all)));
    let (id, secret, hash) = ApiKey::random().ok_or_else(Problem::internal)?;
    let new = NewKey {
        id,
        hash,
        name: &asked.name,
        scopes: &scopes,
        sessions: sessions.as_deref(),
        chats: chats.as_deref(),
        cidrs: cidrs.as_deref(),
        expires_at: asked.expires_at,
        created_by: admin.0.user,
    };
    let detail = json!({"scopes": scopes, "sessions": sessions, "chats": chats.as_ref().map(Vec::len), "cidrs": cidrs});
    let act = Act::new(admin.0.principal, AuditAction::KeyCreated, id, detail);
    if let Some(key) = keys::create(&app.pool, admin.0.tenant, &new, &act, once.as_ref()).await? {
        return Ok(made(key, Some(secret)));
    }
    // The same request may have come at the same moment.
    match once::made(&app, &admin.0, once.as_ref()).await? {
        Some(before) => made_before(&app, admin, before).await,
        None => Err(Problem::not_found().field("chats")),
    }
}

fn made(key: Key, secret: Option<String>) -> Response {
    let location = [(header::LOCATION, format!("/api/keys/{}", key.id))];
    (StatusCode::CREATED, NO_STORE, location, Json(MadeKey { key: key.into(), secret })).into_response()
}

async fn made_before(app: &AppState, admin: Admin, id: KeyId) -> Result<Response, Problem> {
    let key = keys::fetch(&app.pool, admin.0.tenant, id).await?.ok_or_else(Problem::not_found)?;
    Ok(once::replayed(made(key, None)))
}

/// Postgres refuses networks with bits behind their mask.
fn network(text: &str) -> Result<String, Problem> {
    let net = address::network(text).map_err(|why| Problem::new(Code::InvalidBody, why).field("cidrs"))?;
    Ok(net.trunc().to_string())
}

/// One key.
#[utoipa::path(get, path = "/keys/{key}", operation_id = "getKey", tag = "keys", params(("key" = KeyId, Path)),
    responses((status = 200, body = KeyView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn one(State(app): State<AppState>, admin: Admin, key: Named<KeyId>) -> Result<Json<KeyView>, Problem> {
    let key = keys::fetch(&app.pool, admin.0.tenant, key.0).await?;
    key.map(|k| Json(k.into())).ok_or_else(Problem::not_found)
}

/// Revokes a key, for good. What it had open ends within a second.
#[utoipa::path(delete, path = "/keys/{key}", operation_id = "revokeKey", tag = "keys", params(("key" = KeyId, Path)),
    responses((status = 204, description = "Revoked, now or before.")),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn revoke(State(app): State<AppState>, admin: Admin, key: Named<KeyId>) -> Result<StatusCode, Problem> {
    let act = Act::new(admin.0.principal, AuditAction::KeyRevoked, key.0, json!({}));
    keys::revoke(&app.pool, admin.0.tenant, key.0, &act).await?.ok_or_else(Problem::not_found)?;
    app.standings.forget(|c| matches!(c, Credential::Key { id, .. } if *id == key.0));
    Ok(StatusCode::NO_CONTENT)
}
