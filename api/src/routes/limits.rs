//! What the tenant may use.

use axum::{extract::State, response::Response};
use serde::Serialize;
use store::{
    limits::{self, Limit},
    snapshot::Snapshot,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Page;
use crate::{auth::Admin, problem::Problem, state::AppState};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A limit that the operator set.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Limit)]
struct LimitView {
    /// `sessions`, `users`, `sendsPerMinute`, … New ones may come.
    name: String,
    /// How much.
    value: i64,
    /// How much of it is used, where that is a number of things the tenant has.
    used: Option<i64>,
}

impl From<Limit> for LimitView {
    fn from(l: Limit) -> Self {
        Self { name: l.name, value: l.value, used: l.used }
    }
}

/// The limits that the operator of this installation set, by name. Beyond one the answer is 429 with `Retry-After`.
#[utoipa::path(get, path = "/limits", operation_id = "listLimits", tag = "limits", responses((status = 200, body = Page<LimitView>)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn list(State(app): State<AppState>, admin: Admin) -> Result<Response, Problem> {
    let tenant = admin.0.tenant;
    let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
    let rows = limits::list(&mut snapshot, tenant).await?;
    let all = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    Ok(Page::of(&snapshot, rows, all, |l| l.name.clone(), LimitView::from))
}
