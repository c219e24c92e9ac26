//! The end of a session: first it is gone for its tenant, then its browser, then its rows. That of a tenant: `tenants::deletion`.

use std::time::Duration;

use contract::{
    Event, Fact, Reason, SessionId, SessionState, TenantId,
    event::{SessionFact, SessionStatusBody},
};
use sqlx::PgPool;

use crate::{
    Result,
    log::{self, Columns, NewEvent},
};

/// How long a logout may wait for its start: by then a host has been there. What none could do stays linked on the phone.
pub const UNLINK_WITHIN: Duration = Duration::from_secs(3600);

/// What became of the wish to delete.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone for its tenant, and the events say so.
    Done(Vec<Event>),
    /// It is the tenant's default: another one has to become that first.
    IsDefault,
    /// The tenant has no such session (any more).
    NotFound,
}

/// Marks a session as deleted: 404 everywhere from here on, not wanted, and nothing of it starts any more but its own logout. A session that
/// no host holds is stopped here, another one by its owner. The default stays unless its tenant goes.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn mark(pool: &PgPool, tenant: TenantId, session: SessionId) -> Result<Deleted> {
    let (state, reason) = (SessionState::Stopped, Reason::Deleted);
    let now = SessionFact { state, reason: Some(reason), user_action: None, me: None };
    let columns = Columns::of(&[NewEvent::of(None, &Fact::SessionStatus(SessionStatusBody { session: now }))]);
    let rows = sqlx::query_as!(
        log::Row,
        r#"with s as (
                    update session set deleting_at = clock_timestamp(), wanted = 'stopped',
                           state = case when owner is null then $3 else state end, reason = case when owner is null then $4 else reason end
                     where id = $1 and tenant = $2 and deleting_at is null
                       and (not is_default or exists (select 1 from tenant t where t.id = $2 and t.state = 'deleting'))
                    returning tenant),
                links as (delete from link_page using s where link_page.session = $1 and link_page.tenant = $2),
                c as (
                    update tenant_counter set seq = seq + 1 from s where tenant_counter.tenant = s.tenant
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at)
           insert into event (tenant, seq, day, id, type, at, session, data)
           select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $5, $6, c.at, $1, $7 from c
           returning id, seq, type as kind, at, session, chat, data"#,
        session.uuid(),
        tenant.uuid(),
        state.as_str(),
        reason.as_str(),
        columns.ids[0],
        columns.kinds[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    if !rows.is_empty() {
        return Ok(Deleted::Done(log::events(rows, tenant)));
    }
    let is_default = sqlx::query_scalar!(
        "select is_default from session where id = $1 and tenant = $2 and deleting_at is null",
        session.uuid(),
        tenant.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(if is_default == Some(true) { Deleted::IsDefault } else { Deleted::NotFound })
}

/// Deleted sessions whose browser is gone and whose logout has ended: their rows may go. An owner that died without a release is fenced by
/// what [`remove`] does last.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn removable(pool: &PgPool, limit: i64) -> Result<Vec<(TenantId, SessionId)>> {
    let rows = sqlx::query!(
        "select s.tenant, s.id from session s
          where s.deleting_at is not null and s.state in ('stopped', 'logged_out', 'banned', 'failed', 'conflict')
            and (s.owner is null or s.state_at < clock_timestamp() - interval '5 minutes')
            and not exists (select 1 from job j where j.session = s.id and j.lane = 'control' and j.kind = 'logout' and j.state in ('queued', 'running'))
          order by s.deleting_at limit $1",
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), SessionId::from_uuid(r.id))).collect())
}

/// Rows of one statement.
const BATCH: i64 = 1000;

/// Deletes some rows of a deleted session, those that others point at last. `true`: nothing is left. Events stay in the log until they are
/// erased with it: readers' cursors count them.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn remove(pool: &PgPool, tenant: TenantId, session: SessionId) -> Result<bool> {
    let (t, s) = (tenant.uuid(), session.uuid());
    let idempotency = sqlx::query!(
        "delete from idempotency where tenant = $1 and ctid = any(array(
           select i.ctid from idempotency i join job j on j.id = i.job where j.session = $2 and j.tenant = $1 limit $3))",
        t,
        s,
        BATCH
    );
    let mut gone = idempotency.execute(pool).await?.rows_affected();
    gone += sqlx::query!(
        "delete from message where tenant = $1 and ctid = any(array(
           select ctid from message where session = $2 and tenant = $1 order by session, wa_id limit $3))",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    // Nobody can read their objects from here on; the worker's next sweep takes them.
    gone += sqlx::query!(
        "with gone as (
           delete from export where tenant = $1 and ctid = any(array(select ctid from export where session = $2 and tenant = $1 limit $3))
           returning object, tenant)
         insert into object_leftover (object, tenant, due_at) select object, tenant, clock_timestamp() from gone on conflict (object) do nothing",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "delete from access_grant where tenant = $1 and ctid = any(array(
           select ctid from access_grant where session = $2 and tenant = $1 order by tenant, session, chat limit $3))",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    if gone > 0 {
        return Ok(false);
    }
    gone += sqlx::query!(
        "with newest as (select id from job where session = $2 and tenant = $1 order by id desc limit $3)
         delete from job where tenant = $1 and id in (select id from newest)",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "delete from chat_alias where session = $2 and ctid = any(array(
           select a.ctid from chat_alias a join session s on s.id = a.session and s.tenant = $1 where a.session = $2 limit $3))",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "delete from contact where tenant = $1 and ctid = any(array(
           select ctid from contact where session = $2 and tenant = $1 order by session, account, wa_id limit $3))",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    gone += sqlx::query!(
        "delete from chat_member where tenant = $1 and ctid = any(array(
           select m.ctid from chat_member m join chat c on c.id = m.chat and c.tenant = $1 where c.session = $2 limit $3))",
        t,
        s,
        BATCH
    )
    .execute(pool)
    .await?
    .rows_affected();
    if gone > 0 {
        return Ok(false);
    }
    sqlx::query!("update chat set merged_into = null where tenant = $1 and session = $2 and merged_into is not null", t, s)
        .execute(pool)
        .await?;
    let chats = sqlx::query!(
        "delete from chat where tenant = $1 and ctid = any(array(select ctid from chat where session = $2 and tenant = $1 order by session, id limit $3))",
        t,
        s,
        BATCH
    );
    if chats.execute(pool).await?.rows_affected() > 0 {
        return Ok(false);
    }
    sqlx::query!(
        "with gone as (delete from profile_snapshot where tenant = $1 and session = $2 returning object, tenant)
         insert into object_leftover (object, tenant, due_at) select object, tenant, clock_timestamp() from gone on conflict (object) do nothing",
        t,
        s
    )
    .execute(pool)
    .await?;
    sqlx::query!("delete from link_page where tenant = $1 and session = $2", t, s).execute(pool).await?;
    sqlx::query!("delete from lane_position where tenant = $1 and session = $2", t, s).execute(pool).await?;
    sqlx::query!("delete from session where tenant = $1 and id = $2 and deleting_at is not null", t, s).execute(pool).await?;
    Ok(true)
}
