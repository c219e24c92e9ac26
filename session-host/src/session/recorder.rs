//! The only writer of what the page reports. One task a session: facts reach the log in the order in which they were heard, and a fact that
//! Postgres did not take is tried again until it is in, or the session is no longer ours.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use contract::{ChatId, Event, Jid, Reason, SessionState, fault_point};
use store::{
    StoreError,
    incoming::Incoming,
    owned::{Account, Linked},
    receipts::Receipt,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Shared, acks, messages, people};
use crate::browser::{CallError, MessagesAbove, PageMessage};

/// The most messages that one statement takes.
const BATCH: usize = 200;
const ROWS_A_CALL: u32 = 200;
/// How long a page that could not be read to the end is left alone.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Something to write down.
pub enum Record {
    /// A message that the page has.
    Message(Box<PageMessage>),
    /// A receipt.
    Receipt(Receipt),
    /// The session's state, its account where known, and whether this also ends the wish to run. Answered when it is written.
    State(SessionState, Option<Reason>, Option<Account>, bool, oneshot::Sender<()>),
    /// The account that the page is linked to, and since when.
    Link(Account, Instant, oneshot::Sender<Linked>),
    /// Compare the page's rows with ours: something may have been missed. Answered when that is done, as far as the page can tell.
    Reconcile(Option<oneshot::Sender<()>>),
    /// The same, but for what was read before and could not be understood yet.
    Compare,
    /// The page has all that the phone hands over from before the link.
    History,
}

/// The session is no longer ours: stop writing.
pub(super) struct Fenced;

/// Writes until the channel closes or the session is lost. What waits for an answer then hears that there is none.
pub async fn run(shared: Arc<Shared>, records: mpsc::Receiver<Record>) {
    tokio::select! {
        () = shared.gone.cancelled() => {}
        () = write_all(&shared, records) => shared.gone.cancel(),
    }
}

async fn write_all(shared: &Arc<Shared>, mut records: mpsc::Receiver<Record>) {
    while let Some(first) = records.recv().await {
        let done = match first {
            Record::Message(message) => {
                let mut batch = vec![*message];
                let mut next = None;
                while batch.len() < BATCH {
                    match records.try_recv() {
                        Ok(Record::Message(message)) => batch.push(*message),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                match write_messages(shared, &batch, false, None).await {
                    Ok(()) => match next {
                        Some(next) => write(shared, next).await,
                        None => Ok(()),
                    },
                    Err(fenced) => Err(fenced),
                }
            }
            other => write(shared, other).await,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn write(shared: &Arc<Shared>, record: Record) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    match record {
        Record::Message(message) => write_messages(shared, std::slice::from_ref(&*message), false, None).await,
        Record::Receipt(receipt) => write_receipts(shared, &[receipt]).await,
        Record::State(state, reason, me, want_stopped, written) => {
            let set = || store::owned::set_state(pool, held, (state, reason), me.as_ref(), want_stopped);
            let events = until_known(shared, set).await?;
            publish(shared, events.ok_or(Fenced)?).await;
            let _ = written.send(());
            Ok(())
        }
        Record::Link(account, since, answer) => {
            let linked = until_known(shared, || store::owned::link(pool, held, &account, since.elapsed())).await?;
            if linked == Linked::Fenced {
                return Err(Fenced);
            }
            // Before what the page has now: the gap ends where that begins.
            if linked == Linked::Accepted
                && let Some(gap) = until_known(shared, || store::owned::announce_owed_gap(pool, held)).await?
            {
                publish(shared, gap).await;
            }
            let _ = answer.send(linked);
            Ok(())
        }
        Record::Reconcile(done) => {
            compare(shared, false).await?;
            if let Some(done) = done {
                let _ = done.send(());
            }
            Ok(())
        }
        Record::Compare => {
            shared.comparing.store(false, Ordering::Release);
            compare(shared, true).await
        }
        Record::History => {
            people::read(shared).await?;
            let complete = read_to_end(shared, true, false).await?;
            acks::catch_up(shared).await?;
            if !complete {
                try_again(shared, Record::History);
            }
            Ok(())
        }
    }
}

pub(super) async fn write_receipts(shared: &Shared, receipts: &[Receipt]) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let events = {
        let _turn = shared.writing.lock().await;
        until_known(shared, || store::receipts::record(pool, held, receipts)).await?
    };
    publish(shared, events.ok_or(Fenced)?).await;
    Ok(())
}

/// `again`: all that could be understood was read of this browser's page before.
async fn compare(shared: &Arc<Shared>, again: bool) -> Result<(), Fenced> {
    let complete = read_to_end(shared, false, again).await?;
    acks::catch_up(shared).await?;
    // One is enough, however many ask.
    if !complete && !shared.comparing.swap(true, Ordering::AcqRel) {
        try_again(shared, Record::Compare);
    }
    Ok(())
}

/// Reads the page's rows, and says so when that came to the end. `history`: it was the end of what was there before the link, too.
/// `false`: it did not come to the end.
async fn read_to_end(shared: &Shared, history: bool, again: bool) -> Result<bool, Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    until_known(shared, || store::aliases::finish_merges(pool, held)).await?;
    let complete = reconcile(shared, again).await?;
    if complete {
        let events = until_known(shared, || store::history::reconciled(pool, held, history)).await?;
        publish(shared, events.ok_or(Fenced)?).await;
    }
    Ok(complete)
}

/// A page that was too busy to answer is asked anew: while its document and connection stay, nothing else would.
fn try_again(shared: &Arc<Shared>, record: Record) {
    let again = shared.clone();
    shared.services.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(READ_AGAIN) => {}
            () = again.gone.cancelled() => return,
        }
        // Otherwise it is read once the session works again.
        if *again.working.borrow() {
            let _ = again.records.send(record).await;
        } else if matches!(record, Record::Compare) {
            again.comparing.store(false, Ordering::Release);
        }
    });
}

