//! The code that links a phone.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use contract::{EventType, SessionId, SessionState, TenantId};
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};
use store::sessions;
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::AdminSession,
    extract::{Params, Wait},
    limits,
    problem::{Code, Problem},
    qr,
    state::AppState,
    timestamp::Timestamp,
};

/// Who waits is woken by the code and by the session's events; while Redis is away, this finds what they missed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Beside [`super::sessions::control`].
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_qr))
}

/// The code.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct QrView {
    /// What the picture says.
    qr: String,
    /// Until when a phone takes it.
    expires_at: Timestamp,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Query {
    /// Seconds (0 to 25) to wait for a code where there is none yet.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    wait: Wait,
}

/// The code to scan, as JSON, PNG or SVG by `Accept`.
#[utoipa::path(get, path = "/qr", operation_id = "qr", tag = "sessions", params(Query),
    responses((status = 200, content((QrView = "application/json"), (inline(crate::openapi::Picture) = "image/png"), (String = "image/svg+xml")))),
    extensions(("x-roles" = json!(["ADMIN"])), ("x-scope" = json!("sessions:link")), ("x-chat" = json!("none"))))]
async fn get_qr(State(app): State<AppState>, owned: AdminSession, params: Params<Query>, headers: HeaderMap) -> Result<Response, Problem> {
    let form = Form::accepted(&headers)
        .ok_or_else(|| Problem::new(Code::NotAcceptable, "this can be application/json, image/png or image/svg+xml").field("Accept"))?;
    let wait = params.0.wait.get();
    let _place = limits::wait(&app, &owned.admin.0, wait).await?;
    let deadline = Instant::now() + wait.unwrap_or_default();
    // Subscribe first, then read.
    let mut news = News::of(&app, owned.admin.0.tenant, owned.session.id).await?;
    loop {
        let named = sessions::Named::Id(owned.session.id);
        let session = sessions::fetch(&app.pool, owned.admin.0.tenant, &named).await?.ok_or_else(Problem::not_found)?;
        may_show(session.state)?;
        let code = queue::qr::read(&app.redis, session.tenant, session.id).await;
        let code = code.map_err(|why| Problem::new(Code::Unavailable, "Redis does not answer").retry_after(1).because(why))?;
        if let Some(code) = code {
            let expires_at = store::snapshot::now(&app.pool).await? + code.expires_in;
            return form.show(code.code, expires_at.into());
        }
        if Instant::now() >= deadline || app.stopping.is_cancelled() {
            return Err(Problem::new(Code::QrNotReady, "the browser is starting, or the code is being renewed").retry_after(2));
        }
        tokio::select! {
            () = news.next() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = app.stopping.cancelled() => {}
        }
    }
}

/// What may change what is shown of a session that is being linked.
pub struct News {
    session: SessionId,
    codes: queue::codes::Waiting,
    log: queue::Follow,
}

impl News {
    /// From here on.
    ///
    /// # Errors
    /// Where Postgres does not answer.
    pub async fn of(app: &AppState, tenant: TenantId, session: SessionId) -> Result<Self, Problem> {
        Ok(Self { session, codes: app.codes.watch(tenant, session), log: app.readers.follow(tenant).await? })
    }

    /// The next change, or a moment in which one may have been missed.
    pub async fn next(&mut self) {
        let changed = async {
            loop {
                let event = self.log.next().await;
                if event.session == Some(self.session) && event.kind == EventType::SessionStatus {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.codes.changed() => {}
            () = changed => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn may_show(state: SessionState) -> Result<(), Problem> {
    match state {
        SessionState::Starting | SessionState::Linking => Ok(()),
        SessionState::Syncing | SessionState::Working | SessionState::Reconnecting => {
            Err(Problem::new(Code::AlreadyLinked, "the account is linked: there is nothing to scan"))
        }
        SessionState::Stopped | SessionState::LoggedOut | SessionState::Banned | SessionState::Failed | SessionState::Conflict => {
            Err(Problem::new(Code::SessionStopped, "start the session first"))
        }
    }
}

/// The forms a code can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Png,
    Svg,
}

impl Form {
    /// The first that the caller accepts, in the order of its preference; JSON where it does not say.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
        if accept.is_empty() {
            return Some(Self::Json);
        }
        let mut ranges: Vec<(f32, &str)> = accept.into_iter().filter_map(range).collect();
        // Stable: of equal weights the first one named wins.
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranges.into_iter().find_map(|(_, name)| match name {
            "*/*" | "application/*" | "application/json" => Some(Self::Json),
            "image/png" | "image/*" => Some(Self::Png),
            "image/svg+xml" => Some(Self::Svg),
            _ => None,
        })
    }

    fn show(self, code: String, expires_at: Timestamp) -> Result<Response, Problem> {
        let draw = |picture: Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>| {
            picture.map_err(|_| Problem::new(Code::Internal, "the code does not fit into a picture; ask for JSON"))
        };
        Ok(match self {
            Self::Json => ([NO_STORE], Json(QrView { qr: code, expires_at })).into_response(),
            Self::Png => ([NO_STORE, (header::CONTENT_TYPE, "image/png")], draw(qr::png(&code))?).into_response(),
            Self::Svg => ([NO_STORE, (header::CONTENT_TYPE, "image/svg+xml")], draw(qr::svg(&code))?).into_response(),
        })
    }
}

/// A media range and its weight; none where the weight is 0.
fn range(text: &str) -> Option<(f32, &str)> {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let weight = parameters.split(';').find_map(|p| p.trim().strip_prefix("q=")).map_or(Some(1.0), |q| q.trim().parse().ok());
    weight.filter(|w| *w > 0.0).map(|w| (w, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_the_caller_prefers() {
        let form = |accept: &str| Form::accepted(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert_eq!(Form::accepted(&HeaderMap::new()), Some(Form::Json));
        assert_eq!(form("*/*"), Some(Form::Json));
        assert_eq!(form("image/png"), Some(Form::Png));
        assert_eq!(form("text/html, image/svg+xml;q=0.5, image/png;q=0.9"), Some(Form::Png));
        assert_eq!(form("image/avif,image/webp,image/*,*/*;q=0.8"), Some(Form::Png));
        assert_eq!(form("text/html"), None);
        assert_eq!(form("image/png;q=0"), None);
    }
}
