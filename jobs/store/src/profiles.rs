//! Which profile an owner may use: the directory that the session's row names, or a snapshot in the object store that has a row.

use chrono::{DateTime, Utc};
use contract::{ProfileId, TenantId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Held, Result};

/// How long an upload may take before what it left is swept.
const UPLOAD_HOURS: i32 = 24;

/// A snapshot, by its place among a session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The epoch that took it.
    pub epoch: i64,
    /// Which of that epoch's.
    pub n: i32,
}

/// A snapshot as its row describes it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which.
    pub id: SnapshotId,
    /// The directory that was packed.
    pub profile: ProfileId,
    /// Its name in the object store.
    pub object: String,
    /// SHA-256 of the object.
    pub digest: Vec<u8>,
    /// The object's size.
    pub size: i64,
    /// The tenant's data key, sealed.
    pub data_key: Vec<u8>,
    /// The object's own key, sealed under that.
    pub object_key: Vec<u8>,
    /// Major version of the browser that wrote it.
    pub browser_major: i32,
    /// What its storage must hold.
    pub marker: String,
    /// When its browser was closed.
    pub taken_at: DateTime<Utc>,
    /// Whether a browser has worked in what it holds.
    pub opened: bool,
}

/// Why a snapshot is not used (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such object.
    Missing,
    /// Its bytes are not those that were written.
    Corrupt,
    /// It does not open: it is another session's or tenant's, or its key is gone.
    Sealed,
    /// It opens, and its storage does not hold its marker.
    Erased,
}

impl Refused {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::Sealed => "sealed",
            Self::Erased => "erased",
        }
    }
}

/// What a browser is about to be started in.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The directory that the row names, as it is.
    Kept,
    /// An empty one.
    Empty,
    /// One that was made of a snapshot.
    Restored {
        /// Of this one.
        snapshot: &'a Snapshot,
        /// It is what the last browser closed: nothing was missed since.
        whole: bool,
    },
}

