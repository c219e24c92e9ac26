//! The end of a tenant: from the mark on nobody gets in, then its devices are unlinked and its sessions go (`crate::deletion`), then its rows.
//! The log goes last, because whoever writes to it counts with the tenant's counter: without one nothing is told any more.

use contract::{SessionId, TenantId};
use sqlx::PgPool;

use crate::Result;

/// Marks a tenant as being deleted; its webhooks are told no more. `name` must be its own, so that no slip of an id ends a company. Answers how many sessions it still has;
/// `None`: there is no such tenant (any more). May be said again.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn mark(pool: &PgPool, tenant: TenantId, name: &str) -> Result<Option<i64>> {
    let sessions = sqlx::query_scalar!(
        r#"with t as (update tenant set state = 'deleting' where id = $1 and name = $2 returning id),
                w as (update webhook set state = 'disabled', reason = 'requested', state_at = clock_timestamp() from t
                       where webhook.tenant = t.id and webhook.state = 'active')
           select (select count(*) from session where tenant = t.id) as "sessions!" from t"#,
        tenant.uuid(),
        name
    );
    Ok(sessions.fetch_optional(pool).await?)
}

/// Tenants that are marked and not gone.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn marked(pool: &PgPool) -> Result<Vec<TenantId>> {
    let ids = sqlx::query_scalar!("select id from tenant where state = 'deleting' order by id").fetch_all(pool).await?;
    Ok(ids.into_iter().map(TenantId::from_uuid).collect())
}

/// A session of a tenant that is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// Which.
    pub session: SessionId,
    /// Whether it was marked as deleted.
    pub marked: bool,
    /// Whether it has a device, and nobody was told yet to unlink it.
    pub linked: bool,
}

/// Its sessions.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn sessions(pool: &PgPool, tenant: TenantId) -> Result<Vec<Leaving>> {
    let rows = sqlx::query!(
        r#"select s.id, s.deleting_at is not null as "marked!",
                  s.account is not null and s.state not in ('logged_out', 'linking') and not exists (
                    select 1 from job j where j.session = s.id and j.lane = 'control' and j.kind = 'logout' and j.state in ('queued', 'running'))
                  as "linked!"
             from session s where s.tenant = $1 order by s.id"#,
        tenant.uuid()
    );
    Ok(rows
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(|r| Leaving { session: SessionId::from_uuid(r.id), marked: r.marked, linked: r.linked })
        .collect())
}

/// Deletes some of a tenant's rows, `batch` of a table at most, those that others point at last. `true`: all but the tenant itself are gone. To
/// be called once it has no session.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn rows(pool: &PgPool, tenant: TenantId, batch: i64) -> Result<bool> {
    let t = tenant.uuid();
    // The macro that checks statements takes no name of a table from elsewhere.
    macro_rules! of {
        ($statement:literal) => {
            sqlx::query!($statement, t, batch).execute(pool).await?.rows_affected()
        };
    }
    let leaves = of!("delete from webhook_delivery where tenant = $1 and ctid = any(array(
               select d.ctid from webhook w cross join lateral (select ctid from webhook_delivery d where d.webhook = w.id order by d.id desc limit $2) d
                where w.tenant = $1 limit $2))")
        + of!("delete from refresh_token where tenant = $1 and ctid = any(array(
               select r.ctid from app_user u cross join lateral (select ctid from refresh_token r where r.app_user = u.id order by r.expires_at limit $2) r
                where u.tenant = $1 limit $2))")
        + of!("delete from user_link where tenant = $1 and ctid = any(array(
               select l.ctid from app_user u join user_link l on l.app_user = u.id where u.tenant = $1 limit $2))")
        + of!("delete from idempotency where tenant = $1 and ctid = any(array(
               select ctid from idempotency where tenant = $1 order by principal limit $2))")
        + of!("delete from erasure where tenant = $1 and ctid = any(array(select ctid from erasure where tenant = $1 order by until limit $2))")
        + of!("delete from audit where tenant = $1 and ctid = any(array(select ctid from audit where tenant = $1 order by id desc limit $2))")
        + of!("delete from spent_ticket where tenant = $1 and ctid = any(array(select ctid from spent_ticket where tenant = $1 limit $2))")
        + of!("delete from usage_limit where tenant = $1 and ctid = any(array(select ctid from usage_limit where tenant = $1 limit $2))");
    if leaves > 0 {
        return Ok(false);
    }
    // What points at one of these is looked for in several tables: one at a time, so that no statement is long.
    let key = sqlx::query!("delete from api_key where id = (select id from api_key where tenant = $1 limit 1)", t);
    if key.execute(pool).await?.rows_affected() > 0 {
        return Ok(false);
    }
    let user = sqlx::query!("delete from app_user where id = (select id from app_user where tenant = $1 limit 1)", t);
    if user.execute(pool).await?.rows_affected() > 0 {
        return Ok(false);
    }
    // What lies sealed under the data key is unreadable from here on, in backups of the object store too.
    sqlx::query!(
        "with w as (delete from webhook where tenant = $1), r as (delete from retention where tenant = $1), k as (delete from data_key where tenant = $1)
         delete from tenant_counter where tenant = $1",
        t
    )
    .execute(pool)
    .await?;
    let events = of!("delete from event e using (select seq, day from event where tenant = $1 order by seq limit $2) oldest
          where e.tenant = $1 and e.seq = oldest.seq and e.day = oldest.day");
    Ok(events == 0)
}

/// Deletes what is left, the tenant. `false`: it was gone.
///
/// # Errors
/// [`crate::StoreError`], also while something of it is there (again): [`rows`] first.
pub async fn end(pool: &PgPool, tenant: TenantId) -> Result<bool> {
    let done = sqlx::query!("delete from tenant where id = $1 and state = 'deleting'", tenant.uuid()).execute(pool).await?;
    Ok(done.rows_affected() > 0)
}
