//! Messages that the page reports become rows and events in one statement. What receipts do: [`crate::receipts`].

use std::collections::HashSet;

use chrono::DateTime;
use contract::{
    ChatId, Event, Fact, MessageId, MessageStatus, Timestamp,
    event::{MessageBody, MessageFact, MessageSource, SenderFact},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Held, Result,
    log::{self, Columns, NewEvent, OwnedRow},
};

/// A message as the page has it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The chat, resolved before.
    pub chat: ChatId,
    /// Whether the linked account sent it (from its phone, another device, or through us).
    pub from_me: bool,
    /// The canonical sender in a group; empty in private chats and for our own.
    pub sender: String,
    /// The sender's LID, where known.
    pub sender_lid: Option<String>,
    /// The sender's phone digits, where known.
    pub sender_phone: Option<String>,
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// WhatsApp's type, but `text` for what it calls `chat`.
    pub kind: String,
    /// The text.
    pub body: Option<String>,
    /// The ack the page shows.
    pub ack: i16,
    /// WhatsApp's time, seconds since 1970.
    pub at: i64,
    /// WhatsApp id of the message it replies to.
    pub reply_to: Option<String>,
    /// What it was written on.
    pub source: MessageSource,
    /// Whether it may be announced: decrypted, and not from history.
    pub announce: bool,
    /// Found by reconciliation, not heard as it came.
    pub recovered: bool,
    /// The page's row.
    pub row_id: Option<i64>,
    /// The name its sender uses.
    pub sender_name: Option<String>,
}

impl Incoming {
    fn status(&self) -> MessageStatus {
        if self.from_me { MessageStatus::from_ack(self.ack.max(1)) } else { MessageStatus::Received }
    }
    /// The sender's other spelling, under which an older row may lie.
    fn other_sender(&self) -> String {
        let by_phone = self.sender_phone.as_ref().map(|p| format!("{p}@c.us"));
        let forms = [self.sender_lid.clone(), by_phone].into_iter().flatten();
        forms.filter(|_| !self.sender.is_empty()).find(|form| *form != self.sender).unwrap_or_default()
    }
    /// Whether it tells one name of who wrote it, and not the other.
    fn lacks_a_name(&self) -> bool {
        !self.from_me && self.sender_lid.is_some() != self.sender_phone.is_some()
    }
}

