//! Requests, parsed at the door: what refuses here answers with one of our problems.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// The largest body of a JSON route: what Lambda takes, container alike.
pub const BODY_LIMIT: usize = 4 << 20;

/// A JSON body.
#[derive(Debug)]
pub struct Body<T> {
    /// What it says.
    pub value: T,
    /// SHA-256 of its bytes: what an idempotency key is compared by.
    pub sha256: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = bytes(request, app).await?;
        if !is_json {
            return Err(Problem::new(Code::UnsupportedMediaType, "the content-type must be application/json"));
        }
        parse(&bytes)
    }
}

/// A JSON body that may be left out, and the SHA-256 of its bytes.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T, pub [u8; 32]);

impl<T: DeserializeOwned + Default> FromRequest<AppState> for OptionalBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let bytes = bytes(request, app).await?;
        if bytes.is_empty() { Ok(Self(T::default(), sha256(&bytes))) } else { parse(&bytes).map(|b| Self(b.value, b.sha256)) }
    }
}

/// The body of a PATCH: a JSON merge patch (RFC 7396), as `application/merge-patch+json` or `application/json`. Its fields are [`Change`]s.
#[derive(Debug)]
pub struct Patch<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Patch<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        Body::from_request(request, app).await.map(|body| Self(body.value))
    }
}

/// What a merge patch says about a field. In a struct with `#[serde(default)]` a field left out is [`Change::Keep`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// Left out: it stays.
    #[default]
    Keep,
    /// `null`: it goes.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<T> Change<T> {
    /// For a field that may be empty: what is to be written, if anything.
    pub fn nullable(self) -> Option<Option<T>> {
        match self {
            Self::Keep => None,
            Self::Clear => Some(None),
            Self::Set(value) => Some(Some(value)),
        }
    }
    /// For a field that always has a value.
    ///
    /// # Errors
    /// `invalid_body` where it was to go.
    pub fn required(self, field: &'static str) -> Result<Option<T>, Problem> {
        match self {
            Self::Keep => Ok(None),
            Self::Clear => Err(Problem::new(Code::InvalidBody, "it cannot be removed").field(field)),
            Self::Set(value) => Ok(Some(value)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Self::Clear, Self::Set))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json")
}

async fn bytes(request: Request, app: &AppState) -> Result<axum::body::Bytes, Problem> {
    axum::body::Bytes::from_request(request, app).await.map_err(|why| match why.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "a JSON body may have at most 4 MiB"),
        _ => Problem::new(Code::MalformedRequest, "the body could not be read"),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, Problem> {
    // A list would be read as the fields of a struct in the order of our source.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(Code::InvalidBody, "expected an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(refused)?;
    deserializer.end().map_err(|why| Problem::new(Code::MalformedRequest, format!("the body is not JSON: {why}")))?;
    Ok(Body { value, sha256: sha256(bytes) })
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn refused(why: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = why.path().to_string();
    let inner = why.into_inner();
    if inner.is_data() {
        let text = inner.to_string();
        let problem = Problem::new(Code::InvalidBody, text.clone());
        // A missing field is named by the message only; every other one by the path too.
        let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        match (missing, path.as_str()) {
            (Some(name), ".") => problem.field(name),
            (Some(name), _) => problem.field(format!("{path}.{name}")),
            (None, ".") => problem,
            (None, _) => problem.field(path),
        }
    } else {
        Problem::new(Code::MalformedRequest, format!("the body is not JSON: {inner}"))
    }
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let parsed = Query::<T>::from_request_parts(parts, app).await;
        parsed.map(|Query(value)| Self(value)).map_err(|why| {
            let text = why.body_text();
            let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text).to_owned();
            let field = reason.split_once(": ").map(|(field, _)| field).filter(|f| !f.contains(' ')).map(str::to_owned);
            let problem = Problem::new(Code::InvalidParameter, reason);
            match field {
                Some(field) => problem.field(field),
                None => problem,
            }
        })
    }
}