/// Names the directory that may be used from now on. Done before the page gets the network; a directory that the row no longer names is
/// deleted by whoever finds it. In an empty one the mark of what is recorded starts again, in a restored one it is the snapshot's. A gap is
/// owed where the known account goes on in an empty one, or in one that is not what the last owner closed.
///
/// # Errors
/// [`crate::StoreError`]. `false`: no longer ours.
pub async fn begin(pool: &PgPool, held: &Held, profile: ProfileId, major: i32, source: Source<'_>) -> Result<bool> {
    let (kept, snapshot, whole) = match source {
        Source::Kept => (true, None, true),
        Source::Empty => (false, None, false),
        Source::Restored { snapshot, whole } => (false, Some(snapshot), whole),
    };
    let done = sqlx::query!(
        "update session s set profile = $4, profile_changed = true, profile_starts = s.profile_starts + 1,
                profile_major = case when $7 then greatest(s.profile_major, $6) else $6 end,
                profile_marker = case when $7 then s.profile_marker else p.marker end,
                profile_row_id = case when $7 then s.profile_row_id else coalesce(p.max_row_id, 0) end,
                history_at = case when $7 or p.marker is not null then s.history_at end,
                gap_owed = case when $7 or $11 then s.gap_owed else p.marker is not null or s.account is not null end,
                gap_from = case when $7 or $11 then s.gap_from
                                when s.gap_owed then least(s.gap_from, p.taken_at)
                                else p.taken_at end
           from (select 1) one left join (
                    select p.marker, p.max_row_id, p.taken_at from profile_snapshot p where p.session = $1 and p.epoch = $8 and p.n = $9) p on true
          where s.id = $1 and s.tenant = $5 and s.epoch = $2 and s.owner = $3 and (not $10 or p.marker is not null)",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        profile.uuid(),
        held.tenant().uuid(),
        major,
        kept,
        snapshot.map_or(-1, |s| s.id.epoch),
        snapshot.map_or(-1, |s| s.id.n),
        snapshot.is_some(),
        whole,
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The directories that rows still name, of those given: all others on a host's disk may go.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn in_use(pool: &PgPool, profiles: &[ProfileId]) -> Result<Vec<ProfileId>> {
    let ids: Vec<_> = profiles.iter().map(|p| p.uuid()).collect();
    let rows = sqlx::query_scalar!(r#"select profile as "profile!" from session where profile = any($1)"#, &ids).fetch_all(pool).await?;
    Ok(rows.into_iter().map(ProfileId::from_uuid).collect())
}

/// Lets go of the profile and of its snapshots: the account was unlinked, so the next start begins with an empty directory.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn forget(pool: &PgPool, held: &Held) -> Result<()> {
    sqlx::query!(
        "with held as (
              update session set profile = null, profile_row_id = 0, profile_marker = null, profile_major = 0, profile_changed = true
               where id = $1 and tenant = $4 and epoch = $2 and owner = $3 returning id),
              gone as (delete from profile_snapshot p using held where p.session = held.id and p.tenant = $4 returning p.object, p.tenant)
         insert into object_leftover (object, tenant, due_at) select object, tenant, clock_timestamp() + interval '1 hour' from gone
         on conflict (object) do nothing",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says that the owner cannot bring the profile back, for reasons of its own. `true`: nobody could for `within`; the next try starts anew.
/// `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn not_restored(pool: &PgPool, held: &Held, within: std::time::Duration) -> Result<Option<bool>> {
    let given_up = sqlx::query_scalar!(
        r#"update session s set unrestored_at = case when not old.given_up then coalesce(s.unrestored_at, clock_timestamp()) end
             from (select id, coalesce(unrestored_at < clock_timestamp() - make_interval(secs => $5), false) as given_up
                     from session where id = $1 and tenant = $4 and epoch = $2 and owner = $3 for no key update) old
            where s.id = old.id
           returning old.given_up as "given_up!""#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid(),
        within.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    Ok(given_up)
}

/// The snapshots of the session's account that may be used, the newest first. `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn snapshots(pool: &PgPool, held: &Held) -> Result<Option<Vec<Snapshot>>> {
    let rows = sqlx::query!(
        r#"select p.epoch as "epoch?", p.n as "n?", p.profile as "profile?", p.object as "object?", p.digest as "digest?", p.size as "size?",
                  k.sealed as "data_key?", p.object_key as "object_key?", p.browser_major as "browser_major?", p.marker as "marker?",
                  p.taken_at as "taken_at?", p.opened_at
             from session s
             left join (profile_snapshot p join data_key k on k.id = p.data_key and k.tenant = p.tenant)
                    on p.session = s.id and p.tenant = s.tenant and p.account = s.account and p.refused is null
            where s.id = $1 and s.tenant = $4 and s.epoch = $2 and s.owner = $3
            order by p.epoch desc, p.n desc"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid()
    )
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let snapshots = rows.into_iter().filter_map(|r| {
        Some(Snapshot {
            id: SnapshotId { epoch: r.epoch?, n: r.n? },
            profile: ProfileId::from_uuid(r.profile?),
            object: r.object?,
            digest: r.digest?,
            size: r.size?,
            data_key: r.data_key?,
            object_key: r.object_key?,
            browser_major: r.browser_major?,
            marker: r.marker?,
            taken_at: r.taken_at?,
            opened: r.opened_at.is_some(),
        })
    });
    Ok(Some(snapshots.collect()))
}

/// Says that an object is about to be written: it is swept if no row names it in a day. The snapshot counts from now. `false`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn begin_upload(pool: &PgPool, held: &Held, object: &str) -> Result<bool> {
    let done = sqlx::query!(
        "with held as (select tenant, profile_starts from session where id = $1 and epoch = $2 and owner = $3 for no key update)
         insert into object_leftover (object, tenant, due_at, starts)
         select $4, held.tenant, clock_timestamp() + make_interval(hours => $5), held.profile_starts from held",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        object,
        UPLOAD_HOURS
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What was uploaded.
#[derive(Debug, Clone)]
pub struct Uploaded<'a> {
    /// The directory that was packed.
    pub profile: ProfileId,
    /// Its name, announced by [`begin_upload`].
    pub object: &'a str,
    /// SHA-256 of the object.
    pub digest: &'a [u8],
    /// Its size.
    pub size: i64,
    /// The tenant's data key.
    pub data_key: Uuid,
    /// The object's own key, sealed under that.
    pub object_key: &'a [u8],
    /// Major version of the browser that wrote it.
    pub browser_major: i32,
    /// What its storage holds.
    pub marker: &'a str,
}

/// Makes an uploaded object a snapshot: from now on it may be used, and a session that goes on from it has missed nothing. `None`: no longer
/// ours, or it took so long that another browser was started meanwhile or the object was swept. Said again after a lost answer it finds what
/// it has made.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn add(pool: &PgPool, held: &Held, uploaded: &Uploaded<'_>) -> Result<Option<SnapshotId>> {
    let row = sqlx::query!(
        r#"with held as (
                    select tenant, account, profile_row_id, profile_starts from session
                     where id = $1 and epoch = $2 and owner = $3 and profile = $4 and account is not null for no key update),
                announced as (
                    delete from object_leftover o using held
                     where o.object = $5 and o.tenant = held.tenant and o.starts = held.profile_starts returning o.made_at),
                added as (
                    insert into profile_snapshot (session, epoch, n, tenant, profile, object, digest, size, data_key, object_key,
                           browser_major, marker, account, max_row_id, taken_at)
                    select $1, $2, coalesce((select max(n) from profile_snapshot where session = $1 and epoch = $2), 0) + 1, held.tenant, $4,
                           $5, $6, $7, $8, $9, $10, $11, held.account, held.profile_row_id, announced.made_at from held, announced
                    returning epoch, n),
                s as (update session set profile_changed = false, profile_marker = $11 from added where session.id = $1)
           select epoch as "epoch!", n as "n!" from added
           union all select p.epoch, p.n from profile_snapshot p, held where p.session = $1 and p.object = $5"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        uploaded.profile.uuid(),
        uploaded.object,
        uploaded.digest,
        uploaded.size,
        uploaded.data_key,
        uploaded.object_key,
        uploaded.browser_major,
        uploaded.marker,
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| SnapshotId { epoch: r.epoch, n: r.n }))
}