/// Records messages (at most 200 a call) with their events. `mark`: the page row up to which everything is recorded once these are. `None`:
/// no longer ours.
///
/// An event is made where none was made before, the content is there and the message is newer than the link. A message of our own that a job
/// sent is announced by the job's outcome.
///
/// `messages_of` looks with a snapshot of its own, taken under the session's lock: a repeat whose first try is still on its way (its
/// connection was lost, it waits for the counter) waits for that, and then sees what it wrote.
///
/// What is no newer than the erasure of who wrote it, or of whose private chat it is in, is passed over; by WhatsApp's whole seconds.
///
/// # Errors
/// [`crate::StoreError`]; the caller repeats.
pub async fn record(pool: &PgPool, held: &Held, messages: &[Incoming], mark: Option<i64>) -> Result<Option<Vec<Event>>> {
    let messages = &by_both_names(pool, held, messages).await?;
    let ids: Vec<MessageId> = messages.iter().map(|_| MessageId::new()).collect();
    let known = known_ids(pool, held, messages).await?;
    let told = messages.iter().zip(&ids).zip(&known).map(|((m, id), known)| (m.chat, announcement(m, known.unwrap_or(*id))));
    let columns = Columns::of(&told.map(|(chat, fact)| NewEvent::of(Some(chat), &fact)).collect::<Vec<_>>());
    let of = |f: fn(&Incoming) -> String| messages.iter().map(f).collect::<Vec<_>>();
    let rows = sqlx::query_as!(
        OwnedRow,
        r#"with held as (select tenant, account, linked_at from session where id = $1 and epoch = $2 and owner = $3 for no key update),
                chats as (
                    select chat.id, coalesce(chat.merged_into, chat.id) as chat,
                           case when chat.kind = 'private' then array[chat.wa_id, chat.lid, chat.phone || '@c.us'] end as names
                      from chat, held where chat.id = any($5) for share of chat),
                i as (
                    select i.*, chats.chat, chats.names
                      from unnest($4::uuid[], $5::uuid[], $6::bool[], $7::text[], $8::text[], $9::text[], $10::text[], $11::smallint[],
                                  $12::bigint[], $13::text[], $14::bool[], $15::bool[], $16::bigint[], $17::text[], $18::uuid[],
                                  $19::jsonb[], $21::text[], $22::text[]) with ordinality
                        as i (id, told_chat, from_me, sender, wa_id, kind, body, ack, at, reply_to, announce, recovered, row_id, status, event, data,
                              other_sender, source, o)
                      join chats on chats.id = i.told_chat),
                -- What a person sent or was sent before it was erased comes again, from the phone or another read of the page: it stays away.
                judged as (
                    select i.*, k.id as known,
                           i.announce and (k.id is null or k.announced_seq is null and k.job is null)
                             and i.at >= extract(epoch from date_trunc('second', held.linked_at)) as tell
                      from held, i left join lateral (
                           select k.id, k.announced_seq, k.job, k.created_at from messages_of(held.tenant, $1, i.wa_id) k join chat kc on kc.id = k.chat
                            where k.from_me = i.from_me
                              and (i.from_me or coalesce(kc.merged_into, kc.id) = i.chat and k.sender in (i.sender, i.other_sender))
                            order by k.id limit 1) k on true
                      cross join lateral erased_until(held.tenant, $1,
                           i.names || case when not i.from_me then array[nullif(i.sender, ''), nullif(i.other_sender, '')] end) as gone (until)
                     where gone.until is null or to_timestamp(i.at) > gone.until or k.created_at > gone.until),
                told as (select *, row_number() over (order by o) as n from judged where tell),
                mark as (
                    update session set profile_row_id = greatest(profile_row_id, $20) from held
                     where session.id = $1 and $20::bigint is not null returning 1),
                c as (
                    update tenant_counter set seq = seq + (select count(*) from told) from held
                     where tenant_counter.tenant = held.tenant and exists (select 1 from told) and (select count(*) from mark) >= 0
                    returning tenant_counter.tenant, tenant_counter.seq, clock_timestamp() as now),
                numbered as (select told.o, c.seq - (select count(*) from told) + told.n as seq from told, c),
                fresh as (
                    insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, body, status, ack, source, sent_at,
                                         reply_to, row_id, announced_seq, recovered)
                    select j.id, held.tenant, $1, coalesce(held.account, ''), j.chat, j.from_me, j.sender, j.wa_id, j.kind, j.body, j.status, j.ack,
                           j.source, to_timestamp(j.at), j.reply_to, j.row_id, numbered.seq, j.recovered and j.tell
                      from held, judged j left join numbered on numbered.o = j.o
                     where j.known is null
                    on conflict on constraint message_wa_key do nothing),
                again as (
                    update message m set body = coalesce(j.body, m.body), kind = case when j.body is null then m.kind else j.kind end,
                           row_id = coalesce(j.row_id, m.row_id), announced_seq = coalesce(m.announced_seq, numbered.seq)
                      from judged j left join numbered on numbered.o = j.o
                     where m.id = j.known and m.job is null),
                moved as (
                    update chat set last_message_at = greatest(chat.last_message_at, to_timestamp(x.at)), unread = chat.unread + x.unread
                      from (select chat, max(at) as at, count(*) filter (where known is null and not from_me and tell) as unread
                              from judged group by chat) x
                     where chat.id = x.chat
                       and (x.unread > 0 or chat.last_message_at is null or chat.last_message_at < to_timestamp(x.at))),
                e as (
                    insert into event (tenant, seq, day, id, type, at, session, chat, data)
                    select c.tenant, numbered.seq, (c.now at time zone 'UTC')::date, told.event, 'message', c.now, $1, told.chat, told.data
                      from c, told join numbered on numbered.o = told.o
                    returning id, seq, type, at, session, chat, data)
           select true as "ours!", e.id as "id?", e.seq as "seq?", e.type as "kind?", e.at as "at?", e.session, e.chat, e.data as "data?"
             from held left join e on true order by e.seq"#,
        held.session().uuid(),
        held.epoch(),
        held.owner().uuid(),
        &ids.iter().map(|i| i.uuid()).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.chat.uuid()).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.from_me).collect::<Vec<_>>(),
        &of(|m| m.sender.clone()),
        &of(|m| m.wa_id.clone()),
        &of(|m| m.kind.clone()),
        &messages.iter().map(|m| m.body.clone()).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|m| m.ack).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.at).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.reply_to.clone()).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|m| m.announce).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.recovered).collect::<Vec<_>>(),
        &messages.iter().map(|m| m.row_id).collect::<Vec<_>>() as &[Option<i64>],
        &of(|m| m.status().as_str().to_owned()),
        &columns.ids,
        &columns.data,
        mark,
        &of(Incoming::other_sender),
        &of(|m| m.source.as_str().to_owned()),
    )
    .fetch_all(pool)
    .await?;
    Ok(log::owned_events(rows, held.tenant()))
}

