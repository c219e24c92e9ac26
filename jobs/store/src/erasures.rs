//! Erasing what is kept of a person. The moment that parts before from after is taken under the locks of the sessions and chats
//! ([`begin`]): whatever was being written then was there before, and is found; what comes later asks for the hashes that the same statement
//! left (`erased_until`, `veiled`), and is new. The rest ([`sweep`]) goes in batches and may be cut off and done again.

pub mod sweep;

use chrono::{DateTime, Utc};
use contract::{ChatId, Jid, JobId, SessionId, TenantId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Held, Result};

/// Where a person is erased.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Of which tenant.
    pub tenant: TenantId,
    /// In one session; none: in all.
    pub session: Option<SessionId>,
}

/// Who is erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// Every address of theirs that is known, sorted.
    pub names: Vec<String>,
    /// The private chats with them, and those that were merged into them, sorted.
    pub chats: Vec<Uuid>,
}

impl Person {
    /// As a caller names one.
    pub fn named(address: Option<&Jid>, chat: Option<ChatId>) -> Self {
        Self { names: address.map(Jid::to_string).into_iter().collect(), chats: chat.map(ChatId::uuid).into_iter().collect() }
    }
}

/// These chats, and those that they have been merged into since.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn with_survivors(pool: &PgPool, tenant: TenantId, chats: &[Uuid]) -> Result<Vec<Uuid>> {
    let all = sqlx::query_scalar!(
        r#"select id as "id!" from chat where tenant = $1 and (id = any($2) or id in (select merged_into from chat where tenant = $1 and id = any($2)))
            order by id"#,
        tenant.uuid(),
        chats
    )
    .fetch_all(pool)
    .await?;
    Ok(all)
}

/// The chats of a person by session.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn by_session(pool: &PgPool, tenant: TenantId, chats: &[Uuid]) -> Result<Vec<(SessionId, Vec<ChatId>)>> {
    let rows = sqlx::query!(
        r#"select session, array_agg(id order by id) as "chats!" from chat where tenant = $1 and id = any($2) group by session order by session"#,
        tenant.uuid(),
        chats
    )
    .fetch_all(pool)
    .await?;
    let ids = |chats: Vec<Uuid>| chats.into_iter().map(ChatId::from_uuid).collect();
    Ok(rows.into_iter().map(|r| (SessionId::from_uuid(r.session), ids(r.chats))).collect())
}

/// How often names may lead to others.
const ROUNDS: usize = 6;

/// All that leads to the same person: names of its chats and contacts, and chats of its names.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn find(pool: &PgPool, scope: Scope, mut person: Person) -> Result<Person> {
    for _ in 0..ROUNDS {
        let more = step(pool, scope, &person).await?;
        if more == person {
            break;
        }
        person = more;
    }
    Ok(person)
}

async fn step(pool: &PgPool, scope: Scope, person: &Person) -> Result<Person> {
    let row = sqlx::query!(
        r#"with said as (
               select n.name from unnest($3::text[]) n (name) union select erased_name($1, n.name) from unnest($3::text[]) n (name)),
               -- Apart, and once: asked for each chat it would be read as often as there are chats.
               met as materialized (
               select a.chat from chat_alias a
                where a.alias in (select name from said) and a.session in (
                      select s.id from session s where s.tenant = $1 and ($2::uuid is null or s.id = $2))),
               chats as (
               select c.id, c.wa_id, c.lid, c.phone from chat c
                where c.tenant = $1 and ($2::uuid is null or c.session = $2) and c.kind = 'private'
                  and (c.id = any($4) or c.merged_into = any($4) or c.id in (select o.merged_into from chat o where o.tenant = $1 and o.id = any($4))
                       or c.lid = any($3) or c.wa_id = any($3) or c.phone || '@c.us' = any($3)
                       or c.id in (select chat from met))),
               names as (
               select n.name from chats c, unnest(array[c.wa_id, c.lid, c.phone || '@c.us']) n (name)
               union select a.alias from chat_alias a join chats c on c.id = a.chat
               union select n.name from contact p, unnest(array[p.wa_id, p.lid, p.phone || '@c.us']) n (name)
                where p.tenant = $1 and ($2::uuid is null or p.session = $2)
                  and (p.wa_id = any($3) or p.lid = any($3) or p.phone || '@c.us' = any($3))
               union select n.name from unnest($3::text[]) n (name))
           select array(select name from names where name is not null and name not like 'erased:%' order by 1) as "names!",
                  array(select id from chats union select unnest($4::uuid[]) order by 1) as "chats!""#,
        scope.tenant.uuid(),
        scope.session.map(SessionId::uuid),
        &person.names,
        &person.chats
    )
    .fetch_one(pool)
    .await?;
    Ok(Person { names: row.names, chats: row.chats })
}

