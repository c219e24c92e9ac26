//! Who there is: people, groups' members, and how the page shows its chats. Written down when the page has read itself full, and with each
//! message that tells something new.

use std::{collections::HashMap, time::Duration};

use contract::{ChatKind, EventId};
use store::{
    chats::Shown,
    contacts::{Member, NewContact},
    erasures::Heard,
    incoming::Incoming,
};

use super::{
    Shared, messages,
    recorder::{Fenced, observe, until_known},
};
use crate::browser::{ListChats, ListContacts, PageCall};

/// Items of one call and one statement.
const PAGE: u32 = 200;
/// So many are remembered; then all are forgotten, and written once more.
const MOST_KNOWN: usize = 20_000;

/// People as they were last written down, by their address.
pub(super) type Known = HashMap<String, NewContact>;

/// Who wrote these messages.
pub(super) async fn of_messages(shared: &Shared, rows: &[Incoming]) -> Result<(), Fenced> {
    let theirs: Vec<&Incoming> = rows.iter().filter(|m| !m.from_me).collect();
    let people = theirs.iter().map(|m| NewContact {
        lid: m.sender_lid.clone(),
        phone: m.sender_phone.clone(),
        name: None,
        push_name: m.sender_name.clone(),
    });
    learn(shared, people.collect()).await?;
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let mut groups: HashMap<_, Vec<Member>> = HashMap::new();
    for message in theirs.iter().filter(|m| !m.sender.is_empty()) {
        groups.entry(message.chat).or_default().push(Member { wa_id: message.sender.clone(), is_admin: false });
    }
    for (group, members) in groups {
        ours(until_known(shared, || store::contacts::members(pool, held, group, &members, false)).await?)?;
    }
    Ok(())
}

/// Who wrote these messages, and with whom: a person who was erased and is heard of again may be written down from here on.
pub(super) async fn heard(shared: &Shared, heard: &[Heard]) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    if until_known(shared, || store::erasures::heard(pool, held, heard)).await?.ok_or(Fenced)? {
        // What was told of them before is not there any more.
        shared.people.lock().await.clear();
    }
    Ok(())
}

/// Writes down those of whom something is new.
async fn learn(shared: &Shared, people: Vec<NewContact>) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let mut known = shared.people.lock().await;
    let is_new = |p: &NewContact| p.wa_id().is_some_and(|id| known.get(&id).is_none_or(|before| tells_more(before, p)));
    let fresh: Vec<NewContact> = people.into_iter().filter(is_new).collect();
    for page in fresh.chunks(PAGE as usize) {
        ours(until_known(shared, || store::contacts::learn(pool, held, page)).await?)?;
    }
    if known.len() > MOST_KNOWN {
        known.clear();
    }
    known.extend(fresh.into_iter().filter_map(|p| Some((p.wa_id()?, p))));
    Ok(())
}

fn tells_more(before: &NewContact, now: &NewContact) -> bool {
    let news = |before: &Option<String>, now: &Option<String>| now.is_some() && before != now;
    news(&before.phone, &now.phone) || news(&before.name, &now.name) || news(&before.push_name, &now.push_name)
}

fn ours(still: bool) -> Result<(), Fenced> {
    if still { Ok(()) } else { Err(Fenced) }
}

/// All people and chats that the page knows. A page that cannot answer now says again when it is ready.
pub(super) async fn read(shared: &Shared) -> Result<(), Fenced> {
    let mut offset = 0;
    while let Some(page) = ask(shared, &ListContacts { offset, limit: PAGE }, "contacts", offset).await {
        offset += PAGE;
        let person = |p: crate::browser::Person| {
            let (lid, phone) = messages::person([Some(&p.id), p.lid.as_ref(), p.phone.as_ref()]);
            NewContact { lid, phone, name: p.name, push_name: p.pushname }
        };
        learn(shared, page.people.into_iter().map(person).collect()).await?;
        if !page.more {
            break;
        }
    }
    let mut offset = 0;
    while let Some(page) = ask(shared, &ListChats { offset, limit: PAGE }, "chats", offset).await {
        offset += PAGE;
        let last = page.len() < PAGE as usize;
        show(shared, page).await?;
        if last {
            break;
        }
    }
    Ok(())
}

async fn ask<C: PageCall>(shared: &Shared, call: &C, what: &str, offset: u32) -> Option<C::Answer> {
    let browser = shared.browser()?;
    let call_id = format!("{what}-{}-{offset}", EventId::new());
    browser
        .call(call, &call_id, Duration::from_secs(30))
        .await
        .inspect_err(|error| tracing::warn!(session = %shared.session(), what, %error, "the page does not list"))
        .ok()
}

async fn show(shared: &Shared, page: Vec<crate::browser::ChatInfo>) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let mut shown = Vec::with_capacity(page.len());
    for info in page {
        let names = messages::names([Some(&info.id), info.lid.as_ref(), info.phone.as_ref()]);
        let Some(first) = names.first() else { continue };
        let group = first.kind() == ChatKind::Group;
        let chat = observe(shared, &names, info.name.as_deref()).await?;
        shown.push(Shown { chat, name: info.name, unread: i32::try_from(info.unread.max(0)).unwrap_or(i32::MAX), archived: info.archived });
        if let Some(members) = info.members.filter(|_| group) {
            let members: Vec<Member> = members
                .iter()
                .filter_map(|m| {
                    let (lid, phone) = messages::person([Some(&m.id), m.lid.as_ref(), m.phone.as_ref()]);
                    let wa_id = NewContact { lid, phone, name: None, push_name: None }.wa_id()?;
                    Some(Member { wa_id, is_admin: m.admin })
                })
                .collect();
            ours(until_known(shared, || store::contacts::members(pool, held, chat, &members, true)).await?)?;
        }
    }
    ours(until_known(shared, || store::chats::show(pool, held, &shown)).await?)
}
