//! What a reader of the log asks for, whatever carries it.

use contract::{ChatId, EventType, SessionId};
use store::{
    chats::{self, Named},
    events::{self, Filter},
};

use crate::{
    auth::{Caller, named_chat, named_session},
    problem::{Code, Problem},
    state::AppState,
};

/// A cursor that somebody gave.
///
/// # Errors
/// `invalid_parameter`.
pub fn cursor(after: Option<i64>) -> Result<Option<i64>, Problem> {
    match after {
        Some(..0) => Err(Problem::new(Code::InvalidParameter, "expected a seq, or 0 for all").field("after")),
        after => Ok(after),
    }
}

/// What a reader asked for. A session or chat that it does not see answers 404.
///
/// # Errors
/// `invalid_parameter`, `not_found`, `unavailable`.
pub async fn filter(
    app: &AppState,
    caller: &Caller,
    types: Option<&str>,
    session: Option<&str>,
    chat: Option<&str>,
) -> Result<Filter, Problem> {
    let types = parse_types(types)?;
    let session = match session {
        Some(text) => Some(named_session(app, caller, Some(text)).await?),
        None => None,
    };
    let filter = Filter { types, session: session.as_ref().map(|s| s.id), chat: None };
    let Some(text) = chat else { return Ok(filter) };
    let named = named_chat(text, "chat")?;
    let session = match (session, &named) {
        (Some(session), _) => session,
        (None, Named::Address(_)) => named_session(app, caller, None).await?,
        (None, Named::Id(id)) => session_of(app, caller, *id).await?,
    };
    let (chat, _) = chats::fetch(&app.pool, caller.viewer(), &session, &named).await?.ok_or_else(Problem::not_found)?;
    Ok(Filter { chat: Some(chat.id), ..filter })
}

async fn session_of(app: &AppState, caller: &Caller, chat: ChatId) -> Result<store::sessions::Session, Problem> {
    let session: Option<SessionId> = events::session_of(&app.pool, caller.viewer(), chat).await?;
    let session = session.ok_or_else(Problem::not_found)?;
    named_session(app, caller, Some(&session.to_string())).await
}

fn parse_types(text: Option<&str>) -> Result<Vec<EventType>, Problem> {
    let names = text.into_iter().flat_map(|t| t.split(',')).map(str::trim);
    let known = names.map(|name| {
        EventType::from_name(name)
            .ok_or_else(|| Problem::new(Code::InvalidParameter, "expected names of event types, comma-separated").field("types"))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_are_refused_and_no_types_mean_all() {
        assert!(parse_types(None).unwrap().is_empty());
        assert_eq!(parse_types(Some("message, session.status")).unwrap(), [EventType::Message, EventType::SessionStatus]);
        assert!(parse_types(Some("message,nope")).is_err() && parse_types(Some("")).is_err());
    }
}
