//! The session row as its owner reads and writes it.

use contract::{
    Event, EventType, Fact, ProfileId, Reason, SessionState,
    event::{LinkedAccount, SessionFact, SessionStatusBody},
};
use sqlx::PgPool;

use crate::{
    Held, Result,
    log::{self, Columns, NewEvent},
};

/// The linked account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Phone digits.
    pub phone: String,
    /// Its LID, where the page knows it.
    pub lid: Option<String>,
    /// The name its owner gave it.
    pub name: Option<String>,
}

impl Account {
    fn told(&self) -> LinkedAccount {
        LinkedAccount { phone: self.phone.clone(), lid: self.lid.clone(), name: self.name.clone() }
    }
}

/// What an owner needs to know when it takes a session on.
#[derive(Debug, Clone)]
pub struct Owned {
    /// Whether its tenant wants it to run, and may.
    pub wanted: bool,
    /// Whether a job waits that logs the account out.
    pub logout: bool,
    /// Where it was left.
    pub state: SessionState,
    /// And why.
    pub reason: Option<Reason>,
    /// Phone digits of the linked account.
    pub account: Option<String>,
    /// The directory that may be used.
    pub profile: Option<ProfileId>,
    /// The page row below which everything is recorded.
    pub profile_row_id: i64,
    /// What the directory's storage must hold; nothing is known of one that was never closed cleanly.
    pub marker: Option<String>,
    /// Whether a browser was started in the directory since its newest snapshot.
    pub changed: bool,
    /// Whether some host could not bring the profile back, and may have what another one has not.
    pub unrestored: bool,
}

/// Reads the row under the ownership. `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn load(pool: &PgPool, held: &Held) -> Result<Option<Owned>> {
    let row = sqlx::query!(
        r#"select t.state = 'active' and s.wanted = 'running' as "wanted!", t.state <> 'suspended' and exists (
                    select 1 from job j where j.session = $1 and j.lane = 'control' and j.kind = 'logout' and j.state in ('queued', 'running'))
                  as "logout!", s.state, s.reason, s.account, s.profile, s.profile_row_id, s.profile_marker, s.profile_changed,
                  s.unrestored_at is not null as "unrestored!"
             from session s join tenant t on t.id = s.tenant where s.id = $1 and s.tenant = $4 and s.epoch = $2 and s.owner = $3"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| Owned {
        wanted: r.wanted,
        logout: r.logout,
        state: SessionState::from_name(&r.state).unwrap_or(SessionState::Stopped),
        reason: r.reason.as_deref().and_then(Reason::from_name),
        account: r.account,
        profile: r.profile.map(ProfileId::from_uuid),
        profile_row_id: r.profile_row_id,
        marker: r.profile_marker,
        changed: r.profile_changed,
        unrestored: r.unrestored,
    }))
}

/// Writes state and reason with the event that announces them. `want_stopped`: the change also ends the wish to run, so that no host claims
/// it again (a code that nobody scanned); without it, `stopped` is written only while that is still wished for, or its tenant is suspended: a
/// start that came meanwhile wins. No event where it does, nor where the row says so already: a first try has come to its end after all.
/// `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn set_state(
    pool: &PgPool,
    held: &Held,
    (state, reason): (SessionState, Option<Reason>),
    me: Option<&Account>,
    want_stopped: bool,
) -> Result<Option<Vec<Event>>> {
    let columns = Columns::of(&[NewEvent::of(None, &status(state, reason, me.map(Account::told)))]);
    let rows = sqlx::query!(
        r#"with held as (
                    select tenant, $4 <> 'stopped' or $6 or wanted = 'stopped'
                           or exists (select 1 from tenant t where t.id = session.tenant and t.state <> 'active') as still
                      from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                s as (
                    update session set state = $4, reason = $5, state_at = clock_timestamp(),
                           wanted = case when $6 or $4 = 'stopped' then 'stopped' else wanted end,
                           unrestored_at = case when $4 in ('starting', 'reconnecting') then unrestored_at end,
                           worked_until = case when session.state <> 'working' or $4 = 'working' then worked_until
                                               when $5 = 'host_changed' then greatest(session.state_at, session.reconciled_at)
                                               else clock_timestamp() end
                      from held where held.still and session.id = $1 and (session.state <> $4 or session.reason is distinct from $5)
                    returning held.tenant),
                c as (
                    update tenant_counter set seq = seq + 1 from s where tenant_counter.tenant = s.tenant
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, data)
                    select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $7, $8, c.at, $1, $9 from c
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        state.as_str(),
        reason.map(Reason::as_str),
        want_stopped,
        columns.ids[0],
        columns.kinds[0],
        columns.data[0],
    )
    .fetch_all(pool)
    .await?;
    let row = |r: Option<log::Row>| r.map(|r| r.event(held.tenant()));
    Ok((!rows.is_empty()).then(|| {
        rows.into_iter()
            .filter_map(|r| {
                let (session, chat) = (r.session, r.chat);
                row((|| Some(log::Row { id: r.id?, seq: r.seq?, kind: r.kind?, at: r.at?, session, chat, data: r.data? }))())
            })
            .collect()
    }))
}

/// What is told of a session.
pub(crate) fn status(state: SessionState, reason: Option<Reason>, me: Option<LinkedAccount>) -> Fact {
    Fact::SessionStatus(SessionStatusBody { session: SessionFact { state, reason, user_action: state.user_action(reason), me } })
}

/// What linking an account led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It is (now) the session's account.
    Accepted,
    /// The session belongs to another account.
    WrongAccount,
    /// This process no longer owns the session.
    Fenced,
}

