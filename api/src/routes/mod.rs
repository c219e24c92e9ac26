//! A file a resource: what goes in and out, the handlers, and their routes.

use axum::response::{IntoResponse, Response};
use contract::{SessionId, TenantId};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use store::snapshot::Snapshot;
use utoipa_axum::router::OpenApiRouter;

use crate::{problem::Problem, state::AppState};

mod audit;
mod auth;
mod chats;
mod contacts;
mod control;
pub mod docs;
mod events;
mod exports;
mod grants;
mod jobs;
mod keys;
mod limits;
mod link;
mod messages;
mod ops;
mod password;
mod privacy;
mod qr;
mod resend;
mod retention;
mod send;
mod sessions;
mod users;
mod webhooks;

/// Secrets lie in no cache.
const NO_STORE: [(HeaderName, &str); 1] = [(http::header::CACHE_CONTROL, "no-store")];
/// The tenant's last event at the moment of a list: subscribe after it.
const SEQ: HeaderName = HeaderName::from_static("zaguan-seq");

/// Control of one session: `/api/sessions/{session}/…`, and `/api/whatsapp/…` for the tenant's default session.
fn control() -> OpenApiRouter<AppState> {
    sessions::control().merge(qr::router()).merge(control::router()).merge(link::admin())
}

/// People, machines, and what they may do.
fn people() -> OpenApiRouter<AppState> {
    users::router()
        .merge(grants::router())
        .merge(keys::router())
        .merge(audit::router())
        .merge(webhooks::router())
        .merge(privacy::router())
        .merge(retention::router())
}

/// What happens in one session: `/api/sessions/{session}/…`, and `/api/…` for the tenant's default session.
fn content() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(send::router())
        .merge(chats::router())
        .merge(messages::router())
        .merge(contacts::router())
        .merge(grants::content())
        .merge(exports::content())
}

/// Everything, with the paths it has outside.
pub fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(crate::openapi::base())
        .merge(ops::router())
        .nest("/api", auth::router().merge(password::router()).merge(people()))
        .nest("/api", jobs::router().merge(resend::router()).merge(events::router()).merge(limits::router()))
        .nest("/api", sessions::router().merge(content()))
        .nest("/api", control::media().merge(link::router()).merge(exports::router()))
        .nest("/api/whatsapp", control().merge(sessions::init()))
        .nest(crate::openapi::NAMED, control().merge(content()))
}

/// One thing, with what its lists say of themselves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct One<T> {
    #[serde(flatten)]
    item: T,
    /// When this was read: it shows all that had happened by then.
    as_of: crate::timestamp::Timestamp,
    /// Nothing is known to be missing, as in the lists of its kind.
    complete: bool,
}

/// A moment of the log. What is read after it shows at least what had happened by then, so who subscribes after its `seq` misses nothing.
struct Moment {
    seq: i64,
    as_of: crate::timestamp::Timestamp,
    complete: bool,
}

impl Moment {
    /// Now. `of`: the session whose account is read.
    async fn now(app: &AppState, tenant: TenantId, of: Option<SessionId>) -> Result<Self, Problem> {
        let mut snapshot = Snapshot::open(&app.pool, tenant).await?;
        let complete = match of {
            Some(session) => store::history::complete(&mut snapshot, tenant, session).await?,
            None => true,
        };
        Ok(Self { seq: snapshot.seq, as_of: snapshot.as_of.into(), complete })
    }

    /// What was read then.
    fn shows<T: Serialize>(self, item: T) -> Response {
        let mut response = axum::Json(One { item, as_of: self.as_of, complete: self.complete }).into_response();
        response.headers_mut().insert(SEQ, HeaderValue::from(self.seq));
        response
    }
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    /// The items.
    items: Vec<T>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
    /// When this was read.
    as_of: crate::timestamp::Timestamp,
    /// Nothing is known to be missing: what is shown of WhatsApp's is incomplete while the session is not connected, until what was there
    /// before the link has been taken in, and after a gap.
    complete: bool,
}

impl<T: Serialize> Page<T> {
    /// A page of `rows`, of which one more than `limit` was asked for. `cursor` names the last item shown.
    fn of<R>(snapshot: &Snapshot, rows: Vec<R>, limit: i64, cursor: impl Fn(&R) -> String, view: impl Fn(R) -> T) -> Response {
        Self::read(snapshot, true, rows, limit, cursor, view)
    }

    /// The same, of what WhatsApp has too: `complete` as [`store::history::complete`] says.
    fn read<R>(
        snapshot: &Snapshot,
        complete: bool,
        mut rows: Vec<R>,
        limit: i64,
        cursor: impl Fn(&R) -> String,
        view: impl Fn(R) -> T,
    ) -> Response {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(cursor);
        let page = Self { items: rows.into_iter().map(view).collect(), next, as_of: snapshot.as_of.into(), complete };
        let mut response = axum::Json(page).into_response();
        response.headers_mut().insert(SEQ, HeaderValue::from(snapshot.seq));
        response
    }
}

/// Cursors of lists by time, as callers carry them.
mod cursor {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use store::cursor::Cursor;

    use crate::problem::{Code, Problem};

    pub fn write(cursor: Cursor) -> String {
        URL_SAFE_NO_PAD.encode(cursor.to_bytes())
    }
    pub fn read(text: Option<&str>, field: &'static str) -> Result<Option<Cursor>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let cursor = URL_SAFE_NO_PAD.decode(text).ok().and_then(|b| Cursor::from_bytes(&b));
        cursor.map(Some).ok_or_else(|| Problem::new(Code::InvalidParameter, "expected `next` of the page before").field(field))
    }
}
