//! People, as the page tells them. A LID is a person; a phone number is lent to one.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use contract::{ChatId, Jid, Server};

use crate::{Held, Result, grants::Viewer, sessions::Session, snapshot::Snapshot};

/// A person as the page knows it: at least one of the two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContact {
    /// `…@lid`.
    pub lid: Option<String>,
    /// Digits.
    pub phone: Option<String>,
    /// The name that the account's owner gave.
    pub name: Option<String>,
    /// The name that the person uses.
    pub push_name: Option<String>,
}

impl NewContact {
    /// The one spelling that a contact is kept under. `None`: it has no name that we know.
    pub fn wa_id(&self) -> Option<String> {
        self.lid.clone().or_else(|| self.phone.as_ref().map(|p| format!("{p}@c.us")))
    }
}

/// Writes down what is known of people (at most 200 a call); what is not known leaves what is there. `false`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn learn(pool: &PgPool, held: &Held, contacts: &[NewContact]) -> Result<bool> {
    let mut seen = std::collections::HashSet::new();
    let told_with_lid = |c: &NewContact| c.lid.is_none() && contacts.iter().any(|o| o.lid.is_some() && o.phone == c.phone);
    let known: Vec<(&NewContact, String)> = contacts
        .iter()
        .filter(|c| !told_with_lid(c))
        .filter_map(|c| Some((c, c.wa_id()?)))
        .filter(|(_, id)| seen.insert(id.clone()))
        .collect();
    let ids: Vec<String> = known.iter().map(|(_, id)| id.clone()).collect();
    let texts = |f: fn(&NewContact) -> &Option<String>| known.iter().map(|(c, _)| f(c).clone()).collect::<Vec<_>>();
    let (lids, phones) = (texts(|c| &c.lid), texts(|c| &c.phone));
    // A number that somebody else has now is taken from whoever had it, before the new owner's row is written.
    let ours = sqlx::query_scalar!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                taken as (
                    update contact set phone = null, updated_at = clock_timestamp()
                      from held, unnest($4::text[], $5::text[]) as i (lid, phone)
                     where contact.session = $1 and contact.account = held.account and contact.phone = i.phone
                       and contact.lid is not null and i.lid is not null and contact.lid <> i.lid)
           select true as "ours!" from held"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &lids as &[Option<String>],
        &phones as &[Option<String>]
    )
    .fetch_optional(pool)
    .await?;
    if ours.is_none() {
        return Ok(false);
    }
    sqlx::query!(
        r#"with held as (select tenant, coalesce(account, '') as account from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                -- Who was erased and not heard of since is not written down again.
                i as (
                    select i.* from held, unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) as i (wa_id, lid, phone, name, push_name)
                     where veiled(held.tenant, $1, array[i.lid, i.phone || '@c.us']) is null),
                -- Known by the number alone until now: the row goes over to the LID.
                before as (
                    delete from contact using held, i
                     where contact.session = $1 and contact.account = held.account and contact.wa_id = i.phone || '@c.us' and i.lid is not null
                    returning contact.phone, contact.name, contact.push_name),
                -- A number without a LID adds to the row that has the number.
                target as (
                    select i.*, coalesce((select k.wa_id from contact k, held where k.session = $1 and k.account = held.account
                                             and i.lid is null and k.phone = i.phone and k.lid is not null), i.wa_id) as at
                      from i)
           insert into contact (session, account, wa_id, tenant, lid, phone, name, push_name)
           select distinct on (t.at) $1, held.account, t.at, held.tenant, t.lid, t.phone, coalesce(t.name, before.name),
                  coalesce(t.push_name, before.push_name)
             from held, target t left join before on before.phone = t.phone
            order by t.at, t.lid nulls last
           on conflict (session, account, wa_id) do update
              set lid = coalesce(excluded.lid, contact.lid), phone = coalesce(excluded.phone, contact.phone),
                  name = coalesce(excluded.name, contact.name), push_name = coalesce(excluded.push_name, contact.push_name),
                  updated_at = clock_timestamp()
            where (coalesce(excluded.lid, contact.lid), coalesce(excluded.phone, contact.phone), coalesce(excluded.name, contact.name),
                   coalesce(excluded.push_name, contact.push_name))
                  is distinct from (contact.lid, contact.phone, contact.name, contact.push_name)"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &ids,
        &lids as &[Option<String>],
        &phones as &[Option<String>],
        &texts(|c| &c.name) as &[Option<String>],
        &texts(|c| &c.push_name) as &[Option<String>],
    )
    .execute(pool)
    .await?;
    Ok(true)
}

