//! Linking without an account: an ADMIN makes a URL, a customer opens it and links the phone. The page itself is [`crate::link_page`].

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{AuditAction, Command, FailureCode, JobState, PairingCode, Reason, Scope, SessionState};
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{
    audit::Act,
    link_pages::{self, LinkPage, Terms},
    sessions::{self, Session, Wanted},
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    control::{PairingCodeView, code_of, may_pair, new_job, within_limit},
    qr::News,
    send::commit,
    sessions::phone,
};
use crate::{
    auth::{self, AdminSession, LinkCaller},
    extract::{Body, OptionalBody, Params, Wait},
    limits,
    once::{self, Once},
    problem::{Code, Problem},
    qr,
    state::AppState,
    timestamp::Timestamp,
};

/// How long a URL counts.
const LASTS: Duration = Duration::from_secs(600);
/// How long the page waits for its pairing code.
const CODE_WITHIN: Duration = Duration::from_secs(20);
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Under a session, and under `/api/whatsapp` for the default one.
pub fn admin() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}
/// Under `/api`: what the page asks.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(look)).routes(routes!(start)).routes(routes!(pairing_code))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NewLinkPage {
    /// Whether the customer may also link by a pairing code: where the phone that opens the page is the one to link, nothing can be scanned.
    with_code: bool,
    /// Whether another account than the one linked before may be linked.
    allow_new_account: bool,
}

/// A URL to send to the customer.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct LinkPageView {
    /// Opens the page. Whoever has it can link a phone to this session, and do nothing else.
    url: String,
    /// Until when it counts.
    expires_at: Timestamp,
}

/// Makes a one-time URL of a page on which somebody without an account links the session's phone. Starts the session; an earlier URL of it
/// ends. It counts for ten minutes, for one linking, and while whoever made it is an ADMIN, or the key counts that did.
#[utoipa::path(post, path = "/link-page", operation_id = "createLinkPage", tag = "sessions", request_body = Option<NewLinkPage>,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = LinkPageView)),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:link")), ("x-chat" = json!("none"))))]
async fn create(
    State(app): State<AppState>,
    owned: AdminSession,
    once: Once,
    body: OptionalBody<NewLinkPage>,
) -> Result<Response, Problem> {
    let AdminSession { admin, session } = owned;
    let key = once.with_body(body.1);
    once::first(&app, &admin.0, key.as_ref()).await?;
    if is_linked(session.state) {
        return Err(Problem::new(Code::AlreadyLinked, "the account is linked: there is nothing to link"));
    }
    let NewLinkPage { with_code, allow_new_account } = body.0;
    if allow_new_account && !admin.0.has(Scope::SessionsControl) {
        return Err(Problem::new(
            Code::ScopeMissing,
            "another account ends what is queued for this one: the key needs the scope sessions:control",
        )
        .field("allowNewAccount"));
    }
    let terms = Terms { with_code, allow_new_account };
    let (token, hash) = auth::new_link_token().ok_or_else(Problem::internal)?;
    let (of, by) = ((session.tenant, session.id), (admin.0.principal, admin.0.user));
    let opened = link_pages::open(&app.pool, of, &hash, by, terms, LASTS, key.as_ref()).await?;
    let expires_at = opened.ok_or_else(once::shown_once)?;
    want(&app, &session, terms).await?;
    let url = format!("{}/link#{token}", app.tokens.issuer().trim_end_matches('/'));
    Ok((StatusCode::CREATED, [NO_STORE], Json(LinkPageView { url, expires_at: expires_at.into() })).into_response())
}

async fn want(app: &AppState, session: &Session, terms: Terms) -> Result<Session, Problem> {
    let wanted = Wanted::Running { allow_new_account: terms.allow_new_account };
    let written = sessions::want(&app.pool, session.tenant, session.id, wanted).await?;
    let (session, event) = written.ok_or_else(Problem::not_found)?;
    crate::announce::wanted(app, session.tenant, session.id, event).await;
    Ok(session)
}

const fn is_linked(state: SessionState) -> bool {
    matches!(state, SessionState::Syncing | SessionState::Working | SessionState::Reconnecting)
}

/// Where the linking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// The browser starts, or the next code is being made.
    Starting,
    /// No host has a free slot.
    Full,
    /// There is a code to scan.
    Scan,
    /// Linked; the phone hands over what it has.
    Syncing,
    /// Done.
    Working,
    /// Nobody scanned in time, or the session was stopped.
    Stopped,
    /// Another phone than the one that belongs here was linked, and has been unlinked.
    WrongPhone,
    /// It needs whoever made the link.
    Failed,
}

