//! Reading on in a tenant's log.

use std::{collections::HashMap, sync::Arc, time::Duration};

use contract::{ChatId, Event, TenantId};
use queue::events::Follow;
use store::{
    StoreError,
    webhook_turns::{self, ChatFact, Hook},
};

use super::{desk::Desk, judge};

/// Pause after the database failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What was read.
pub enum Pulled {
    /// Events behind the last.
    Events {
        /// Reads on.
        follow: Follow,
        /// Up to here all has been judged.
        read_to: i64,
        /// What the webhook is to be told, with the chat that goes on for the event's.
        wanted: Vec<(Arc<Event>, Option<ChatId>)>,
    },
    /// What is next is in the log no longer.
    Gap(Gap),
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// What was read last.
    pub after: i64,
    /// What can be read next.
    pub oldest: i64,
}

/// Waits for events behind `read_to` and judges them, at most `most`.
pub async fn next(desk: Arc<Desk>, tenant: TenantId, hook: Arc<Hook>, follow: Option<Follow>, read_to: i64, most: usize) -> Pulled {
    let mut follow = match follow {
        Some(follow) => follow,
        None => loop {
            match store::within(open(&desk, tenant, read_to)).await {
                Ok(Ok(follow)) => break follow,
                Ok(Err(gap)) => return Pulled::Gap(gap),
                Err(error) => pause(&error).await,
            }
        },
    };
    let events = follow.batch(most).await;
    let chats = loop {
        match store::within(chats(&desk, tenant, &hook, &events)).await {
            Ok(chats) => break chats,
            Err(error) => pause(&error).await,
        }
    };
    let wanted = events.into_iter().filter(|event| judge::wants(&hook, &chats, event));
    let wanted =
        wanted.map(|event| (event.chat.map(|chat| judge::whole(&chats, chat)), event)).map(|(chat, event)| (event, chat)).collect();
    Pulled::Events { read_to: follow.last(), follow, wanted }
}

/// A follower from behind `read_to`, if the log still has what comes there.
async fn open(desk: &Desk, tenant: TenantId, read_to: i64) -> Result<Result<Follow, Gap>, StoreError> {
    let oldest = store::counters::ends(&desk.pool, tenant).await?.floor;
    if read_to < oldest - 1 {
        return Ok(Err(Gap { after: read_to, oldest }));
    }
    desk.readers.follow_from(tenant, read_to).await.map(Ok)
}

async fn chats(desk: &Desk, tenant: TenantId, hook: &Hook, events: &[Arc<Event>]) -> Result<HashMap<ChatId, ChatFact>, StoreError> {
    match judge::chats_in_question(hook, events.iter().map(|e| &**e)) {
        chats if chats.is_empty() => Ok(HashMap::new()),
        chats => webhook_turns::chats(&desk.pool, tenant, &chats).await,
    }
}

async fn pause(error: &StoreError) {
    tracing::warn!(%error, "the log is not read on");
    tokio::time::sleep(AGAIN_AFTER).await;
}