/// Who belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As [`NewContact::wa_id`].
    pub wa_id: String,
    /// Whether it administrates the group.
    pub is_admin: bool,
}

/// Replaces the members of a group; `whole`: those not named are gone. `false`: no longer ours.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn members(pool: &PgPool, held: &Held, group: ChatId, members: &[Member], whole: bool) -> Result<bool> {
    let ids: Vec<String> = members.iter().map(|m| m.wa_id.clone()).collect();
    let admins: Vec<bool> = members.iter().map(|m| m.is_admin).collect();
    let ours = sqlx::query_scalar!(
        r#"with held as (select tenant from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                g as (select chat.id, chat.tenant from chat, held where chat.id = $4 and chat.tenant = held.tenant and chat.session = $1),
                gone as (delete from chat_member using g where chat_member.chat = g.id and $7 and chat_member.wa_id <> all($5)),
                there as (
                    insert into chat_member (chat, wa_id, tenant, is_admin)
                    select distinct on (m.wa_id) g.id, m.wa_id, g.tenant, m.is_admin from g, unnest($5::text[], $6::bool[]) as m (wa_id, is_admin)
                     where veiled(g.tenant, $1, array[m.wa_id]) is null
                    on conflict (chat, wa_id) do update set is_admin = excluded.is_admin
                     where $7 and chat_member.is_admin <> excluded.is_admin)
           select true as "ours!" from held"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        group.uuid(),
        &ids,
        &admins,
        whole
    )
    .fetch_optional(pool)
    .await?;
    Ok(ours.is_some())
}

/// A row of `contact`.
#[derive(Debug, Clone)]
pub struct Contact {
    /// The one spelling that it is kept under.
    pub wa_id: String,
    /// The LID, where known.
    pub lid: Option<String>,
    /// The phone digits, where known.
    pub phone: Option<String>,
    /// The name that the account's owner gave.
    pub name: Option<String>,
    /// The name that the person uses.
    pub push_name: Option<String>,
    /// When something about it last changed.
    pub updated_at: DateTime<Utc>,
}

/// The people that the viewer sees, by [`Contact::wa_id`], those after `after`: of chats and members of groups that are granted to it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, viewer: Viewer, session: &Session, after: Option<&str>, limit: i64) -> Result<Vec<Contact>> {
    let rows = sqlx::query_as!(
        Contact,
        r#"select p.wa_id, p.lid, p.phone, p.name, p.push_name, p.updated_at from contact p
            where p.tenant = $1 and p.session = $2 and p.account = $3 and ($4::text is null or p.wa_id > $4)
              and ($5::uuid is null or exists (
                   select 1 from live_grant g left join chat c on c.id = g.chat
                    where g.tenant = $1 and g.holder = $5 and g.session = $2
                      and (g.all_chats or c.account = $3 and (c.lid = p.lid or c.phone = p.phone or exists (
                           select 1 from chat_member m where m.chat = c.id and m.wa_id in (p.wa_id, p.lid, p.phone || '@c.us'))))))
            order by p.wa_id limit $6"#,
        viewer.tenant().uuid(),
        session.id.uuid(),
        session.account(),
        after,
        viewer.holder(),
        limit
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows)
}

/// One person by any of its addresses, where the viewer sees it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, viewer: Viewer, session: &Session, address: &Jid) -> Result<Option<Contact>> {
    let (lid, phone) = match address.server() {
        Server::Lid => (Some(address.to_string()), None),
        Server::Phone => (None, address.phone()),
        Server::Group | Server::Channel => return Ok(None),
    };
    let row = sqlx::query_as!(
        Contact,
        r#"select p.wa_id, p.lid, p.phone, p.name, p.push_name, p.updated_at from contact p
            where p.tenant = $1 and p.session = $2 and p.account = $3 and (p.lid = $4 or p.phone = $5)
              and ($6::uuid is null or exists (
                   select 1 from live_grant g left join chat c on c.id = g.chat
                    where g.tenant = $1 and g.holder = $6 and g.session = $2
                      and (g.all_chats or c.account = $3 and (c.lid = p.lid or c.phone = p.phone or exists (
                           select 1 from chat_member m where m.chat = c.id and m.wa_id in (p.wa_id, p.lid, p.phone || '@c.us'))))))
            limit 1"#,
        viewer.tenant().uuid(),
        session.id.uuid(),
        session.account(),
        lid,
        phone,
        viewer.holder()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row)
}