impl Step {
    const fn of(state: SessionState, reason: Option<Reason>, has_code: bool) -> Self {
        match state {
            SessionState::Starting if matches!(reason, Some(Reason::Capacity)) => Self::Full,
            SessionState::Starting | SessionState::Linking if has_code => Self::Scan,
            SessionState::Starting | SessionState::Linking => Self::Starting,
            SessionState::Syncing | SessionState::Reconnecting => Self::Syncing,
            SessionState::Working => Self::Working,
            SessionState::LoggedOut if matches!(reason, Some(Reason::WrongAccount)) => Self::WrongPhone,
            SessionState::Stopped | SessionState::LoggedOut => Self::Stopped,
            SessionState::Conflict | SessionState::Banned | SessionState::Failed => Self::Failed,
        }
    }
    const fn may_try_again(self) -> bool {
        matches!(self, Self::Stopped | Self::WrongPhone)
    }
}

/// What the page shows.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct LinkView {
    step: Step,
    /// Who made the link.
    company: String,
    /// The code, a string of 0 and 1 a row.
    modules: Option<Vec<String>>,
    /// Whether a pairing code may be asked for.
    with_code: bool,
    /// Whether another try may be asked for.
    may_try_again: bool,
    /// When the link ends.
    expires_at: Timestamp,
    /// Names this answer: send it as `version` to wait for another one.
    version: String,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Look {
    /// Seconds (0 to 25) to wait for another answer than `version`.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    wait: Wait,
    /// `version` of the last answer.
    version: Option<String>,
}

