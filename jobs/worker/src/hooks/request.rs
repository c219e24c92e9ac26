//! What is sent: the event's envelope, signed as Standard Webhooks says.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use contract::{EventId, WebhookId};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{self, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use ring::hmac;
use secrecy::ExposeSecret;
use service::seal::{Purpose, Sealer};
use store::webhook_turns::Hook;

use super::connect::{Target, Unreached};

/// Headers that belong to the connection: not the tenant's to set, whatever the database says.
const OURS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    HOST,
];

/// Why a webhook cannot be told, whoever would listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// Where to.
    #[error(transparent)]
    Url(#[from] Unreached),
    /// What it has sealed does not open with this installation's key.
    #[error("secret_unreadable")]
    Sealed,
}

impl Unready {
    /// As the delivery's log says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Url(why) => why.name(),
            Self::Sealed => "secret_unreadable",
        }
    }
}

/// How requests to one webhook look.
pub struct Style {
    /// Where they go.
    pub target: Target,
    keys: Vec<(hmac::Key, Option<DateTime<Utc>>)>,
    headers: HeaderMap,
}

impl Style {
    /// Opens what is sealed.
    ///
    /// # Errors
    /// [`Unready`].
    pub fn of(sealer: &Sealer, webhook: WebhookId, hook: &Hook) -> Result<Self, Unready> {
        let target = Target::read(&hook.url)?;
        let mut keys = vec![(key(sealer, webhook, &hook.secret)?, None)];
        if let (Some(previous), Some(until)) = (&hook.previous_secret, hook.previous_until) {
            keys.push((key(sealer, webhook, previous)?, Some(until)));
        }
        let mut headers = match &hook.headers {
            Some(sealed) => own_headers(sealer, webhook, sealed)?,
            None => HeaderMap::new(),
        };
        OURS.iter().for_each(|name| drop(headers.remove(name)));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("zaguan-webhooks/", env!("CARGO_PKG_VERSION"))));
        headers.insert(HOST, HeaderValue::try_from(&target.authority).map_err(|_| Unreached::Url)?);
        Ok(Self { target, keys, headers })
    }

    /// A request that says an event, as of now.
    pub fn request(&self, event: EventId, body: Bytes, replay: bool, now: DateTime<Utc>) -> Request<Full<Bytes>> {
        let (id, at) = (event.to_string(), now.timestamp().to_string());
        let signed = [id.as_bytes(), b".", at.as_bytes(), b".", &body].concat();
        let mut signatures = String::with_capacity(2 * 48);
        for (key, _) in self.keys.iter().filter(|(_, until)| until.is_none_or(|until| until > now)) {
            let space = if signatures.is_empty() { "v1," } else { " v1," };
            signatures.push_str(space);
            STANDARD.encode_string(hmac::sign(key, &signed), &mut signatures);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.parse().unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        let mut set = |name, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        };
        set("webhook-id", id);
        set("webhook-timestamp", at);
        set("webhook-signature", signatures);
        if replay {
            set("zaguan-replay", "true".to_owned());
        }
        request
    }
}

/// What is sealed is the secret as its owner was shown it.
fn key(sealer: &Sealer, webhook: WebhookId, sealed: &[u8]) -> Result<hmac::Key, Unready> {
    let secret = sealer.open(Purpose::WebhookSecret, webhook.uuid().as_bytes(), sealed).map_err(|_| Unready::Sealed)?;
    let bytes = match secret.expose_secret().strip_prefix(b"whsec_") {
        Some(text) => STANDARD.decode(text).map_err(|_| Unready::Sealed)?,
        None => secret.expose_secret().to_vec(),
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn own_headers(sealer: &Sealer, webhook: WebhookId, sealed: &[u8]) -> Result<HeaderMap, Unready> {
    let text = sealer.open(Purpose::WebhookHeaders, webhook.uuid().as_bytes(), sealed).map_err(|_| Unready::Sealed)?;
    let pairs: BTreeMap<String, String> = serde_json::from_slice(text.expose_secret()).map_err(|_| Unready::Sealed)?;
    let pair = |(name, value): (String, String)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
    Ok(pairs.into_iter().filter_map(pair).collect())
}