/// Parts before from after, and leaves the hashes by which that is kept: answers the moment.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn begin(pool: &PgPool, scope: Scope, job: JobId, person: &Person) -> Result<DateTime<Utc>> {
    let at = sqlx::query_scalar!(
        r#"with s as (
               select id from session where tenant = $1 and ($2::uuid is null or id = $2) order by id for no key update),
               c as (select id from chat where tenant = $1 and id = any($4) order by id for update),
               -- Both locks are held before the clock is asked.
               moment as materialized (select clock_timestamp() as at from (select count(*) from s) s, (select count(*) from c) c),
               e as (
               insert into erasure (tenant, session, name, lid, job, until)
               select distinct on (2, 3) $1::uuid, $2::uuid, erased_name($1, n.name), n.name like '%@lid', $5::uuid, moment.at
                 from moment, unnest($3::text[]) n (name)
               on conflict on constraint erasure_key do update set until = excluded.until, job = excluded.job, hides = true)
           select at as "at!" from moment"#,
        scope.tenant.uuid(),
        scope.session.map(SessionId::uuid),
        &person.names,
        &person.chats,
        job.uuid()
    )
    .fetch_one(pool)
    .await?;
    Ok(at)
}

/// Rows that named a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Chats, which keep their ids.
    pub chats: i64,
    /// Contacts.
    pub contacts: i64,
    /// Members of groups.
    pub members: i64,
}

/// Takes the names away, right after [`begin`]: with a snapshot that has all that came before. Where something new has come already, the
/// names came with it, and stay.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn forget_names(pool: &PgPool, scope: Scope, job: JobId, person: &Person) -> Result<Forgotten> {
    let row = sqlx::query_as!(
        Forgotten,
        r#"with silent as (select 1 where exists (select 1 from erasure where tenant = $1 and job = $5 and hides)),
               gone as (
               delete from chat_alias a using silent, chat c
                where c.tenant = $1 and c.id = any($4) and a.chat = c.id and a.alias not like 'erased:%'
               returning a.session, a.account, a.alias, a.chat),
               -- A chat by number alone may be one whose LID a contact tells.
               lid as (select erased_name($1, min(n.name)) as name from unnest($3::text[]) n (name) where n.name like '%@lid'),
               kept as (
               insert into chat_alias (session, account, alias, chat)
               select distinct on (1, 2, 3) k.session, k.account, k.alias, k.chat from (
                      select session, account, erased_name($1, alias) as alias, chat, 1 as o from gone
                      union all
                      select c.session, c.account, lid.name, c.id, 2 from chat c, silent, lid
                       where c.tenant = $1 and c.id = any($4) and c.lid is null and c.erased_lid is null and lid.name is not null) k
                order by 1, 2, 3, k.o
               on conflict do nothing),
               shells as (
               update chat set wa_id = erased_name($1, wa_id), lid = null, phone = null, name = null,
                      erased_lid = coalesce(erased_name($1, lid), erased_lid, (select name from lid))
                 from silent
                where chat.tenant = $1 and chat.id = any($4)
                  and (chat.wa_id not like 'erased:%' or coalesce(chat.lid, chat.phone, chat.name) is not null)
               returning 1),
               people as (
               delete from contact p using silent
                where p.tenant = $1 and ($2::uuid is null or p.session = $2)
                  and (p.wa_id = any($3) or p.lid = any($3) or p.phone || '@c.us' = any($3))
               returning 1),
               members as (
               delete from chat_member m using silent, chat g
                where m.tenant = $1 and g.id = m.chat and g.tenant = $1 and ($2::uuid is null or g.session = $2) and m.wa_id = any($3)
               returning 1)
           select (select count(*) from shells) as "chats!", (select count(*) from people) as "contacts!", (select count(*) from members) as "members!""#,
        scope.tenant.uuid(),
        scope.session.map(SessionId::uuid),
        &person.names,
        &person.chats,
        job.uuid()
    )
    .fetch_one(pool)
    .await?;
    Ok(row)
}

/// Somebody who wrote, or was written to, and when (seconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Their addresses.
    pub names: Vec<String>,
    /// When.
    pub at: i64,
}

/// People who were erased and are heard of again: what they are called may be written down from here on. Answers whether there are some;
/// `None`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn heard(pool: &PgPool, held: &Held, heard: &[Heard]) -> Result<Option<bool>> {
    let told: Vec<(i32, &str, i64)> =
        (0..).zip(heard).flat_map(|(person, h)| h.names.iter().map(move |name| (person, name.as_str(), h.at))).collect();
    let row = sqlx::query_scalar!(
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                told as (
                    select array_agg(h.name) as names, h.at from unnest($4::int[], $5::text[], $6::bigint[]) as h (person, name, at)
                     where exists (select 1 from held, erasure e where e.tenant = held.tenant and e.hides) group by h.person, h.at),
                people as (
                    select distinct e.job from held, told, lateral erased_as(held.tenant, $1, told.names) e
                     where e.hides and to_timestamp(told.at) > e.until),
                seen as (
                    update erasure e set hides = false from held, people where e.tenant = held.tenant and e.job = people.job and e.hides returning 1)
           select exists (select 1 from seen) as "again!" from held"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &told.iter().map(|(person, ..)| *person).collect::<Vec<_>>(),
        &told.iter().map(|(_, name, _)| (*name).to_owned()).collect::<Vec<_>>(),
        &told.iter().map(|(.., at)| *at).collect::<Vec<_>>()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row)
}