/// Reads the page's rows above the mark and records what is missing. A page that cannot answer now will be ready again, and then asks anew.
/// `false`: not read to the end.
async fn reconcile(shared: &Shared, again: bool) -> Result<bool, Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let Some(owned) = until_known(shared, || store::owned::load(pool, held)).await? else { return Err(Fenced) };
    let mut mark = u64::try_from(owned.profile_row_id).unwrap_or(0);
    let passed = if again { shared.compared.load(Ordering::Acquire) } else { 0 };
    // From the first row on that the page cannot produce yet, the stored mark stays: it is read again at the next connect.
    let mut complete = passed <= mark;
    mark = mark.max(passed);
    loop {
        let Some(browser) = shared.browser() else { return Ok(false) };
        let call = MessagesAbove { row_id: mark, limit: ROWS_A_CALL };
        let call_id = format!("rows-{}-{}-{mark}", browser.document(), contract::EventId::new());
        let rows = match browser.call(&call, &call_id, Duration::from_secs(30)).await {
            Ok(rows) => rows,
            Err(error) => {
                if let CallError::Page { .. } = error {
                    shared.rows_unreadable();
                }
                tracing::warn!(session = %shared.session(), %error, "reconciliation stopped");
                return Ok(false);
            }
        };
        shared.rows_read();
        let held_back = rows.rows.iter().find(|row| row.message.is_none()).map(|row| row.row_id.saturating_sub(1));
        let messages: Vec<PageMessage> = rows
            .rows
            .into_iter()
            .filter_map(|row| {
                let mut message = row.message?;
                message.row_id = Some(row.row_id);
                Some(message)
            })
            .collect();
        let up_to = complete.then(|| held_back.unwrap_or(rows.up_to));
        complete &= held_back.is_none();
        write_messages(shared, &messages, true, up_to.and_then(|row| i64::try_from(row).ok())).await?;
        // Receipts that came while nobody listened show as the rows' acks.
        let acked = messages.iter().filter(|m| m.from_me && m.ack >= 1);
        let receipts: Vec<Receipt> = acked.map(|m| Receipt { wa_id: m.id_part.clone(), ack: i16::try_from(m.ack).unwrap_or(0) }).collect();
        write_receipts(shared, &receipts).await?;
        if !rows.more || rows.up_to <= mark {
            if shared.browser().is_some_and(|now| now.pid() == browser.pid()) {
                shared.compared.store(rows.up_to.max(mark), Ordering::Release);
            }
            return Ok(true);
        }
        mark = rows.up_to;
    }
}