/// A page's size: 1 to 200, 50 where nothing is said.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(i64);

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}
impl TryFrom<String> for Limit {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().ok().filter(|n| (1..=200).contains(n)).map(Self).ok_or("expected a number from 1 to 200")
    }
}
impl Limit {
    /// How many items.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// How long a request may be held: 0 to 25 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Wait(u64);

impl Wait {
    /// The most that a caller may ask for.
    pub const MAX: u64 = 25;
    /// As a duration; none where nothing was asked.
    pub fn get(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_secs(self.0))
    }
}
impl TryFrom<String> for Wait {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().ok().filter(|n| *n <= Self::MAX).map(Self).ok_or("expected seconds from 0 to 25")
    }
}

/// `Prefer: wait=N`. A preference: what cannot be honoured is shortened or ignored, never refused (RFC 7240).
#[derive(Debug, Clone, Copy)]
pub struct Prefer(Option<Wait>);

impl Prefer {
    /// As a duration; none where nothing, or no time, was asked.
    pub fn get(self) -> Option<Duration> {
        self.0.and_then(Wait::get)
    }
    /// The same for an answer that is worth waiting for: `otherwise` where nothing was said; `wait=0` still asks for no wait.
    pub fn or(self, otherwise: Duration) -> Option<Duration> {
        self.0.map_or(Some(otherwise), Wait::get)
    }
}

impl FromRequestParts<AppState> for Prefer {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self(preferred_wait(&parts.headers)))
    }
}

fn preferred_wait(headers: &HeaderMap) -> Option<Wait> {
    let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split([',', ';']));
    preferences
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, n)| n.trim().trim_matches('"').parse::<u64>().ok())
        .map(|seconds| Wait(seconds.min(Wait::MAX)))
}

/// `Idempotency-Key`, at most 255 visible ASCII characters.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<AppState> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|k| (1..=255).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic()));
        key.map(|k| Self(Some(k.to_owned()))).ok_or_else(|| {
            Problem::new(Code::InvalidParameter, "expected 1 to 255 visible ASCII characters without spaces").field("Idempotency-Key")
        })
    }
}

/// A path parameter, percent-decoded once. `None`: the route has none of that name.
///
/// # Errors
/// `invalid_id` where it is not UTF-8.
pub async fn path_param(parts: &mut Parts, app: &AppState, name: &str) -> Result<Option<String>, Problem> {
    let bad = |_| Problem::new(Code::InvalidId, "the path is not UTF-8");
    let path = RawPathParams::from_request_parts(parts, app).await.map_err(bad)?;
    Ok(path.iter().find(|(n, _)| *n == name).map(|(_, text)| text.to_owned()))
}

/// An id in the path.
#[derive(Debug, Clone, Copy)]
pub struct PathId<T>(pub T);

impl<T: std::str::FromStr<Err = contract::BadId> + Send> FromRequestParts<AppState> for PathId<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let text = path_param(parts, app, "id").await?.unwrap_or_default();
        text.parse().map(Self).map_err(|why: contract::BadId| Problem::new(Code::InvalidId, why.to_string()).field("id"))
    }
}

/// What a kind of id is called in a path.
pub trait PathName {
    /// The parameter's name.
    const NAME: &'static str;
}
impl PathName for contract::UserId {
    const NAME: &'static str = "user";
}
impl PathName for contract::KeyId {
    const NAME: &'static str = "key";
}
impl PathName for contract::GrantId {
    const NAME: &'static str = "grant";
}

impl PathName for contract::WebhookId {
    const NAME: &'static str = "webhook";
}
impl PathName for contract::DeliveryId {
    const NAME: &'static str = "delivery";
}

/// An id in the path, under the name of its kind.
#[derive(Debug, Clone, Copy)]
pub struct Named<T>(pub T);

