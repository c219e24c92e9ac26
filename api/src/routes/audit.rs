//! Who did what.

use axum::{extract::State, response::Response};
use contract::{AuditAction, AuditId, Principal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{
    audit::{self, Entry, Filter},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Page;
use crate::{
    auth::Admin,
    extract::{Limit, Params},
    problem::{Code, Problem},
    state::AppState,
    timestamp::Timestamp,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A line of the audit log.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditEntry {
    id: AuditId,
    at: Timestamp,
    /// The user or key; null: the operator, or somebody who was not logged in.
    actor: Option<String>,
    /// `user.invited`, `grant.created`, … An unknown one is to be shown as it is.
    action: String,
    /// The id of what was acted on.
    target: Option<String>,
    /// What else is to be known, by `action`. Never message text.
    detail: Value,
}

impl From<Entry> for AuditEntry {
    fn from(e: Entry) -> Self {
        Self { id: e.id, at: e.at.into(), actor: e.actor, action: e.action, target: e.target, detail: e.detail }
    }
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
    cursor: Option<AuditId>,
    /// Acts of this user or key only.
    #[param(value_type = Option<String>)]
    actor: Option<Principal>,
    /// Acts of this kind only.
    #[param(value_type = Option<String>)]
    action: Option<AuditAction>,
    /// Acts on this id only.
    target: Option<String>,
}

/// The tenant's audit log, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "audit", params(List), responses((status = 200, body = Page<AuditEntry>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("audit:read")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin, params: Params<List>) -> Result<Response, Problem> {
    let List { limit, cursor, actor, action, target } = params.0;
    if target.as_ref().is_some_and(|t| t.contains('\0')) {
        return Err(Problem::new(Code::InvalidParameter, "expected an id").field("target"));
    }
    let tenant = admin.0.tenant;
    let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
    let filter = Filter { actor, action, target, before: cursor };
    let rows = audit::list(&mut snapshot, tenant, &filter, limit.get() + 1).await?;
    Ok(Page::of(&snapshot, rows, limit.get(), |e| e.id.to_string(), AuditEntry::from))
}
