//! What is kept no longer. Rows go in batches, each a statement of its own: a batch that is cut off is done by the next run.

pub mod settings;

use contract::TenantId;
use sqlx::PgPool;

use crate::Result;

/// Finished jobs and their idempotency keys are kept for so long.
const FINISHED_DAYS: i32 = 7;
/// Refresh tokens are kept so long after their end, that an old one is still recognised as such.
const TOKEN_DAYS: i32 = 1;

/// For how many days the things of one tenant, or of an installation, are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// The event log.
    pub events: i32,
    /// Messages.
    pub messages: i32,
    /// Deliveries to webhooks.
    pub deliveries: i32,
    /// The audit log.
    pub audit: i32,
}

/// Every tenant, with its own days where they are fewer than the installation's.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn tenants(pool: &PgPool, most: Days) -> Result<Vec<(TenantId, Days)>> {
    let rows = sqlx::query!(
        r#"select t.id, least(r.event_days, $1) as "events!", least(r.message_days, $2) as "messages!",
                  least(r.delivery_days, $3) as "deliveries!", least(r.audit_days, $4) as "audit!"
             from tenant t left join retention r on r.tenant = t.id order by t.id"#,
        most.events,
        most.messages,
        most.deliveries,
        most.audit
    )
    .fetch_all(pool)
    .await?;
    let days = |events, messages, deliveries, audit| Days { events, messages, deliveries, audit };
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.id), days(r.events, r.messages, r.deliveries, r.audit))).collect())
}

/// Drops the oldest day of the event log if all of it is older than `keep` days; tenants' floors move with it. Call it until it says `false`.
///
/// # Errors
/// [`crate::StoreError`]: also where readers of the log did not let go of it in time.
pub async fn drop_event_day(pool: &PgPool, keep: i32) -> Result<bool> {
    let day = sqlx::query_scalar!("select drop_event_partition($1)", keep).fetch_one(pool).await?;
    Ok(day.is_some())
}

/// Removes a tenant's events that are older than `keep` days, from the oldest on, and moves its floor above them. Answers how many went.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn events(pool: &PgPool, tenant: TenantId, keep: i32, limit: i64) -> Result<u64> {
    let gone = sqlx::query_scalar!(
        r#"with old as (
               select seq, day from event where tenant = $1 and day < (clock_timestamp() at time zone 'UTC')::date - $2::int order by seq limit $3),
               gone as (delete from event using old where event.tenant = $1 and event.seq = old.seq and event.day = old.day returning event.seq),
               floor as (
               update tenant_counter set floor_seq = greatest(floor_seq, (select max(seq) + 1 from gone))
                where tenant = $1 and exists (select 1 from gone))
           select count(*) as "gone!" from gone"#,
        tenant.uuid(),
        keep,
        limit
    )
    .fetch_one(pool)
    .await?;
    Ok(gone.unsigned_abs())
}

/// Removes a tenant's messages that are older than `keep` days. Chats stay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn messages(pool: &PgPool, tenant: TenantId, keep: i32, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "delete from message where tenant = $1 and id in (
             select m.id from message m left join job j on j.id = m.job and j.state in ('queued', 'running')
              where m.tenant = $1 and m.sent_at < clock_timestamp() - make_interval(days => $2) and j.id is null
              order by m.sent_at limit $3 for update of m skip locked)",
        tenant.uuid(),
        keep,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Removes a tenant's audit entries that are older than `keep` days.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn audit(pool: &PgPool, tenant: TenantId, keep: i32, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "delete from audit where tenant = $1 and id in (
             select id from audit where tenant = $1 and at < clock_timestamp() - make_interval(days => $2) order by at limit $3)",
        tenant.uuid(),
        keep,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Removes a tenant's deliveries to webhooks that ended more than `keep` days ago. What waits stays.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn deliveries(pool: &PgPool, tenant: TenantId, keep: i32, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "delete from webhook_delivery where tenant = $1 and id in (
             select id from webhook_delivery
              where tenant = $1 and state <> 'waiting' and finished_at < clock_timestamp() - make_interval(days => $2)
              order by finished_at limit $3)",
        tenant.uuid(),
        keep,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Removes jobs of all tenants that ended a week ago, with their idempotency keys. Their messages stay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn finished_jobs(pool: &PgPool, limit: i64) -> Result<u64> {
    let gone = sqlx::query_scalar!(
        r#"with old as (
               select id from job
                where finished_at < clock_timestamp() - make_interval(days => $1) and state not in ('queued', 'running')
                order by finished_at limit $2 for update skip locked),
               m as (update message set job = null from old where message.job = old.id),
               r as (update job set resend_of = null from old where job.resend_of = old.id and job.id not in (select id from old)),
               k as (delete from idempotency using old where idempotency.job = old.id),
               j as (delete from job using old where job.id = old.id returning job.id)
           select count(*) as "gone!" from j"#,
        FINISHED_DAYS,
        limit
    )
    .fetch_one(pool)
    .await?;
    Ok(gone.unsigned_abs())
}

/// Removes idempotency keys of all tenants whose request made no job that still exists.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn idempotency_keys(pool: &PgPool, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "delete from idempotency where (tenant, principal, method, path, key) in (
             select i.tenant, i.principal, i.method, i.path, i.key from idempotency i
              where i.created_at < clock_timestamp() - make_interval(days => $1) and not exists (select 1 from job where job.id = i.job)
              order by i.created_at limit $2)",
        FINISHED_DAYS,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Removes what lets somebody in once and has run out, of all tenants: link pages, links of users, stream tickets. A day later, that a late
/// look still finds what it was.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn one_time_links(pool: &PgPool, limit: i64) -> Result<u64> {
    let gone = sqlx::query_scalar!(
        r#"with p as (
               delete from link_page where token_hash in (
                   select token_hash from link_page where expires_at < clock_timestamp() - make_interval(days => $1) order by expires_at limit $2)
               returning 1),
               l as (
               delete from user_link where hash in (
                   select hash from user_link where expires_at < clock_timestamp() - make_interval(days => $1) order by expires_at limit $2)
               returning 1),
               t as (
               delete from spent_ticket where id in (
                   select id from spent_ticket where expires_at < clock_timestamp() - make_interval(days => $1) order by expires_at limit $2)
               returning 1)
           select greatest((select count(*) from p), (select count(*) from l), (select count(*) from t)) as "gone!""#,
        TOKEN_DAYS,
        limit
    )
    .fetch_one(pool)
    .await?;
    Ok(gone.unsigned_abs())
}

/// Removes refresh tokens of all tenants whose time is over.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn refresh_tokens(pool: &PgPool, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        "delete from refresh_token where hash in (
             select hash from refresh_token where expires_at < clock_timestamp() - make_interval(days => $1) order by expires_at limit $2)",
        TOKEN_DAYS,
        limit
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}