impl<T: PathName + std::str::FromStr<Err = contract::BadId> + Send> FromRequestParts<AppState> for Named<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let text = path_param(parts, app, T::NAME).await?.unwrap_or_default();
        text.parse().map(Self).map_err(|why: contract::BadId| Problem::new(Code::InvalidId, why.to_string()).field(T::NAME))
    }
}

/// Where the request came from, as far as anybody knows.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub Option<std::net::IpAddr>);

impl FromRequestParts<AppState> for Client {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self(crate::auth::address::client(parts, app)))
    }
}

/// Text of people: within `longest` characters, not empty, and nothing that a terminal or a database stumbles over.
///
/// # Errors
/// `invalid_body`, naming the field.
pub fn plain_text(text: &str, longest: usize, field: &'static str) -> Result<(), Problem> {
    let fits = (1..=longest).contains(&text.chars().count()) && !text.trim().is_empty() && !text.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(Problem::new(Code::InvalidBody, format!("expected 1 to {longest} characters, no control characters")).field(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Example {
        some_text: String,
        inner: Option<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        count: u8,
    }

    fn problem(body: &str) -> (Code, String) {
        let problem = parse::<Example>(body.as_bytes()).unwrap_err();
        (problem.code, problem.named_field().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_body_that_does_not_fit_names_the_field() {
        assert_eq!(problem("{"), (Code::MalformedRequest, String::new()));
        assert_eq!(problem(r#"{"someText": "a"} x"#), (Code::MalformedRequest, String::new()));
        assert_eq!(problem(r#"{"someText": "\ud800"}"#).0, Code::MalformedRequest);
        assert_eq!(problem(r#"{"someText": 1}"#), (Code::InvalidBody, "someText".into()));
        assert_eq!(problem("{}"), (Code::InvalidBody, "someText".into()));
        assert_eq!(problem(r#" ["a", null]"#), (Code::InvalidBody, String::new()));
        assert_eq!(problem(r#"{"someText": "a", "more": 1}"#), (Code::InvalidBody, "more".into()));
        assert_eq!(problem(r#"{"someText": "a", "inner": {"count": 300}}"#), (Code::InvalidBody, "inner.count".into()));
        assert_eq!(problem(r#"{"someText": "a", "inner": {}}"#), (Code::InvalidBody, "inner.count".into()));
        assert_eq!(problem(r#"{"someText": "a", "inner": {"count": 1, "x": 2}}"#), (Code::InvalidBody, "inner.x".into()));
    }

    #[test]
    fn a_merge_patch_keeps_what_it_does_not_name_and_clears_what_is_null() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        struct Some3 {
            first: Change<String>,
            second: Change<String>,
            third: Change<u8>,
        }
        let patch = parse::<Some3>(br#"{"second": null, "third": 3}"#).unwrap().value;
        assert_eq!((patch.first.clone(), &patch.second, &patch.third), (Change::Keep, &Change::Clear, &Change::Set(3)));
        assert_eq!((patch.first.nullable(), patch.third.required("third").unwrap()), (None, Some(3)));
        assert_eq!(patch.second.required("second").unwrap_err().named_field(), Some("second"));
        assert!(parse::<Some3>(br#"{"fourth": 4}"#).is_err() && parse::<Some3>(br#"{"third": "x"}"#).is_err());
    }

    #[test]
    fn a_preference_is_shortened_or_ignored_but_never_refused() {
        let wait =
            |value: &str| preferred_wait(&HeaderMap::from_iter([(header::HeaderName::from_static("prefer"), value.parse().unwrap())]));
        let told =
            [wait("wait=10"), wait("respond-async, wait=5"), wait("wait=900"), wait("wait=0"), wait("wait=x"), wait("return=minimal")];
        assert_eq!(told, [Some(Wait(10)), Some(Wait(5)), Some(Wait(25)), Some(Wait(0)), None, None]);
        assert_eq!([Prefer(told[3]).or(Duration::MAX), Prefer(None).or(Duration::MAX)], [None, Some(Duration::MAX)]);
    }
}
