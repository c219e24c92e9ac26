//! Which events a webhook is told.

use std::collections::HashMap;

use contract::{ChatId, Event, EventType};
use store::webhook_turns::{ChatFact, Hook};

/// The chats that have to be looked up before these events can be judged.
pub fn chats_in_question<'a>(hook: &'a Hook, events: impl Iterator<Item = &'a Event>) -> Vec<ChatId> {
    if !hook.by_chat && hook.chats.is_none() && !hook.ignore_groups && !hook.ignore_status {
        return Vec::new();
    }
    let mut chats: Vec<ChatId> = events.filter_map(|e| e.chat).chain(hook.chats.iter().flatten().copied()).collect();
    chats.sort_unstable();
    chats.dedup();
    chats
}

/// The chat that goes on for one.
pub fn whole(chats: &HashMap<ChatId, ChatFact>, chat: ChatId) -> ChatId {
    chats.get(&chat).map_or(chat, |fact| fact.whole)
}

/// Whether it is told of this one.
pub fn wants(hook: &Hook, chats: &HashMap<ChatId, ChatFact>, event: &Event) -> bool {
    let fact = event.chat.and_then(|chat| chats.get(&chat));
    let told = |wanted: &[ChatId], chat| wanted.iter().any(|w| whole(chats, *w) == whole(chats, chat));
    (hook.types.is_empty() || hook.types.contains(&event.kind))
        && hook.sessions.as_ref().is_none_or(|wanted| event.session.is_some_and(|s| wanted.contains(&s)))
        && hook.chats.as_ref().is_none_or(|wanted| event.chat.is_some_and(|c| told(wanted, c)))
        && !(hook.ignore_groups && fact.is_some_and(|f| f.group))
        && !(hook.ignore_status && fact.is_some_and(|f| f.status))
        && !(hook.ignore_own && event.kind == EventType::Message && event.data["message"]["fromMe"] == true)
}
