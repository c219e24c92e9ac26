//! The page on which a customer links a phone without an account: one URL, one session, a few minutes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{KeyId, Principal, SessionId, TenantId, UserId};
use sqlx::PgPool;

use crate::{Result, accept::IdempotencyKey, idempotency};

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
    pub created_by: Principal,
    /// The company's name.
    pub company: String,
    /// What it may do.
    pub terms: Terms,
    /// Whether the account was linked: it shows no code any more.
    pub used: bool,
    /// When it closes.
    pub expires_at: DateTime<Utc>,
}

/// Opens a page in place of an earlier one of the session: of two at once, the later one stays. Answers when it closes. `created_by`: who
/// asked, and the person who answers for it. `None`: a request of this key opened one before.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn open(
    pool: &PgPool,
    (tenant, session): (TenantId, SessionId),
    hash: &[u8],
    (created_by, user): (Principal, UserId),
    terms: Terms,
    lasts: Duration,
    key: Option<&IdempotencyKey>,
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        "with first as materialized (select 1 where remember($2, $9, $10))
         insert into link_page (token_hash, tenant, session, created_by, with_code, allow_new_account, expires_at, api_key)
         select $1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7), $8 from first
         on conflict (session) do update
            set token_hash = excluded.token_hash, created_by = excluded.created_by, with_code = excluded.with_code,
                allow_new_account = excluded.allow_new_account, expires_at = excluded.expires_at, api_key = excluded.api_key,
                codes = 0, used_at = null, created_at = excluded.created_at
         returning expires_at",
        hash,
        tenant.uuid(),
        session.uuid(),
        user.uuid(),
        terms.with_code,
        terms.allow_new_account,
        lasts.as_secs_f64(),
        match created_by {
            Principal::Key(key) => Some(key.uuid()),
            Principal::User(_) => None,
        },
        idempotency::asked(key),
        session.to_string()
    )
    .fetch_optional(pool)
    .await?)
}

/// The page of a token, while it is open, its session is there, its tenant is served, and whoever made it may still make one.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, hash: &[u8]) -> Result<Option<LinkPage>> {
    let row = sqlx::query!(
        r#"select p.tenant, p.session, p.created_by, p.api_key, p.with_code, p.allow_new_account, t.name as company, p.used_at is not null as "used!", p.expires_at
             from link_page p join session s on s.id = p.session and s.deleting_at is null
             join tenant t on t.id = p.tenant and t.state = 'active'
             join app_user u on u.id = p.created_by and u.tenant = p.tenant and u.state = 'active' and u.rol = 'ADMIN'
            where p.token_hash = $1 and p.expires_at > clock_timestamp() and (p.api_key is null or exists (
                  select 1 from api_key k
                   where k.id = p.api_key and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())))"#,
        hash
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| LinkPage {
        tenant: TenantId::from_uuid(r.tenant),
        session: SessionId::from_uuid(r.session),
        created_by: r.api_key.map_or_else(|| Principal::User(UserId::from_uuid(r.created_by)), |key| Principal::Key(KeyId::from_uuid(key))),
        company: r.company,
        terms: Terms { with_code: r.with_code, allow_new_account: r.allow_new_account },
        used: r.used,
        expires_at: r.expires_at,
    }))
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
