//! What the caller may touch. These types are made only here, after the check; ids in bodies go through the same functions as ids in paths.

use axum::extract::FromRequestParts;
use contract::{AuditAction, ChatId, ChatKind, Jid, JobId, SessionId};
use http::request::Parts;
use serde_json::json;
use store::{
    aliases,
    audit::Act,
    chats::{self, Chat},
    grants::{self, Access, NewGrant},
    keys,
    sessions::{self, Session},
};

use super::{Admin, Caller, ChatNeed};
use crate::{
    extract::path_param,
    problem::{Code, Problem},
    state::AppState,
};

/// A session of the caller's tenant: the one of the path, or `default` where the route names none.
#[derive(Debug, Clone)]
pub struct OwnedSession {
    /// Who asks.
    pub caller: Caller,
    /// The row as it was when the request came.
    pub session: Session,
}

impl FromRequestParts<AppState> for OwnedSession {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let text = path_param(parts, app, "session").await?;
        let session = named_session(app, &caller, text.as_deref()).await?;
        tracing::Span::current().record("session", tracing::field::display(session.id));
        Ok(Self { caller, session })
    }
}

/// The same, for what only an ADMIN may do. Somebody else's session answers 404 before the role answers 403.
#[derive(Debug, Clone)]
pub struct AdminSession {
    /// Who asks.
    pub admin: Admin,
    /// The row as it was when the request came.
    pub session: Session,
}

impl FromRequestParts<AppState> for AdminSession {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let OwnedSession { caller, session } = OwnedSession::from_request_parts(parts, app).await?;
        Ok(Self { admin: caller.session_admin()?, session })
    }
}

/// The tenant's session of that id or name.
///
/// # Errors
/// `invalid_id`, or `not_found`.
pub async fn named_session(app: &AppState, caller: &Caller, text: Option<&str>) -> Result<Session, Problem> {
    let named = match text {
        None => sessions::Named::Default,
        Some(text) if text.starts_with("ses_") => {
            sessions::Named::Id(text.parse().map_err(|why: contract::BadId| bad_session(&why.to_string()))?)
        }
        Some(text) if is_session_name(text) => sessions::Named::Name(text.to_owned()),
        Some(_) => return Err(bad_session("expected a session's id, or its name (1 to 40 of a-z, 0-9 and -)")),
    };
    let session = sessions::fetch(&app.pool, caller.tenant, &named).await?.ok_or_else(Problem::not_found)?;
    if keys::reaches(&app.pool, caller.viewer(), session.id).await? { Ok(session) } else { Err(Problem::not_found()) }
}

fn bad_session(why: &str) -> Problem {
    Problem::new(Code::InvalidId, why.to_owned()).field("session")
}

/// The grammar of a session's name.
pub(crate) fn is_session_name(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A chat that the caller may read.
#[derive(Debug, Clone)]
pub struct VisibleChat {
    /// Who asks.
    pub caller: Caller,
    /// Where.
    pub session: Session,
    /// Which.
    pub chat: Chat,
    /// How far back, and whether more than reading is allowed.
    pub access: Access,
}

impl FromRequestParts<AppState> for VisibleChat {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let OwnedSession { caller, session } = OwnedSession::from_request_parts(parts, app).await?;
        let text = path_param(parts, app, "chat").await?.unwrap_or_default();
        let named = named_chat(&text, "chat")?;
        let (chat, access) = chats::fetch(&app.pool, caller.viewer(), &session, &named).await?.ok_or_else(Problem::not_found)?;
        match caller.chat_need() {
            ChatNeed::Read => {}
            ChatNeed::Write | ChatNeed::Start if access.write => {}
            ChatNeed::Write | ChatNeed::Start => return Err(reading_only()),
            ChatNeed::None => return Err(undeclared()),
        }
        Ok(Self { caller, session, chat, access })
    }
}

fn reading_only() -> Problem {
    Problem::new(Code::RoleForbidden, "the grant allows reading only")
}

/// The operation touches a chat that its declaration knows nothing of: it serves nobody.
fn undeclared() -> Problem {
    tracing::error!("an operation touches chats in a way that its x-chat does not declare");
    Problem::internal()
}

/// A chat that the caller may write to. An ADMIN may write to any address; the chat is made if it is new.
#[derive(Debug, Clone)]
pub struct WritableChat {
    /// Who asks.
    pub caller: Caller,
    /// Where.
    pub session: Session,
    /// Which.
    pub id: ChatId,
    /// Its address as known now.
    pub to: Jid,
    /// The caller reaches it by starting it: [`WritableChat::open`] grants it.
    starts: bool,
}

