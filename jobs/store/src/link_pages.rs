//! The page on which a customer links a phone without an account: one URL, one session, a few minutes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{SessionId, TenantId, UserId};
use sqlx::PgPool;

use crate::Result;

/// Pairing codes that one page may ask for, whatever the numbers.
const MOST_CODES: i16 = 5;

/// What a page may do besides showing the code to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether it may ask for a pairing code.
    pub with_code: bool,
    /// Whether another account than the known one may be linked.
    pub allow_new_account: bool,
}

/// A page that is still open.
#[derive(Debug, Clone)]
pub struct LinkPage {
    /// Whose.
    pub tenant: TenantId,
    /// The one session it links.
    pub session: SessionId,
    /// Who made it: jobs that it asks for are theirs.
    pub created_by: UserId,
    /// The company's name.
    pub company: String,
    /// What it may do.
    pub terms: Terms,
    /// Whether the account was linked: it shows no code any more.
    pub used: bool,
    /// When it closes.
    pub expires_at: DateTime<Utc>,
}

/// Opens a page; an earlier one of the session closes. Answers when it closes.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn open(
    pool: &PgPool,
    (tenant, session): (TenantId, SessionId),
    hash: &[u8],
    created_by: UserId,
    terms: Terms,
    lasts: Duration,
) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(
        "with old as (delete from link_page where tenant = $2 and session = $3 or expires_at < clock_timestamp() - interval '1 day')
         insert into link_page (token_hash, tenant, session, created_by, with_code, allow_new_account, expires_at)
         values ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7)) returning expires_at",
        hash,
        tenant.uuid(),
        session.uuid(),
        created_by.uuid(),
        terms.with_code,
        terms.allow_new_account,
        lasts.as_secs_f64()
    )
    .fetch_one(pool)
    .await?)
}

/// The page of a token, while it is open, its session is there and its tenant is served.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, hash: &[u8]) -> Result<Option<LinkPage>> {
    let row = sqlx::query!(
        r#"select p.tenant, p.session, p.created_by, p.with_code, p.allow_new_account, t.name as company, p.used_at is not null as "used!", p.expires_at
             from link_page p join session s on s.id = p.session and s.deleting_at is null
             join tenant t on t.id = p.tenant and t.state = 'active'
            where p.token_hash = $1 and p.expires_at > clock_timestamp()"#,
        hash
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| LinkPage {
        tenant: TenantId::from_uuid(r.tenant),
        session: SessionId::from_uuid(r.session),
        created_by: UserId::from_uuid(r.created_by),
        company: r.company,
        terms: Terms { with_code: r.with_code, allow_new_account: r.allow_new_account },
        used: r.used,
        expires_at: r.expires_at,
    }))
}

/// The account was linked: the page shows no code any more.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn mark_used(pool: &PgPool, tenant: TenantId, hash: &[u8]) -> Result<()> {
    sqlx::query!(
        "update link_page set used_at = coalesce(used_at, clock_timestamp()) where token_hash = $1 and tenant = $2",
        hash,
        tenant.uuid()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Counts a pairing code. `false`: the page has asked for enough of them.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn take_code(pool: &PgPool, tenant: TenantId, hash: &[u8]) -> Result<bool> {
    let done = sqlx::query!(
        "update link_page set codes = codes + 1 where token_hash = $1 and tenant = $2 and codes < $3 and used_at is null",
        hash,
        tenant.uuid(),
        MOST_CODES
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}
