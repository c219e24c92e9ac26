//! Who owns a session: the epoch, and the proof of it that every owner's statement takes.

use contract::{HostId, OwnerId, SessionId, TenantId};
use sqlx::PgPool;

use crate::Result;

/// A session whose lease this process holds at this epoch. Made only by [`bump`], the statement that issues the epoch. The locking read
/// `WITH held AS (… FOR NO KEY UPDATE)` that opens every owner statement is the proof; this is the reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    tenant: TenantId,
    session: SessionId,
    epoch: i64,
    owner: OwnerId,
}

impl Held {
    /// Whose session it is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// The session.
    pub fn session(&self) -> SessionId {
        self.session
    }
    /// The ever-growing number of this ownership.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
    /// The fresh id of this acquisition.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }
}

/// What a claimer must know before it takes the lease.
#[derive(Debug, Clone, Copy)]
pub struct Claimable {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub session: SessionId,
    /// The epoch to compare with when it is bumped.
    pub epoch: i64,
    /// Whether the row still names an owner: the last one did not release cleanly.
    pub owned: bool,
    /// Whether unfinished jobs wait: those sessions go first.
    pub has_work: bool,
}

/// Sessions that some host should hold: those that are alive, whatever is wanted (an alive one that is wanted `stopped`, or whose tenant was
/// suspended, has to be stopped by somebody), and those that are down and are to be logged out, which only their browser can do. What a
/// suspended tenant asked for waits; the devices of one that is being deleted are unlinked. Sessions with unfinished jobs come first.
///
/// `busy`: other hosts that live. What they hold is theirs to renew and is not asked about, except `called`: a lease that was given up by
/// somebody else than its holder is told of by a call. `major`: of this host's browser; what a newer one has written is left to others.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn claimable(pool: &PgPool, busy: &[HostId], called: &[SessionId], major: i32) -> Result<Vec<Claimable>> {
    let busy: Vec<_> = busy.iter().map(|h| h.uuid()).collect();
    let called: Vec<_> = called.iter().map(|s| s.uuid()).collect();
    let rows = sqlx::query!(
        r#"select s.tenant, s.id, s.epoch, s.owner is not null as "owned!",
                  exists (select 1 from job j where j.session = s.id and j.lane <> 'background' and j.state in ('queued', 'running')) as "has_work!"
             from session s join tenant t on t.id = s.tenant
            where (s.state in ('starting', 'linking', 'syncing', 'working', 'reconnecting')
                   or t.state <> 'suspended' and exists (select 1 from job j where j.session = s.id and j.lane = 'control' and j.kind = 'logout'
                                 and j.state in ('queued', 'running')))
              and (s.held_until is null or s.held_until < clock_timestamp())
              and (s.owner is null or s.host is null or s.host <> all($1) or s.id = any($2))
              and s.profile_major <= $3
            order by 5 desc, s.id"#,
        &busy,
        &called,
        major
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Claimable {
            tenant: TenantId::from_uuid(r.tenant),
            session: SessionId::from_uuid(r.id),
            epoch: r.epoch,
            owned: r.owned,
            has_work: r.has_work,
        })
        .collect())
}

/// Says that `host` neither runs these sessions nor will, so that others ask for them. The row goes on naming their owner: it did not release
/// them.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn disown(pool: &PgPool, host: HostId, sessions: &[SessionId]) -> Result<()> {
    let sessions: Vec<_> = sessions.iter().map(|s| s.uuid()).collect();
    sqlx::query!("update session set host = null where host = $1 and id = any($2)", host.uuid(), &sessions).execute(pool).await?;
    Ok(())
}

/// Issues the next epoch to `owner`, by compare-and-set on the epoch that was read: a late bump must not fence the real owner. `None`:
/// somebody else was faster, or the last owner has extended its lease in Postgres.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn bump(pool: &PgPool, claim: &Claimable, owner: OwnerId, host: HostId) -> Result<Option<Held>> {
    let epoch = sqlx::query_scalar!(
        "update session set epoch = epoch + 1, owner = $4, host = $5, held_until = null
          where id = $1 and tenant = $2 and epoch = $3 and (held_until is null or held_until < clock_timestamp())
         returning epoch",
        claim.session.uuid(),
        claim.tenant.uuid(),
        claim.epoch,
        owner.uuid(),
        host.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(epoch.map(|epoch| Held { tenant: claim.tenant, session: claim.session, epoch, owner }))
}

/// A session that is still ours, and whether its tenant wants it to run.
#[derive(Debug, Clone, Copy)]
pub struct StillHeld {
    /// Which.
    pub session: SessionId,
    /// Whether it is wanted `running`, or has yet to be logged out, and its tenant may.
    pub wanted: bool,
}

/// Which of `held` this process still owns, in one query. What is missing was taken over.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn still_held(pool: &PgPool, held: &[Held]) -> Result<Vec<StillHeld>> {
    let (ids, epochs, owners) = columns(held);
    let rows = sqlx::query!(
        r#"select s.id, t.state = 'active' and s.wanted = 'running' or t.state <> 'suspended' and exists (
                     select 1 from job j where j.session = s.id and j.lane = 'control' and j.kind = 'logout' and j.state in ('queued', 'running'))
                  as "wanted!"
             from session s join tenant t on t.id = s.tenant
             join unnest($1::uuid[], $2::bigint[], $3::uuid[]) as h (id, epoch, owner) on s.id = h.id and s.epoch = h.epoch and s.owner = h.owner"#,
        &ids,
        &epochs,
        &owners
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| StillHeld { session: SessionId::from_uuid(r.id), wanted: r.wanted }).collect())
}

/// Keeps other hosts from claiming while Redis cannot be reached. Answers the sessions that are still ours.
///
/// # Errors
/// [`crate::StoreError`]: neither store answers, so the caller must fence.
pub async fn extend(pool: &PgPool, held: &[Held], ttl: std::time::Duration) -> Result<Vec<SessionId>> {
    let (ids, epochs, owners) = columns(held);
    let rows = sqlx::query_scalar!(
        "update session s set held_until = clock_timestamp() + make_interval(secs => $4)
           from (select id, epoch, owner from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as u (id, epoch, owner) order by id) h
          where s.id = h.id and s.epoch = h.epoch and s.owner = h.owner
         returning s.id",
        &ids,
        &epochs,
        &owners,
        ttl.as_secs_f64()
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(SessionId::from_uuid).collect())
}

/// Gives the session up cleanly: the next owner need not wait.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn release(pool: &PgPool, held: &Held) -> Result<()> {
    sqlx::query!(
        "update session set owner = null, host = null, held_until = null where id = $1 and tenant = $4 and epoch = $2 and owner = $3",
        held.session.uuid(),
        held.epoch,
        held.owner.uuid(),
        held.tenant.uuid()
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn columns(held: &[Held]) -> (Vec<uuid::Uuid>, Vec<i64>, Vec<uuid::Uuid>) {
    (held.iter().map(|h| h.session.uuid()).collect(), held.iter().map(|h| h.epoch).collect(), held.iter().map(|h| h.owner.uuid()).collect())
}
