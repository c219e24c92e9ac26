//! For how long the tenant keeps things.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use contract::AuditAction;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    retention::{
        Days,
        settings::{self, Change, Settings},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Admin,
    extract::{Change as Patched, Patch},
    problem::{Code, Problem},
    state::AppState,
};

/// Under `/api`.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get, patch))
}

/// For how many days things are kept; null: as `limits` says.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Retention)]
struct RetentionView {
    /// The event log. Who reads on from an older event is told `410`.
    event_days: Option<i32>,
    /// Messages. Media will be counted apart: there are none yet.
    message_days: Option<i32>,
    /// What became of deliveries to webhooks; what waits stays.
    delivery_days: Option<i32>,
    /// The audit log.
    audit_days: Option<i32>,
    /// What the operator of this installation keeps at most, and where nothing else is said.
    limits: Limits,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RetentionLimits)]
struct Limits {
    event_days: i32,
    message_days: i32,
    delivery_days: i32,
    audit_days: i32,
}

impl From<Settings> for RetentionView {
    fn from(s: Settings) -> Self {
        let Days { events, messages, deliveries, audit } = s.limits;
        Self {
            event_days: s.own.events,
            message_days: s.own.messages,
            delivery_days: s.own.deliveries,
            audit_days: s.own.audit,
            limits: Limits { event_days: events, message_days: messages, delivery_days: deliveries, audit_days: audit },
        }
    }
}

/// A merge patch: what is left out stays, null is the operator's.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetentionPatch {
    #[serde(default)]
    #[schema(value_type = Option<i32>, minimum = 1)]
    event_days: Patched<i32>,
    #[serde(default)]
    #[schema(value_type = Option<i32>, minimum = 1)]
    message_days: Patched<i32>,
    #[serde(default)]
    #[schema(value_type = Option<i32>, minimum = 1)]
    delivery_days: Patched<i32>,
    #[serde(default)]
    #[schema(value_type = Option<i32>, minimum = 1)]
    audit_days: Patched<i32>,
}

/// For how long the tenant keeps things.
#[utoipa::path(get, path = "/retention", operation_id = "getRetention", tag = "privacy", responses((status = 200, body = RetentionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn get(State(app): State<AppState>, admin: Admin) -> Result<Json<RetentionView>, Problem> {
    Ok(Json(settings::fetch(&app.pool, admin.0.tenant).await?.into()))
}

/// Changes it: at least a day, at most what the operator allows. What is older goes within the hour.
#[utoipa::path(patch, path = "/retention", operation_id = "changeRetention", tag = "privacy", request_body = RetentionPatch,
    responses((status = 200, body = RetentionView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("person")), ("x-chat" = json!("none"))))]
async fn patch(State(app): State<AppState>, admin: Admin, patch: Patch<RetentionPatch>) -> Result<Json<RetentionView>, Problem> {
    let RetentionPatch { event_days, message_days, delivery_days, audit_days } = patch.0;
    let change = Change {
        events: event_days.nullable(),
        messages: message_days.nullable(),
        deliveries: delivery_days.nullable(),
        audit: audit_days.nullable(),
    };
    let said =
        [("eventDays", change.events), ("messageDays", change.messages), ("deliveryDays", change.deliveries), ("auditDays", change.audit)];
    let detail: BTreeMap<_, _> = said.into_iter().filter_map(|(field, days)| Some((field, days?))).collect();
    let act = Act::new(admin.0.principal, AuditAction::RetentionChanged, admin.0.tenant, json!(detail));
    if settings::change(&app.pool, admin.0.tenant, &change, &act).await? {
        return Ok(Json(settings::fetch(&app.pool, admin.0.tenant).await?.into()));
    }
    let Days { events, messages, deliveries, audit } = settings::fetch(&app.pool, admin.0.tenant).await?.limits;
    let asked = said.into_iter().zip([events, messages, deliveries, audit]);
    let refused = asked.into_iter().find(|((_, days), most)| days.flatten().is_some_and(|days| !(1..=*most).contains(&days)));
    // The operator raised the limit at this moment: the same request is served now.
    let Some(((field, _), most)) = refused else { return Err(Problem::new(Code::Unavailable, "ask again").retry_after(1)) };
    Err(Problem::new(Code::InvalidBody, format!("expected 1 to {most} days, or null")).field(field))
}