/// Remembers why a snapshot is not used, for every host that comes after. `false`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn refuse(pool: &PgPool, held: &Held, id: SnapshotId, why: Refused) -> Result<bool> {
    let done = sqlx::query!(
        "with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
              -- What is older lacks what this one had, whoever goes on from there.
              behind as (update session set profile_changed = true from held where session.id = $1)
         update profile_snapshot p set refused = $6 from held where p.session = $1 and p.epoch = $4 and p.n = $5 and p.tenant = held.tenant",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        id.epoch,
        id.n,
        why.as_str()
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A browser works in what the snapshot holds: from now on older ones may go, but for the one before it. Answers how many went.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn opened(pool: &PgPool, held: &Held, id: SnapshotId) -> Result<u64> {
    let done = sqlx::query!(
        "with held as (select id, tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
              opened as (
                  update profile_snapshot p set opened_at = coalesce(opened_at, clock_timestamp()) from held
                   where p.session = held.id and p.tenant = held.tenant and p.epoch = $4 and p.n = $5),
              gone as (
                  delete from profile_snapshot p using held
                   where p.session = held.id and p.tenant = held.tenant and (p.epoch, p.n) < ($4, $5)
                     and (p.epoch, p.n) not in (
                         select k.epoch, k.n from profile_snapshot k where k.session = $1 and k.refused is null
                          order by k.epoch desc, k.n desc limit 2)
                  returning p.object, p.tenant)
         insert into object_leftover (object, tenant, due_at) select object, tenant, clock_timestamp() + interval '1 hour' from gone
         on conflict (object) do nothing",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        id.epoch,
        id.n
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Objects whose time has come, the oldest first: no row names them.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn leftovers(pool: &PgPool, limit: i64) -> Result<Vec<(TenantId, String)>> {
    let rows = sqlx::query!("select tenant, object from object_leftover where due_at <= clock_timestamp() order by due_at limit $1", limit)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), r.object)).collect())
}

/// An object is gone from the store.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn swept(pool: &PgPool, tenant: TenantId, object: &str) -> Result<()> {
    sqlx::query!("delete from object_leftover where tenant = $1 and object = $2", tenant.uuid(), object).execute(pool).await?;
    Ok(())
}
