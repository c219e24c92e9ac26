//! For how long a tenant wants to keep things, and at most may. The worker is told the most, and writes it down for those who ask.

use contract::TenantId;
use sqlx::PgPool;

use super::Days;
use crate::{Result, audit::Act};

/// A tenant's own days; none: as the installation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// The event log.
    pub events: Option<i32>,
    /// Messages.
    pub messages: Option<i32>,
    /// Deliveries to webhooks.
    pub deliveries: Option<i32>,
    /// The audit log.
    pub audit: Option<i32>,
}

/// What is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What the tenant said.
    pub own: Own,
    /// What the installation keeps at most.
    pub limits: Days,
}

/// What is to be so. The outer `None`: as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// The event log.
    pub events: Option<Option<i32>>,
    /// Messages.
    pub messages: Option<Option<i32>>,
    /// Deliveries to webhooks.
    pub deliveries: Option<Option<i32>>,
    /// The audit log.
    pub audit: Option<Option<i32>>,
}

/// Writes down what the installation keeps at most.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn limit(pool: &PgPool, most: Days) -> Result<()> {
    sqlx::query!(
        "update retention_limit set event_days = $1, message_days = $2, delivery_days = $3, audit_days = $4
          where (event_days, message_days, delivery_days, audit_days) is distinct from ($1, $2, $3, $4)",
        most.events,
        most.messages,
        most.deliveries,
        most.audit
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What a tenant said, and what the installation says.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, tenant: TenantId) -> Result<Settings> {
    let row = sqlx::query!(
        r#"select l.event_days, l.message_days, l.delivery_days, l.audit_days, r.event_days as "own_events?", r.message_days as "own_messages?",
                  r.delivery_days as "own_deliveries?", r.audit_days as "own_audit?"
             from retention_limit l left join retention r on r.tenant = $1"#,
        tenant.uuid()
    )
    .fetch_one(pool)
    .await?;
    Ok(Settings {
        own: Own { events: row.own_events, messages: row.own_messages, deliveries: row.own_deliveries, audit: row.own_audit },
        limits: Days { events: row.event_days, messages: row.message_days, deliveries: row.delivery_days, audit: row.audit_days },
    })
}

/// Changes it, with its entry in the audit log. `false`: it is more than the installation keeps, or less than a day.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn change(pool: &PgPool, tenant: TenantId, change: &Change, act: &Act) -> Result<bool> {
    let changed = sqlx::query!(
        "with r as (
             insert into retention (tenant, event_days, message_days, delivery_days, audit_days)
             select $1, $2, $3, $4, $5 from retention_limit l
              where coalesce($2 between 1 and l.event_days, true) and coalesce($3 between 1 and l.message_days, true)
                and coalesce($4 between 1 and l.delivery_days, true) and coalesce($5 between 1 and l.audit_days, true)
             on conflict (tenant) do update
                set event_days = case when $6 then excluded.event_days else retention.event_days end,
                    message_days = case when $7 then excluded.message_days else retention.message_days end,
                    delivery_days = case when $8 then excluded.delivery_days else retention.delivery_days end,
                    audit_days = case when $9 then excluded.audit_days else retention.audit_days end
             returning 1)
         insert into audit (tenant, id, actor, action, target, detail) select $1, $10, $11, $12, $13, $14 from r",
        tenant.uuid(),
        change.events.flatten(),
        change.messages.flatten(),
        change.deliveries.flatten(),
        change.audit.flatten(),
        change.events.is_some(),
        change.messages.is_some(),
        change.deliveries.is_some(),
        change.audit.is_some(),
        Act::id(),
        act.actor(),
        act.action.as_str(),
        act.target,
        act.detail
    )
    .execute(pool)
    .await?;
    Ok(changed.rows_affected() == 1)
}