impl FromRequestParts<AppState> for WritableChat {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let owned = OwnedSession::from_request_parts(parts, app).await?;
        let text = path_param(parts, app, "chat").await?.unwrap_or_default();
        Self::named(app, owned, &text, "chat").await
    }
}

impl WritableChat {
    /// The check itself, for an id in a body too: `field` is where it came from.
    ///
    /// # Errors
    /// `invalid_id`; `not_found` where the caller does not see the chat; `role_forbidden` where it may only read it.
    pub async fn named(app: &AppState, owned: OwnedSession, text: &str, field: &'static str) -> Result<Self, Problem> {
        let OwnedSession { caller, session } = owned;
        let may_start = match caller.chat_need() {
            ChatNeed::Start => caller.can_start_chats,
            ChatNeed::Write => false,
            ChatNeed::None | ChatNeed::Read => return Err(undeclared()),
        };
        let named = named_chat(text, field)?;
        let seen = chats::fetch(&app.pool, caller.viewer(), &session, &named).await?;
        let (id, to, starts) = match (seen, named) {
            (Some((_, Access { write: false, .. })), _) => return Err(reading_only()),
            (Some((chat, _)), _) => {
                let to = chat.wa_id.parse().map_err(|_| Problem::new(Code::Unsupported, "this kind of chat cannot be written to"))?;
                (chat.id, to, false)
            }
            (None, chats::Named::Id(_)) => return Err(Problem::not_found()),
            (None, chats::Named::Address(to)) => {
                let everywhere = grants::writes_everywhere(&app.pool, caller.viewer(), session.id).await?;
                let starts = !everywhere && may_start && to.kind() == ChatKind::Private;
                if !everywhere && !starts {
                    return Err(Problem::not_found());
                }
                let id = aliases::named(&app.pool, caller.tenant, session.id, &to).await?;
                (id, to, starts)
            }
        };
        Ok(Self { caller, session, id, to, starts })
    }

    /// Grants the chat to a caller who starts it; to be called once what it sends has been accepted as `job`, and again whenever that is
    /// repeated: what was taken back since stays so. The chat may have been there or not: the answer does not tell, and what was said
    /// before stays hidden.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn open(&self, app: &AppState, job: JobId) -> Result<(), Problem> {
        if !self.starts {
            return Ok(());
        }
        let Caller { tenant, principal, user, .. } = self.caller;
        let new = NewGrant {
            holder: principal,
            session: self.session.id,
            chat: Some(self.id),
            write: true,
            from_now: true,
            expires_at: None,
            created_by: user,
        };
        let detail = json!({"holder": principal, "session": self.session.id, "chat": self.id, "started": true});
        let act = Act::new(principal, AuditAction::GrantCreated, "", detail);
        if let Some((_, event)) = grants::start_chat(&app.pool, tenant, &new, job, &act).await? {
            crate::announce::events(app, tenant, vec![event]).await;
        }
        Ok(())
    }
}

/// Reads `cht_…`, a phone number, or any address.
///
/// # Errors
/// `invalid_id`.
pub fn named_chat(text: &str, field: &'static str) -> Result<chats::Named, Problem> {
    let bad = |why: String| Problem::new(Code::InvalidId, why).field(field);
    if text.starts_with("cht_") {
        text.parse().map(chats::Named::Id).map_err(|why: contract::BadId| bad(why.to_string()))
    } else {
        text.parse().map(chats::Named::Address).map_err(|why: contract::BadJid| bad(why.to_string()))
    }
}

/// The session of an id or name in a query, as an id.
///
/// # Errors
/// `invalid_id`, or `not_found`.
pub async fn session_filter(app: &AppState, caller: &Caller, text: Option<&str>) -> Result<Option<SessionId>, Problem> {
    match text {
        None => Ok(None),
        Some(text) => named_session(app, caller, Some(text)).await.map(|s| Some(s.id)),
    }
}

/// The chat of an id or address in a query, as an id. Addresses are those of the session named, or of the default one.
///
/// # Errors
/// `invalid_id`, or `not_found` where the caller does not see it.
pub async fn chat_filter(app: &AppState, caller: &Caller, session: Option<&str>, text: &str) -> Result<ChatId, Problem> {
    let named = named_chat(text, "chat")?;
    if let chats::Named::Id(id) = named {
        return Ok(id);
    }
    let session = named_session(app, caller, session).await?;
    chats::fetch(&app.pool, caller.viewer(), &session, &named).await?.map(|(chat, _)| chat.id).ok_or_else(Problem::not_found)
}