/// The messages with what contacts tell of their senders: WhatsApp names one person by the number today and by the LID tomorrow, and a
/// message that comes again is known under either.
async fn by_both_names(pool: &PgPool, held: &Held, messages: &[Incoming]) -> Result<Vec<Incoming>> {
    let incomplete = || messages.iter().filter(|m| m.lacks_a_name());
    let lids: Vec<String> = incomplete().filter_map(|m| m.sender_lid.clone()).collect();
    let phones: Vec<String> = incomplete().filter_map(|m| m.sender_phone.clone()).collect();
    if lids.is_empty() && phones.is_empty() {
        return Ok(once(messages.to_vec()));
    }
    let people = sqlx::query!(
        r#"select p.lid as "lid!", p.phone as "phone!" from contact p join session s on s.id = p.session and p.account = coalesce(s.account, '')
            where p.tenant = $1 and p.session = $2 and p.lid is not null and p.phone is not null and (p.wa_id = any($3) or p.phone = any($4))"#,
        held.tenant().uuid(),
        held.session().uuid(),
        &lids,
        &phones
    )
    .fetch_all(pool)
    .await?;
    let mut messages = messages.to_vec();
    for message in messages.iter_mut().filter(|m| m.lacks_a_name()) {
        let (lid, phone) = (message.sender_lid.as_ref(), message.sender_phone.as_ref());
        let Some(person) = people.iter().find(|p| lid == Some(&p.lid) || phone == Some(&p.phone)) else { continue };
        (message.sender_lid, message.sender_phone) = (Some(person.lid.clone()), Some(person.phone.clone()));
        if !message.sender.is_empty() {
            message.sender.clone_from(&person.lid);
        }
    }
    Ok(once(messages))
}

/// One statement must not meet the same message twice, wherever in the batch it stands; our own are one whatever the chat is called.
fn once(mut messages: Vec<Incoming>) -> Vec<Incoming> {
    let mut seen = HashSet::new();
    messages.retain(|m| seen.insert((m.wa_id.clone(), m.from_me, (!m.from_me).then(|| (m.chat, m.sender.clone())))));
    messages
}

/// The ids of those messages that have a row already: their events must name it.
async fn known_ids(pool: &PgPool, held: &Held, messages: &[Incoming]) -> Result<Vec<Option<MessageId>>> {
    let wa_ids: Vec<_> = messages.iter().map(|m| m.wa_id.clone()).collect();
    let rows = sqlx::query!(
        r#"select m.id, m.wa_id, m.from_me, coalesce(c.merged_into, c.id) as "chat!", m.sender from message m join chat c on c.id = m.chat
            where m.tenant = $1 and m.session = $2 and m.wa_id = any($3) order by m.id"#,
        held.tenant().uuid(),
        held.session().uuid(),
        &wa_ids
    )
    .fetch_all(pool)
    .await?;
    let find =
        |m: &Incoming| rows.iter().find(|r| matches_row(m, &r.wa_id, r.from_me, r.chat, &r.sender)).map(|r| MessageId::from_uuid(r.id));
    Ok(messages.iter().map(find).collect())
}

fn matches_row(m: &Incoming, wa_id: &str, from_me: bool, chat: Uuid, sender: &str) -> bool {
    let same_sender = || sender == m.sender || sender == m.other_sender();
    m.wa_id == wa_id && m.from_me == from_me && (from_me || (chat == m.chat.uuid() && same_sender()))
}

fn announcement(m: &Incoming, id: MessageId) -> Fact {
    let sender = (!m.from_me).then(|| {
        let phone_id = || m.sender_phone.as_ref().map(|p| format!("{p}@c.us"));
        let wa_id = Some(m.sender.clone()).filter(|s| !s.is_empty()).or_else(|| m.sender_lid.clone()).or_else(phone_id);
        SenderFact { wa_id, lid: m.sender_lid.clone(), phone: m.sender_phone.clone(), name: m.sender_name.clone() }
    });
    let message = MessageFact {
        id,
        from_me: m.from_me,
        kind: m.kind.clone(),
        text: m.body.clone(),
        status: m.status(),
        ack: m.ack,
        source: m.source,
        sent_by: None,
        wa_id: m.wa_id.clone(),
        sender,
        reply_to: m.reply_to.clone(),
        timestamp: Timestamp(DateTime::from_timestamp(m.at, 0).unwrap_or_default()),
        recovered: m.recovered,
        job: None,
        reference: None,
    };
    Fact::Message(MessageBody { message })
}
