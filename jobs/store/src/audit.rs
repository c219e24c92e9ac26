//! Who did what. Rows are written in the statement that does it, and never changed; they hold no message text.

use chrono::{DateTime, Utc};
use contract::{AuditAction, AuditId, Principal, TenantId, UserId};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Result, snapshot::Snapshot};

/// An act, for the statement that does it.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who; none: the operator, or somebody who is not logged in.
    pub actor: Option<Principal>,
    /// What.
    pub action: AuditAction,
    /// On what: an id.
    pub target: String,
    /// What else is to be known.
    pub detail: Value,
}

impl Act {
    /// An act of somebody.
    pub fn new(actor: impl Into<Option<Principal>>, action: AuditAction, target: impl ToString, detail: Value) -> Self {
        Self { actor: actor.into(), action, target: target.to_string(), detail }
    }
    pub(crate) fn actor(&self) -> Option<String> {
        self.actor.map(|a| a.to_string())
    }
    /// A fresh row's id.
    pub(crate) fn id() -> Uuid {
        AuditId::new().uuid()
    }
}

/// Records an act that is not a row's (what Redis or a host does). For all else the act's own statement writes it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn record(pool: &PgPool, tenant: TenantId, act: &Act) -> Result<()> {
    sqlx::query!(
        "insert into audit (tenant, id, actor, action, target, detail) values ($1, $2, $3, $4, $5, $6)",
        tenant.uuid(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Records failed logins of a user: at most one row of an action in ten minutes, however many attempts there are.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn login_failed(pool: &PgPool, tenant: TenantId, user: UserId, action: AuditAction, address: Option<String>) -> Result<()> {
    sqlx::query!(
        "insert into audit (tenant, id, action, target, detail)
         select $1, $2, $3, $4, $5
          where not exists (select 1 from audit where tenant = $1 and target = $4 and action = $3
                               and at > clock_timestamp() - interval '10 minutes')",
        tenant.uuid(),
        Act::id(),
        action.as_str(),
        user.to_string(),
        json!({"address": address})
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A row.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub id: AuditId,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; none: the operator, or somebody who was not logged in.
    pub actor: Option<String>,
    /// What.
    pub action: String,
    /// On what.
    pub target: Option<String>,
    /// What else is to be known.
    pub detail: Value,
}

/// Which rows a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of one actor.
    pub actor: Option<Principal>,
    /// Of one action.
    pub action: Option<AuditAction>,
    /// On one target.
    pub target: Option<String>,
    /// Older than this one.
    pub before: Option<AuditId>,
}

/// A tenant's audit log, newest first.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, tenant: TenantId, filter: &Filter, limit: i64) -> Result<Vec<Entry>> {
    let rows = sqlx::query!(
        "select id, at, actor, action, target, detail from audit
          where tenant = $1 and ($2::text is null or actor = $2) and ($3::text is null or action = $3) and ($4::text is null or target = $4)
            and ($5::uuid is null or id < $5)
          order by id desc limit $6",
        tenant.uuid(),
        filter.actor.map(|a| a.to_string()),
        filter.action.map(AuditAction::as_str),
        filter.target,
        filter.before.map(AuditId::uuid),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Entry { id: AuditId::from_uuid(r.id), at: r.at, actor: r.actor, action: r.action, target: r.target, detail: r.detail })
        .collect())
}