/// How the linking is. For the holder of a link.
#[utoipa::path(get, path = "/link", operation_id = "lookAtLink", tag = "link",
    params(Look, ("Zaguan-Link" = String, Header, description = "The link's token.")), responses((status = 200, body = LinkView)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn look(State(app): State<AppState>, caller: LinkCaller, params: Params<Look>) -> Result<Response, Problem> {
    let Look { wait, version } = params.0;
    let _place = limits::wait_by_link(&app, &caller, wait.get()).await?;
    let deadline = Instant::now() + wait.get().unwrap_or_default();
    let mut news = News::of(&app, caller.page.tenant, caller.page.session).await?;
    loop {
        // Read anew: the link may have ended meanwhile.
        let page = link_pages::fetch(&app.pool, &caller.hash).await?;
        let page = page.ok_or_else(|| Problem::new(Code::LinkExpired, "ask for another link"))?;
        let view = view(&app, page).await?;
        if Some(&view.version) != version.as_ref() || Instant::now() >= deadline || app.stopping.is_cancelled() {
            return Ok(([NO_STORE], Json(view)).into_response());
        }
        tokio::select! {
            () = news.next() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

async fn view(app: &AppState, page: LinkPage) -> Result<LinkView, Problem> {
    let named = sessions::Named::Id(page.session);
    let session = sessions::fetch(&app.pool, page.tenant, &named).await?.ok_or_else(Problem::not_found)?;
    let shows = matches!(session.state, SessionState::Starting | SessionState::Linking) && !page.used;
    // While Redis is away there is no code to show, and the page says that one is being made.
    let code = if shows { queue::qr::read(&app.redis, page.tenant, page.session).await.ok().flatten() } else { None };
    let modules = code.as_ref().and_then(|code| qr::modules(&code.code).ok());
    let step = Step::of(session.state, session.reason, modules.is_some());
    let seen = format!("{step:?} {:?} {}", code.map(|c| c.code), page.used);
    let digest = ring::digest::digest(&ring::digest::SHA256, seen.as_bytes());
    Ok(LinkView {
        step,
        company: page.company,
        modules,
        with_code: page.terms.with_code && shows,
        may_try_again: step.may_try_again() && !page.used,
        expires_at: page.expires_at.into(),
        version: digest.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect(),
    })
}

/// Starts the session again after nobody scanned in time, or another phone did. For the holder of a link.
#[utoipa::path(post, path = "/link/start", operation_id = "startByLink", tag = "link",
    params(("Zaguan-Link" = String, Header, description = "The link's token.")), responses((status = 204)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn start(State(app): State<AppState>, caller: LinkCaller) -> Result<StatusCode, Problem> {
    may_go_on(&caller)?;
    let step = Step::of(caller.session.state, caller.session.reason, false);
    if step.may_try_again() {
        let task = app.clone();
        auth::surely(&app, async move {
            want(&task, &caller.session, caller.page.terms).await?;
            noted(&task, &caller, "startByLink").await;
            Ok::<_, Problem>(())
        })
        .await??;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever holds a link is nobody that we know: the audit log says who made it.
async fn noted(app: &AppState, caller: &LinkCaller, operation: &str) {
    let detail = json!({"operation": operation, "linkOf": caller.page.created_by});
    let act = Act::new(None, AuditAction::SessionControlled, caller.page.session, detail);
    auth::note(app, caller.page.tenant, &act).await;
}

fn may_go_on(caller: &LinkCaller) -> Result<(), Problem> {
    if caller.page.used || is_linked(caller.session.state) {
        return Err(Problem::new(Code::AlreadyLinked, "this link has done its work"));
    }
    Ok(())
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LinkPhone {
    /// The number to link: 7 to 15 digits with country code, a leading + is allowed.
    phone: String,
}

/// A pairing code for a number. For the holder of a link that allows it: five in all.
#[utoipa::path(post, path = "/link/pairing-code", operation_id = "pairByLink", tag = "link", request_body = LinkPhone,
    params(("Zaguan-Link" = String, Header, description = "The link's token.")), responses((status = 200, body = PairingCodeView)),
    extensions(("x-roles" = json!([])), ("x-scope" = json!("none")), ("x-chat" = json!("none"))))]
async fn pairing_code(State(app): State<AppState>, caller: LinkCaller, body: Body<LinkPhone>) -> Result<Response, Problem> {
    let phone = phone(&body.value.phone, "phone")?;
    if !caller.page.terms.with_code {
        return Err(Problem::new(Code::RoleForbidden, "this link is for scanning only"));
    }
    may_go_on(&caller)?;
    may_pair(&caller.session)?;
    let _place = limits::wait_by_link(&app, &caller, Some(CODE_WITHIN)).await?;
    let tenant = caller.page.tenant;
    if !link_pages::take_code(&app.pool, tenant, &caller.hash).await? {
        return Err(Problem::new(Code::RateLimited, "this link has had its codes: ask for another link").retry_after(LASTS.as_secs()));
    }
    within_limit(&app, tenant, &phone).await?;
    let job = new_job(&caller.session, caller.page.created_by, Command::PairingCode(PairingCode { phone }));
    let id = job.id;
    let mut log = app.readers.follow(tenant).await?;
    let task = app.clone();
    auth::surely(&app, async move {
        commit(&task, job, None, None).await?;
        noted(&task, &caller, "pairByLink").await;
        Ok::<_, Problem>(())
    })
    .await??;
    let ended = async {
        loop {
            let event = log.next().await;
            if event.data["job"]["id"] == json!(id) {
                return event;
            }
        }
    };
    let ended = tokio::select! {
        ended = ended => ended,
        () = tokio::time::sleep(CODE_WITHIN) => return Err(late()),
        () = app.stopping.cancelled() => return Err(late()),
    };
    if ended.data["job"]["state"] != json!(JobState::Succeeded) {
        let code = ended.data["job"]["error"]["code"].as_str().and_then(FailureCode::from_name).unwrap_or(FailureCode::PageError);
        return Err(Problem::new(Code::Job(code), "WhatsApp gave no code for this number"));
    }
    let code = code_of(&app, tenant, id).await.ok_or_else(late)?;
    Ok(([NO_STORE], Json(code)).into_response())
}

fn late() -> Problem {
    Problem::new(Code::QrNotReady, "no code yet: try again").retry_after(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_step_and_only_what_a_customer_can_mend_may_be_tried_again() {
        for state in SessionState::ALL {
            let step = Step::of(*state, None, false);
            assert_eq!(step.may_try_again(), matches!(state, SessionState::Stopped | SessionState::LoggedOut), "{state:?}");
        }
        assert_eq!(Step::of(SessionState::LoggedOut, Some(Reason::WrongAccount), false), Step::WrongPhone);
        assert_eq!(Step::of(SessionState::Starting, Some(Reason::Capacity), false), Step::Full);
        assert_eq!(Step::of(SessionState::Linking, Some(Reason::AwaitingScan), true), Step::Scan);
        assert_eq!(Step::of(SessionState::Working, None, true), Step::Working);
    }
}
