//! What a worker does about exports: begins one, writes its row under the job's claim, and sweeps what is kept no longer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contract::{ChatId, ExportId, JobId, SessionId, TenantId};
use sqlx::PgPool;

use crate::{Result, background_jobs::Claim, chats::Chat};

/// A chat as an export begins.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The chat that messages hang on now.
    pub chat: Chat,
    /// The linked account that it belongs to.
    pub account: String,
    /// The session's name.
    pub session: String,
    /// How many chats were merged into it: another one brings messages that are older than what has been read.
    merged: i64,
    /// What is recorded later is not exported.
    pub snapshot_at: DateTime<Utc>,
    /// Messages that will be.
    pub total: i64,
}

/// Looks at a chat that is to be exported. `None`: it is gone.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn begin(pool: &PgPool, tenant: TenantId, chat: ChatId, since: Option<DateTime<Utc>>) -> Result<Option<Begun>> {
    let row = sqlx::query!(
        r#"select c.id, c.session, c.account, c.kind, c.wa_id, c.lid, c.phone, c.name, c.unread, c.archived, c.last_message_at,
                  s.name as session_name, clock_timestamp() as "now!",
                  (select count(*) from chat m where m.merged_into = c.id) as "merged!",
                  (select count(*) from message m where m.chat = c.id and m.tenant = $1 and ($3::timestamptz is null or m.sent_at >= $3)) as "total!"
             from chat named join chat c on c.id = coalesce(named.merged_into, named.id) and c.tenant = $1
                  join session s on s.id = c.session and s.deleting_at is null
            where named.tenant = $1 and named.id = $2"#,
        tenant.uuid(),
        chat.uuid(),
        since
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| Begun {
        chat: Chat {
            id: ChatId::from_uuid(r.id),
            session: SessionId::from_uuid(r.session),
            kind: r.kind,
            wa_id: r.wa_id,
            lid: r.lid,
            phone: r.phone,
            name: r.name,
            unread: r.unread,
            archived: r.archived,
            last_message_at: r.last_message_at,
        },
        account: r.account,
        session: r.session_name,
        merged: r.merged,
        snapshot_at: r.now,
        total: r.total,
    }))
}

/// A file that has been written.
#[derive(Debug, Clone)]
pub struct Made {
    /// Which export it is.
    pub id: ExportId,
    /// Messages from before are not in it.
    pub since: Option<DateTime<Utc>>,
    /// Where it lies.
    pub object: String,
    /// Its own key, sealed.
    pub key: Vec<u8>,
    /// Bytes of the file as it is downloaded.
    pub size: u64,
    /// Their digest.
    pub sha256: Vec<u8>,
    /// Messages in it.
    pub messages: u64,
}

/// What became of a row.
#[derive(Debug, Clone)]
pub enum Recorded {
    /// It is there.
    Done(Summary),
    /// Chats were merged meanwhile: what was read may lack a part of it.
    Moved,
    /// The claim has lapsed, or the job is gone.
    Lost,
}

/// What a job says of its export.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Which.
    pub id: ExportId,
    /// Of which chat.
    pub chat: ChatId,
    /// Bytes of the file.
    pub size: u64,
    /// Their digest.
    pub sha256: Vec<u8>,
    /// Messages in it.
    pub messages: u64,
    /// Until when it is kept.
    pub expires_at: DateTime<Utc>,
}

/// Writes the row of a file that is whole, while the job is held and its chat is what it was. The job's row is locked, so that whoever takes
/// the claim away either comes first or finds the row.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn record(pool: &PgPool, claim: &Claim, begun: &Begun, made: &Made, kept: Duration) -> Result<Recorded> {
    let expires_at = sqlx::query_scalar!(
        "with j as (
             select created_by from job where tenant = $1 and id = $2 and claim = $3 and state = 'running' for no key update),
              c as (
             select c.id from chat c, j
              where c.id = $4 and c.tenant = $1 and c.merged_into is null
                and (select count(*) from chat m where m.merged_into = c.id) = $5)
         insert into export (id, tenant, session, chat, since, job, created_by, object, key, size, sha256, messages, snapshot_at, expires_at)
         select $6, $1, $7, c.id, $8, $2, j.created_by, $9, $10, $11, $12, $13, $14, clock_timestamp() + make_interval(secs => $15) from j, c
         returning expires_at",
        claim.tenant().uuid(),
        claim.job().uuid(),
        claim.id(),
        begun.chat.id.uuid(),
        begun.merged,
        made.id.uuid(),
        begun.chat.session.uuid(),
        made.since,
        made.object,
        made.key,
        i64::try_from(made.size).unwrap_or(i64::MAX),
        made.sha256,
        i64::try_from(made.messages).unwrap_or(i64::MAX),
        begun.snapshot_at,
        kept.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    if let Some(expires_at) = expires_at {
        let Made { id, size, sha256, messages, .. } = made.clone();
        return Ok(Recorded::Done(Summary { id, chat: begun.chat.id, size, sha256, messages, expires_at }));
    }
    let held = sqlx::query_scalar!(
        r#"select exists (select 1 from job where tenant = $1 and id = $2 and claim = $3 and state = 'running') as "held!""#,
        claim.tenant().uuid(),
        claim.job().uuid(),
        claim.id()
    )
    .fetch_one(pool)
    .await?;
    Ok(if held { Recorded::Moved } else { Recorded::Lost })
}

/// The export that a job made before it was cut off.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn of_job(pool: &PgPool, tenant: TenantId, job: JobId) -> Result<Option<Summary>> {
    let row = sqlx::query!(
        "select id, chat, size, sha256, messages, expires_at from export where tenant = $1 and job = $2",
        tenant.uuid(),
        job.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| Summary {
        id: ExportId::from_uuid(r.id),
        chat: ChatId::from_uuid(r.chat),
        size: r.size.unsigned_abs(),
        sha256: r.sha256,
        messages: r.messages.unsigned_abs(),
        expires_at: r.expires_at,
    }))
}

/// Takes away exports of all tenants that are kept no longer, with their keys. Answers where the objects lie.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn expired(pool: &PgPool, limit: i64) -> Result<Vec<String>> {
    let objects = sqlx::query_scalar!(
        "delete from export where id in (
             select id from export where expires_at <= clock_timestamp() order by expires_at limit $1 for update skip locked)
         returning object",
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(objects)
}

/// Those of the names that no export of any tenant has.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn without_row(pool: &PgPool, objects: &[String]) -> Result<Vec<String>> {
    let left = sqlx::query_scalar!(
        r#"select name as "name!" from unnest($1::text[]) as t (name) where not exists (select 1 from export where export.object = t.name)"#,
        objects
    )
    .fetch_all(pool)
    .await?;
    Ok(left)
}
