//! What callers get instead of an answer: one enum of codes, and one body for all of them.

use std::{borrow::Cow, error::Error, sync::Arc};

use axum::response::{IntoResponse, Response};
use contract::FailureCode;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// One line a code: its name, status, title, and whether the same request may succeed later without anybody changing anything. The comment
/// is what `/problems/{code}` says.
macro_rules! codes {
    ($($(#[doc = $about:literal])+ $variant:ident = $name:literal, $status:ident, $title:literal, $retryable:literal;)*) => {
        /// Why a request was not served. The name (`code`) never changes; each has a page `/problems/{code}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $about])+ $variant,)*
            /// The job that was waited for did not succeed.
            Job(FailureCode),
        }
        impl Code {
            /// Every code that is not a job's.
            pub const OWN: &'static [Self] = &[$(Self::$variant),*];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$variant => Facts {
                        name: $name, status: StatusCode::$status, title: $title, retryable: $retryable, about: concat!($($about),+),
                    },)*
                    Self::Job(code) => Facts {
                        name: code.as_str(),
                        status: job_status(code),
                        title: "The job did not succeed",
                        retryable: code.retryable(),
                        about: code.about(),
                    },
                }
            }
        }
    };
}

/// What there is to say about a code.
struct Facts {
    name: &'static str,
    status: StatusCode,
    title: &'static str,
    retryable: bool,
    about: &'static str,
}

codes! {
    /// The request is not well-formed HTTP or JSON.
    MalformedRequest = "malformed_request", BAD_REQUEST, "The request is malformed", false;
    /// An id or address in the path or body is none.
    InvalidId = "invalid_id", BAD_REQUEST, "Not an id or address", false;
    /// A query parameter or header has a value it cannot have.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter is not valid", false;
    /// The body is JSON, but not what the operation takes.
    InvalidBody = "invalid_body", UNPROCESSABLE_ENTITY, "The body is not valid", false;
    /// No token, or one that does not count.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Log in first", false;
    /// The access token's time is over: refresh.
    TokenExpired = "token_expired", UNAUTHORIZED, "The access token has expired", false;
    /// E-mail and password do not belong together.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "E-mail or password is wrong", false;
    /// The invitation or password link does not count (any more).
    InvalidLink = "invalid_link", GONE, "The link does not count", false;
    /// The refresh token does not count (any more).
    InvalidRefreshToken = "invalid_refresh_token", UNAUTHORIZED, "Log in again", false;
    /// The operator suspended the tenant.
    TenantSuspended = "tenant_suspended", FORBIDDEN, "The tenant is suspended", false;
    /// The role, or the grant, does not allow it.
    RoleForbidden = "role_forbidden", FORBIDDEN, "Not allowed for this role", false;
    /// The API key lacks the scope.
    ScopeMissing = "scope_missing", FORBIDDEN, "The API key may not do this", false;
    /// A page of an origin that the operator did not allow (`CORS_ORIGINS`) tried to open a stream.
    OriginForbidden = "origin_forbidden", FORBIDDEN, "Pages of this origin may not call", false;
    /// The API key may not be used from this address.
    AddressForbidden = "address_forbidden", FORBIDDEN, "The API key may not be used from here", false;
    /// Not there, or not yours: the answer does not tell which.
    NotFound = "not_found", NOT_FOUND, "No such resource", false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here", false;
    /// None of the accepted media types can be made.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "No acceptable media type", false;
    /// The tenant has a session of that name.
    SessionNameTaken = "session_name_taken", CONFLICT, "The name is taken", false;
    /// It is the tenant's default: another one has to become that first.
    SessionIsDefault = "session_is_default", CONFLICT, "The session is the default", false;
    /// The tenant, or on acceptance the installation, has a user of this address.
    EmailTaken = "email_taken", CONFLICT, "The e-mail address is taken", false;
    /// The key was made without lists.
    KeyUnlimited = "key_unlimited", CONFLICT, "The key has no lists", false;
    /// The tenant would be left without an active ADMIN.
    LastAdmin = "last_admin", CONFLICT, "A tenant keeps an ADMIN", false;
    /// The user is in a state that has no use for it.
    UserState = "user_state", CONFLICT, "Not in the user's present state", false;
    /// The account is linked: there is no code to scan.
    AlreadyLinked = "already_linked", CONFLICT, "The account is already linked", false;
    /// The session is not running: start it first.
    SessionStopped = "session_stopped", CONFLICT, "The session is not running", false;
    /// The job has been started.
    JobRunning = "job_running", CONFLICT, "The job has been started", false;
    /// The job has ended.
    JobFinished = "job_finished", CONFLICT, "The job has ended", false;
    /// The job cannot be sent again: it has not ended, it succeeded, or it sends nothing.
    JobNotResendable = "job_not_resendable", CONFLICT, "The job cannot be sent again", false;
    /// The webhook is paused or disabled: make it active first.
    WebhookNotActive = "webhook_not_active", CONFLICT, "The webhook is not active", false;
    /// The delivery waits to be sent already, or it was a test call, which is made anew.
    DeliveryNotRepeatable = "delivery_not_repeatable", CONFLICT, "The delivery cannot be repeated", false;
    /// The event has been dropped from the log: it can no longer be sent again.
    EventExpired = "event_expired", GONE, "The event has been dropped", false;
    /// The cursor has never been issued.
    CursorAhead = "cursor_ahead", CONFLICT, "The cursor has never been issued", false;
    /// Events after the cursor have been dropped.
    CursorExpired = "cursor_expired", GONE, "Events after the cursor have been dropped", false;
    /// More than 4 MiB.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large", false;
    /// Not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Send application/json", false;
    /// The key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The idempotency key was used with another body", false;
    /// The request was served before under this key, and its answer held a secret that is kept nowhere: use another key to make a new one.
    SecretShownOnce = "secret_shown_once", CONFLICT, "Done before; its secret is not shown again", false;
    /// The session's queue is full.
    LaneFull = "lane_full", TOO_MANY_REQUESTS, "The session's queue is full", true;
    /// Too many requests of this kind in a short time, or too many held open at once: come again after `Retry-After`.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests", true;
    /// The tenant has used up what its operator set for a day, or has as many of these as it may have. See `GET /api/limits`.
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, "The quota is used up", true;
    /// The session has written to as many new chats today as it may: 20 a day after linking, rising to 200 over 14 days. People who are
    /// written to by strangers report them, and WhatsApp restricts accounts that are reported.
    NewChatCap = "new_chat_cap", TOO_MANY_REQUESTS, "No more new chats today", true;
    /// The link has been used, replaced or has run out: ask for another one.
    LinkExpired = "link_expired", GONE, "The link has run out", false;
    /// We failed.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong here", true;
    /// The page or this version cannot do it.
    Unsupported = "unsupported", NOT_IMPLEMENTED, "Not supported", false;
    /// The session needs a person.
    SessionNotWorking = "session_not_working", SERVICE_UNAVAILABLE, "The session needs a person", false;
    /// No code yet.
    QrNotReady = "qr_not_ready", SERVICE_UNAVAILABLE, "No code yet", true;
    /// Nobody knows whether the job was accepted: ask for it, or repeat with the same `Idempotency-Key`.
    AcceptanceUnknown = "acceptance_unknown", SERVICE_UNAVAILABLE, "The job may or may not have been accepted", true;
    /// A store that this needs does not answer.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Not available right now", true;
}

