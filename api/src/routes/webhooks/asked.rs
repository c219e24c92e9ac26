//! What callers ask of a webhook, and whether they may have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contract::{ChatId, EventType, SessionId, WebhookOrder, is_logged};
use serde::Deserialize;
use store::{
    chats,
    webhooks::{self, Filter},
};

use crate::{
    auth::{Caller, chat_filter, named_chat, named_session},
    extract::plain_text,
    problem::{Code, Problem},
    state::AppState,
    webhook_rules,
};

const LONGEST_NAME: usize = 100;
const MOST_SESSIONS: usize = 100;
const MOST_CHATS: usize = 1000;
/// Of the database's own check.
const MOST_AT_ONCE: i16 = 32;
/// Chats at once, where nothing is said.
const AT_ONCE: i16 = 4;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub struct Asked {
    /// 1 to 100 characters.
    name: String,
    /// Where events are posted: https (http too in development), no user, no fragment, on the public internet.
    url: String,
    /// The only types of events that it is told of, of those that are in the log.
    types: Option<Vec<String>>,
    /// The only sessions (ids or names).
    sessions: Option<Vec<String>>,
    /// The only chats: ids, or addresses, which are looked for in the session given where it is one, else in the default one.
    chats: Option<Vec<String>>,
    /// Nothing of groups.
    #[serde(default)]
    ignore_groups: bool,
    /// Nothing of status updates.
    #[serde(default)]
    ignore_status: bool,
    /// No message that the account itself wrote.
    #[serde(default)]
    ignore_own: bool,
    /// `endpoint` where nothing is said.
    ordered_by: Option<WebhookOrder>,
    /// How many chats at once where it is ordered by chat: 1 to 32, 4 where nothing is said.
    #[schema(minimum = 1, maximum = 32)]
    concurrency: Option<i16>,
    /// Headers that are sent along: at most 20. They are shown to nobody again.
    headers: Option<BTreeMap<String, String>>,
}

/// The same, in order.
pub struct Checked {
    pub name: String,
    pub url: String,
    pub filter: Filter,
    pub ordered_by: WebhookOrder,
    pub concurrency: i16,
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    /// Judges all of it.
    ///
    /// # Errors
    /// `invalid_body`, `invalid_id` and `not_found`, naming the field.
    pub async fn check(self, app: &AppState, caller: &Caller) -> Result<Checked, Problem> {
        name(&self.name)?;
        let url = app.webhook_urls.read(&self.url)?;
        let headers = webhook_rules::headers(self.headers.unwrap_or_default())?;
        let types = self.types.map_or(Ok(Vec::new()), types)?;
        let ordered_by = self.ordered_by.unwrap_or(WebhookOrder::Endpoint);
        let concurrency = match (self.concurrency, ordered_by) {
            (Some(asked), _) => concurrency(asked)?,
            (None, WebhookOrder::Endpoint) => 1,
            (None, WebhookOrder::Chat) => AT_ONCE,
        };
        let sessions = match self.sessions {
            Some(names) => Some(sessions(app, caller, names).await?),
            None => None,
        };
        let chats = match self.chats {
            Some(names) => Some(chats_in(app, caller, sessions.as_deref(), names).await?),
            None => None,
        };
        let (ignore_groups, ignore_status, ignore_own) = (self.ignore_groups, self.ignore_status, self.ignore_own);
        let filter = Filter { types, sessions, chats, ignore_groups, ignore_status, ignore_own };
        Ok(Checked { name: self.name, url, filter, ordered_by, concurrency, headers })
    }
}

fn bad(why: &'static str, field: &str) -> Problem {
    Problem::new(Code::InvalidBody, why).field(field)
}

/// # Errors
/// `invalid_body`.
pub fn name(text: &str) -> Result<(), Problem> {
    plain_text(text, LONGEST_NAME, "name")
}

/// # Errors
/// `invalid_body`.
pub fn concurrency(asked: i16) -> Result<i16, Problem> {
    if (1..=MOST_AT_ONCE).contains(&asked) { Ok(asked) } else { Err(bad("expected a number from 1 to 32", "concurrency")) }
}

/// An empty list would be told of nothing: whoever wants that pauses it.
fn within(length: usize, most: usize, why: &'static str, field: &str) -> Result<(), Problem> {
    if (1..=most).contains(&length) { Ok(()) } else { Err(bad(why, field)) }
}

/// # Errors
/// `invalid_body`.
pub fn types(names: Vec<String>) -> Result<Vec<EventType>, Problem> {
    within(names.len(), 100, "expected 1 to 100 types; null: all", "types")?;
    let mut all = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let kind = EventType::from(name);
        if !is_logged(&kind) {
            return Err(bad("expected the type of an event that is in the log", &format!("types[{at}]")));
        }
        if !all.contains(&kind) {
            all.push(kind);
        }
    }
    Ok(all)
}

/// # Errors
/// `invalid_body`, `invalid_id`, `not_found`.
pub async fn sessions(app: &AppState, caller: &Caller, names: Vec<String>) -> Result<Vec<SessionId>, Problem> {
    within(names.len(), MOST_SESSIONS, "expected 1 to 100 sessions; null: all", "sessions")?;
    let mut found = BTreeSet::new();
    for (at, name) in names.iter().enumerate() {
        let session = named_session(app, caller, Some(name)).await;
        found.insert(session.map_err(|why| why.field(format!("sessions[{at}]")))?.id);
    }
    Ok(found.into_iter().collect())
}

/// # Errors
/// `invalid_body`, `invalid_id`, `not_found`.
pub async fn chats_in(app: &AppState, caller: &Caller, sessions: Option<&[SessionId]>, names: Vec<String>) -> Result<Vec<ChatId>, Problem> {
    within(names.len(), MOST_CHATS, "expected 1 to 1000 chats; null: all", "chats")?;
    let session = match sessions {
        Some([one]) => Some(one.to_string()),
        Some(_) | None => None,
    };
    let mut ids = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let field = |why: Problem| why.field(format!("chats[{at}]"));
        ids.push(match named_chat(name, "chats").map_err(field)? {
            chats::Named::Id(id) => id,
            chats::Named::Address(_) => chat_filter(app, caller, session.as_deref(), name).await.map_err(field)?,
        });
    }
    let known: HashMap<_, _> = webhooks::chats_of(&app.pool, caller.tenant, &ids).await?.into_iter().collect();
    if let Some(at) = ids.iter().position(|id| !known.contains_key(id)) {
        return Err(Problem::not_found().field(format!("chats[{at}]")));
    }
    Ok(known.into_values().collect::<BTreeSet<_>>().into_iter().collect())
}
