//! What callers get instead of an answer: one enum of codes, and one body for all of them.

use std::{borrow::Cow, error::Error, sync::Arc};

use axum::response::{IntoResponse, Response};
use contract::FailureCode;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// Why a request was not served. The name (`code`) never changes; each has a page `/problems/{code}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not well-formed HTTP or JSON.
    MalformedRequest,
    /// An id or address in the path or body is none.
    InvalidId,
    /// A query parameter or header has a value it cannot have.
    InvalidParameter,
    /// The body is JSON, but not what the operation takes.
    InvalidBody,
    /// No token, or one that does not count.
    Unauthenticated,
    /// The access token's time is over: refresh.
    TokenExpired,
    /// E-mail and password do not belong together.
    InvalidCredentials,
    /// The refresh token does not count (any more).
    InvalidRefreshToken,
    /// The operator suspended the tenant.
    TenantSuspended,
    /// The role, or the grant, does not allow it.
    RoleForbidden,
    /// Not there, or not yours: the answer does not tell which.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// None of the accepted media types can be made.
    NotAcceptable,
    /// The tenant has a session of that name.
    SessionNameTaken,
    /// It is the tenant's default: another one has to become that first.
    SessionIsDefault,
    /// The account is linked: there is no code to scan.
    AlreadyLinked,
    /// The session is not running: start it first.
    SessionStopped,
    /// The job has been started.
    JobRunning,
    /// The job has ended.
    JobFinished,
    /// The cursor has never been issued.
    CursorAhead,
    /// Events after the cursor have been dropped.
    CursorExpired,
    /// More than 4 MiB.
    BodyTooLarge,
    /// Not `application/json`.
    UnsupportedMediaType,
    /// The key was used with another body.
    IdempotencyKeyReused,
    /// The session's queue is full.
    LaneFull,
    /// Asked for too often.
    RateLimited,
    /// The link has been used, replaced or has run out: ask for another one.
    LinkExpired,
    /// We failed.
    Internal,
    /// The page or this version cannot do it.
    Unsupported,
    /// The session needs a person.
    SessionNotWorking,
    /// No code yet.
    QrNotReady,
    /// Nobody knows whether the job was accepted: ask for it, or repeat with the same `Idempotency-Key`.
    AcceptanceUnknown,
    /// A store that this needs does not answer.
    Unavailable,
    /// The job that was waited for did not succeed.
    Job(FailureCode),
}

impl Code {
    /// Every code that is not a job's.
    pub const OWN: [Self; 33] = [
        Self::MalformedRequest,
        Self::InvalidId,
        Self::InvalidParameter,
        Self::InvalidBody,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::InvalidCredentials,
        Self::InvalidRefreshToken,
        Self::TenantSuspended,
        Self::RoleForbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::SessionNameTaken,
        Self::SessionIsDefault,
        Self::AlreadyLinked,
        Self::SessionStopped,
        Self::JobRunning,
        Self::JobFinished,
        Self::CursorAhead,
        Self::CursorExpired,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::LaneFull,
        Self::RateLimited,
        Self::LinkExpired,
        Self::Internal,
        Self::Unsupported,
        Self::SessionNotWorking,
        Self::QrNotReady,
        Self::AcceptanceUnknown,
        Self::Unavailable,
    ];

    /// Name, status, title, and whether the same request may succeed later without anybody changing anything.
    const fn facts(self) -> (&'static str, StatusCode, &'static str, bool) {
        use StatusCode as S;
        match self {
            Self::MalformedRequest => ("malformed_request", S::BAD_REQUEST, "The request is malformed", false),
            Self::InvalidId => ("invalid_id", S::BAD_REQUEST, "Not an id or address", false),
            Self::InvalidParameter => ("invalid_parameter", S::BAD_REQUEST, "A parameter is not valid", false),
            Self::InvalidBody => ("invalid_body", S::UNPROCESSABLE_ENTITY, "The body is not valid", false),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, "Log in first", false),
            Self::TokenExpired => ("token_expired", S::UNAUTHORIZED, "The access token has expired", false),
            Self::InvalidCredentials => ("invalid_credentials", S::UNAUTHORIZED, "E-mail or password is wrong", false),
            Self::InvalidRefreshToken => ("invalid_refresh_token", S::UNAUTHORIZED, "Log in again", false),
            Self::TenantSuspended => ("tenant_suspended", S::FORBIDDEN, "The tenant is suspended", false),
            Self::RoleForbidden => ("role_forbidden", S::FORBIDDEN, "Not allowed for this role", false),
            Self::NotFound => ("not_found", S::NOT_FOUND, "No such resource", false),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "The method is not allowed here", false),
            Self::NotAcceptable => ("not_acceptable", S::NOT_ACCEPTABLE, "No acceptable media type", false),
            Self::SessionNameTaken => ("session_name_taken", S::CONFLICT, "The name is taken", false),
            Self::SessionIsDefault => ("session_is_default", S::CONFLICT, "The session is the default", false),
            Self::AlreadyLinked => ("already_linked", S::CONFLICT, "The account is already linked", false),
            Self::SessionStopped => ("session_stopped", S::CONFLICT, "The session is not running", false),
            Self::JobRunning => ("job_running", S::CONFLICT, "The job has been started", false),
            Self::JobFinished => ("job_finished", S::CONFLICT, "The job has ended", false),
            Self::CursorAhead => ("cursor_ahead", S::CONFLICT, "The cursor has never been issued", false),
            Self::CursorExpired => ("cursor_expired", S::GONE, "Events after the cursor have been dropped", false),
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, "The body is too large", false),
            Self::UnsupportedMediaType => ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "Send application/json", false),
            Self::IdempotencyKeyReused => {
                ("idempotency_key_reused", S::UNPROCESSABLE_ENTITY, "The idempotency key was used with another body", false)
            }
            Self::LaneFull => ("lane_full", S::TOO_MANY_REQUESTS, "The session's queue is full", true),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS, "Too often", true),
            Self::LinkExpired => ("link_expired", S::GONE, "The link has run out", false),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Something went wrong here", true),
            Self::Unsupported => ("unsupported", S::NOT_IMPLEMENTED, "Not supported", false),
            Self::SessionNotWorking => ("session_not_working", S::SERVICE_UNAVAILABLE, "The session needs a person", false),
            Self::QrNotReady => ("qr_not_ready", S::SERVICE_UNAVAILABLE, "No code yet", true),
            Self::AcceptanceUnknown => ("acceptance_unknown", S::SERVICE_UNAVAILABLE, "The job may or may not have been accepted", true),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "Not available right now", true),
            Self::Job(code) => (code.as_str(), job_status(code), "The job did not succeed", code.retryable()),
        }
    }

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }
    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.facts().1
    }
}

