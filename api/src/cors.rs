//! Pages of other origins: an exact list, named by the operator. What they send is a token in a header or a ticket, never a cookie, so nothing
//! is allowed with credentials.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::auth::LINK_HEADER;

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<[HeaderValue]>);

impl Origins {
    /// Reads a comma-separated list of origins, each as browsers write them: `https://app.example.com`.
    ///
    /// # Errors
    /// Names what is no origin.
    pub fn read(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let origins = items.map(|item| origin(item).ok_or_else(|| format!("{item} is no origin, as https://app.example.com")));
        Ok(Self(origins.collect::<Result<_, _>>()?))
    }

    /// Whether a page of this origin may open a socket, which no preflight asks for: one of the list, or the place itself.
    pub fn allows(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let same = || {
            let (_, place) = origin.to_str().ok()?.split_once("://")?;
            Some(place.as_bytes() == host?.as_bytes())
        };
        self.0.contains(origin) || same() == Some(true)
    }

    /// What answers preflights and names the origin on answers; none where no other origin may call.
    pub fn layer(&self) -> Option<CorsLayer> {
        if self.0.is_empty() {
            return None;
        }
        let named = |names: &'static [&'static str]| names.iter().copied().map(HeaderName::from_static);
        let sent = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT].into_iter();
        let sent = sent.chain(named(&["x-api-key", "idempotency-key", "prefer", "last-event-id", "x-request-id", LINK_HEADER]));
        let shown = [header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE].into_iter();
        let shown = shown.chain(named(&["zaguan-seq", "ratelimit", "ratelimit-policy", "idempotency-replayed", "x-request-id"]));
        Some(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
                .allow_headers(sent.collect::<Vec<_>>())
                .expose_headers(shown.collect::<Vec<_>>())
                .max_age(Duration::from_secs(600)),
        )
    }
}

/// An origin exactly as a browser sends it: lower case, no path, no port that goes without saying.
fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let written = text == format!("{scheme}://{authority}") && text.to_ascii_lowercase() == text;
    let plain = !authority.as_str().contains(['@', '*']) && !authority.host().is_empty() && authority.port_u16() != Some(usual);
    (written && plain).then(|| HeaderValue::try_from(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends_and_nothing_wider() {
        for good in ["", "https://app.example.com", "https://a.example, http://localhost:3000", "http://[::1]:3000"] {
            assert!(Origins::read(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://me@app.example.com",
            "ftp://app.example.com",
            "app.example.com",
        ] {
            assert!(Origins::read(bad).is_err(), "{bad}");
        }
    }
}