impl Code {
    /// Every code.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::OWN.iter().copied().chain(FailureCode::ALL.iter().copied().map(Self::Job))
    }
    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|c| c.as_str() == name)
    }
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }
    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.facts().status
    }
    /// What it means, in few words.
    pub const fn title(self) -> &'static str {
        self.facts().title
    }
    /// Whether the same request may succeed later without anybody changing anything.
    pub const fn retryable(self) -> bool {
        self.facts().retryable
    }
    /// What it means, in sentences.
    pub const fn about(self) -> &'static str {
        self.facts().about.trim_ascii()
    }
}

/// The status of a job's failure where a caller waited for it.
const fn job_status(code: FailureCode) -> StatusCode {
    match code {
        FailureCode::ChatNotFound | FailureCode::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
        FailureCode::JobCancelled
        | FailureCode::AccountChanged
        | FailureCode::ContactErased
        | FailureCode::RecipientChanged
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
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A refusal. `detail` is for the caller's developers; never message text, phone numbers or secrets of others.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), field: None, members: Map::new(), headers: Vec::new(), source: None }
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
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }
    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
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

    /// What the answer says, whatever carries it.
    pub(crate) fn body(&self, request_id: &str) -> Value {
        let Facts { name: code, status, title, retryable, .. } = self.code.facts();
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
        Value::Object(body)
    }

    /// The whole answer.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let (status, body) = (self.code.status(), self.body(request_id).to_string());
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.extend(self.headers.iter().cloned());
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
        if let Some(limit) = why.quota() {
            let detail = format!("the tenant has as many {limit} as its operator allows; see GET /api/limits");
            return Self::new(Code::QuotaExceeded, detail).retry_after(3600);
        }
        if why.is_gone() {
            return Self::not_found().because(why);
        }
        if why.is_passing() {
            return Self::new(Code::Unavailable, "the database does not answer").retry_after(1).because(why);
        }
        Self::internal().because(why)
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
        let all: Vec<Code> = Code::all().collect();
        let names: HashSet<_> = all.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| c.status().is_client_error() || c.status().is_server_error()));
        assert!(all.iter().all(|c| !c.about().is_empty() && Code::from_name(c.as_str()) == Some(*c)));
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