/// The status of a job's failure where a caller waited for it.
const fn job_status(code: FailureCode) -> StatusCode {
    match code {
        FailureCode::ChatNotFound | FailureCode::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
        FailureCode::JobCancelled
        | FailureCode::AccountChanged
        | FailureCode::NotLinking
        | FailureCode::NothingLinked
        | FailureCode::SessionEnded => StatusCode::CONFLICT,
        FailureCode::CommandUndecodable => StatusCode::INTERNAL_SERVER_ERROR,
        FailureCode::PageError | FailureCode::TooManyStarts => StatusCode::BAD_GATEWAY,
        FailureCode::HostTooOld | FailureCode::LoggedOut | FailureCode::Banned => StatusCode::SERVICE_UNAVAILABLE,
        FailureCode::JobExpired | FailureCode::OutcomeUnknown | FailureCode::HostLost => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// A refusal on its way out. The body is written by [`crate::middleware`], which knows the request's id.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Why.
    pub code: Code,
    detail: Cow<'static, str>,
    field: Option<String>,
    members: Map<String, Value>,
    retry_after: Option<u64>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A refusal. `detail` is for the caller's developers; never message text, phone numbers or secrets of others.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), field: None, members: Map::new(), retry_after: None, source: None }
    }
    /// Not there, or not yours.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such resource, or it is not yours")
    }
    /// A panic or an impossible state; the detail stays here.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the failure has been logged under this request's id")
    }
    /// Names the part of the request that is wrong.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Self {
        self.field = Some(name.into());
        self
    }
    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }
    /// Says when to come again (seconds).
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The part of the request that was named.
    pub fn named_field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The cause and its causes, in one line.
    pub(crate) fn chain(&self) -> Option<String> {
        let mut next: Option<&dyn Error> = self.source.as_deref().map(|s| s as &dyn Error);
        let mut lines = Vec::new();
        while let Some(error) = next {
            let line = error.to_string();
            // Many errors of libraries end with what their source says again.
            if lines.last().is_none_or(|last: &String| !last.ends_with(&line)) {
                lines.push(line);
            }
            next = error.source();
        }
        (!lines.is_empty()).then(|| lines.join(": "))
    }

    /// The whole answer.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let (code, status, title, retryable) = self.code.facts();
        let mut body = self.members.clone();
        body.extend([
            ("type".to_owned(), json!(format!("/problems/{code}"))),
            ("title".to_owned(), json!(title)),
            ("status".to_owned(), json!(status.as_u16())),
            ("detail".to_owned(), json!(self.detail)),
            ("code".to_owned(), json!(code)),
            ("retryable".to_owned(), json!(retryable)),
            ("requestId".to_owned(), json!(request_id)),
        ]);
        if let Some(field) = &self.field {
            body.insert("field".to_owned(), json!(field));
        }
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::StoreError> for Problem {
    fn from(why: store::StoreError) -> Self {
        Self::new(Code::Unavailable, "the database does not answer").retry_after(1).because(why)
    }
}

/// How a problem looks, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = Problem, rename_all = "camelCase")]
#[expect(dead_code, reason = "read by the derive only")]
pub struct ProblemBody {
    /// `/problems/{code}`.
    #[schema(rename = "type")]
    kind: String,
    /// What the code means.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What was wrong this time.
    detail: String,
    /// Stable; switch on it. An unknown one is to be treated by its status.
    code: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// Equals the header `X-Request-Id`.
    request_id: String,
    /// The part of the request that is wrong, where there is one.
    field: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_an_error_status() {
        let all: Vec<Code> = Code::OWN.into_iter().chain(FailureCode::ALL.iter().copied().map(Code::Job)).collect();
        let names: HashSet<_> = all.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| c.status().is_client_error() || c.status().is_server_error()));
    }

    #[tokio::test]
    async fn a_member_never_replaces_what_every_problem_says() {
        let problem = Problem::not_found().with("code", json!("mine")).field("chat");
        let body = problem.render("req_1");
        assert_eq!(body.status(), 404);
        let bytes = axum::body::to_bytes(body.into_body(), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&body["code"], &body["field"], &body["requestId"]), (&json!("not_found"), &json!("chat"), &json!("req_1")));
    }
}