/// Binds the session to the account that the page is linked to. Chats made before the first link become the account's. A request that read
/// the session before an earlier link may have made such a chat after it: where the account has one of the same name, that one goes on.
/// Jobs of another account's chats do not start any more from here on; [`crate::ends::doomed`] finds them.
///
/// The link page by which it was linked has done its work.
///
/// `ago`: since when the page has been linked. What arrived since then is announced, however long the page took to say whose it is.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn link(pool: &PgPool, held: &Held, account: &Account, ago: std::time::Duration) -> Result<Linked> {
    let linked = sqlx::query_scalar!(
        r#"with s as (
                    update session set account = $4, account_lid = coalesce($5, account_lid), account_name = coalesce($6, account_name),
                           linked_at = case when account is distinct from $4 then clock_timestamp() - make_interval(secs => $7) else linked_at end,
                           history_at = case when account is distinct from $4 then null else history_at end,
                           gap_owed = coalesce(gap_owed and account = $4, false),
                           allow_new_account = false
                     where id = $1 and epoch = $2 and owner = $3 and (account is null or account = $4 or allow_new_account)
                       and (expected_account is null or expected_account = $4)
                    returning id),
                twice as (
                    select old.chat, (array_agg(new.chat order by new.chat))[1] as goes_on
                      from s join chat_alias old on old.session = s.id and old.account = ''
                             join chat_alias new on new.session = s.id and new.account = $4 and new.alias = old.alias
                     where old.chat <> new.chat group by old.chat),
                known as (
                    delete from chat_alias using s where session = s.id and chat_alias.account = '' and exists (
                           select 1 from chat_alias new where new.session = s.id and new.account = $4 and new.alias = chat_alias.alias)),
                a as (
                    update chat_alias set account = $4, chat = coalesce((select goes_on from twice where twice.chat = chat_alias.chat), chat)
                      from s where session = s.id and chat_alias.account = '' and not exists (
                           select 1 from chat_alias new where new.session = s.id and new.account = $4 and new.alias = chat_alias.alias)),
                b as (
                    update chat set account = $4, merged_into = (select goes_on from twice where twice.chat = chat.id)
                      from s where session = s.id and chat.account = ''),
                m as (
                    update message set account = $4, chat = coalesce((select goes_on from twice where twice.chat = message.chat), chat)
                      from s where session = s.id and message.account = ''),
                j as (update job set chat = twice.goes_on from twice where job.chat = twice.chat),
                g as (update access_grant set chat = twice.goes_on from twice where access_grant.chat = twice.chat),
                l as (update link_page set used_at = clock_timestamp() from s where link_page.session = s.id and link_page.used_at is null)
           select true as "linked!" from s"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        account.phone,
        account.lid,
        account.name,
        ago.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?;
    if linked.is_some() {
        return Ok(Linked::Accepted);
    }
    Ok(if load(pool, held).await?.is_some() { Linked::WrongAccount } else { Linked::Fenced })
}

/// Whether the account may now be taken back from another browser; remembers that it was. At most once `every` so often, whichever host asks.
///
/// # Errors
/// [`crate::StoreError`]. `false`: it was taken back not long ago, or the session is no longer ours.
pub async fn may_take_over(pool: &PgPool, held: &Held, every: std::time::Duration) -> Result<bool> {
    let done = sqlx::query!(
        "update session set takeover_at = clock_timestamp()
          where id = $1 and tenant = $4 and epoch = $2 and owner = $3
            and (takeover_at is null or takeover_at < clock_timestamp() - make_interval(secs => $5))",
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        held.tenant().uuid(),
        every.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Announces that messages may be missing since the session last worked: its profile could not be kept. `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn announce_gap(pool: &PgPool, held: &Held) -> Result<Option<Vec<Event>>> {
    gap(pool, held, false).await
}

/// The same, where the account goes on in a directory that began empty or was made of a snapshot. `None`: no gap is owed (any more), or no longer ours.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn announce_owed_gap(pool: &PgPool, held: &Held) -> Result<Option<Vec<Event>>> {
    gap(pool, held, true).await
}

/// A restored profile misses what came since its snapshot. A session that still counts as working was left without a word: all that is known is
/// since when it worked.
async fn gap(pool: &PgPool, held: &Held, only_owed: bool) -> Result<Option<Vec<Event>>> {
    let columns = Columns::of(&[NewEvent::by_statement(EventType::SessionGap)]);
    let rows = sqlx::query_as!(
        log::Row,
        r#"with held as (
                    select tenant, coalesce(case when gap_owed then gap_from end,
                           case when state = 'working' then state_at else coalesce(worked_until, state_at) end) as since
                      from session where id = $1 and epoch = $2 and owner = $3 and (gap_owed or not $6) for no key update),
                g as (update session set gap_at = clock_timestamp(), gap_owed = false, gap_from = null from held where session.id = $1 returning 1),
                c as (
                    update tenant_counter set seq = seq + 1 from held where tenant_counter.tenant = held.tenant and exists (select 1 from g)
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as at, held.since)
           insert into event (tenant, seq, day, id, type, at, session, data)
           select c.tenant, c.seq, (c.at at time zone 'UTC')::date, $4, $5, c.at, $1,
                  jsonb_build_object('gap', jsonb_build_object(
                  'from', to_char(c.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                  'to', to_char(c.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))) from c
           returning id, seq, type as kind, at, session, chat, data"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        columns.ids[0],
        columns.kinds[0],
        only_owed,
    )
    .fetch_all(pool)
    .await?;
    Ok((!rows.is_empty()).then(|| log::events(rows, held.tenant())))
}