async fn write_messages(shared: &Shared, batch: &[PageMessage], recovered: bool, mark: Option<i64>) -> Result<(), Fenced> {
    let content: Vec<&PageMessage> = batch.iter().filter(|m| messages::is_content(m)).collect();
    if !content.is_empty() {
        people::heard(shared, &messages::people(&content)).await?;
    }
    let mut rows: Vec<Incoming> = Vec::with_capacity(content.len());
    let mut chats: HashMap<Vec<Jid>, ChatId> = HashMap::new();
    for message in &content {
        let names = messages::chat_names(message);
        let chat = match chats.get(&names) {
            Some(chat) => *chat,
            None => {
                let chat = observe(shared, &names, messages::title(message, &names)).await?;
                chats.insert(names, chat);
                chat
            }
        };
        rows.push(messages::incoming(chat, message, recovered));
    }
    people::of_messages(shared, &rows).await?;
    if rows.is_empty() && mark.is_none() {
        return Ok(());
    }
    record(shared, &rows, mark).await
}

/// What the database refuses must not hold up all that comes after it: the batch is halved until the message is found, which is recorded
/// without its content.
async fn record(shared: &Shared, rows: &[Incoming], mark: Option<i64>) -> Result<(), Fenced> {
    let Err(refusal) = record_once(shared, rows, mark).await? else { return Ok(()) };
    if rows.len() > 1 {
        let (first, rest) = rows.split_at(rows.len() / 2);
        Box::pin(record(shared, first, None)).await?;
        return Box::pin(record(shared, rest, mark)).await;
    }
    tracing::error!(session = %shared.session(), sqlstate = refusal.sqlstate(), "a message is recorded without its content");
    let bare: Vec<Incoming> = rows.iter().map(messages::without_content).collect();
    if record_once(shared, &bare, mark).await?.is_err() {
        tracing::error!(session = %shared.session(), sqlstate = refusal.sqlstate(), "a message is not recorded");
        let _ = record_once(shared, &[], mark).await?;
    }
    Ok(())
}

/// The chat of names that the page holds for one, and what that proves.
pub(super) async fn observe(shared: &Shared, names: &[Jid], title: Option<&str>) -> Result<ChatId, Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let observed = until_known(shared, || store::aliases::observe(pool, held, names, title)).await?.ok_or(Fenced)?;
    publish(shared, observed.events).await;
    Ok(observed.chat)
}

/// The inner error: the database refuses the data, however often it is asked.
async fn record_once(shared: &Shared, rows: &[Incoming], mark: Option<i64>) -> Result<Result<(), StoreError>, Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    let _ = fault_point!("record.before_commit", "session" => shared.session(), "messages" => rows.len());
    let recorded = until_known(shared, || async {
        match store::incoming::record(pool, held, rows, mark).await {
            Err(error) if error.data_refused() => Ok(Err(error)),
            other => other.map(Ok),
        }
    });
    match recorded.await? {
        Ok(events) => publish(shared, events.ok_or(Fenced)?).await,
        Err(refusal) => return Ok(Err(refusal)),
    }
    Ok(Ok(()))
}

/// Repeats a statement until the database has answered. What came of an earlier try whose answer was lost is found by the later one.
pub(super) async fn until_known<T, F: Future<Output = Result<T, StoreError>>>(
    shared: &Shared,
    statement: impl Fn() -> F,
) -> Result<T, Fenced> {
    let mut pause = Duration::from_millis(50);
    loop {
        match store::within(statement()).await {
            Ok(value) => return Ok(value),
            Err(error) => tracing::warn!(session = %shared.session(), %error, "not recorded yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            () = shared.gone.cancelled() => return Err(Fenced),
        }
    }
}

/// Tells the stream. Redis being away loses nothing: the events are in Postgres, and the reconciler appends them.
pub async fn publish(shared: &Shared, events: Vec<Event>) {
    if events.is_empty() {
        return;
    }
    let services = &shared.services;
    if let Err(error) = queue::events::publish(&services.pool, &services.redis, shared.lease.held().tenant(), &events).await {
        tracing::warn!(session = %shared.session(), %error, "not published yet");
    }
}

/// Tells the stream what it lacks of the log: the answer to a statement was lost, and the events in it.
pub async fn publish_missing(shared: &Shared) {
    let (services, tenant) = (&shared.services, shared.lease.held().tenant());
    let told: Result<(), queue::QueueError> = async {
        let head = store::counters::head(&services.pool, tenant).await?;
        queue::events::catch_up(&services.pool, &services.redis, tenant, head).await
    }
    .await;
    if let Err(error) = told {
        tracing::warn!(session = %shared.session(), %error, "not published yet");
    }
}
