//! The page on which a customer links a phone: static files in the binary. Everything that changes comes from `/api/link`, which wants the
//! token that the URL carries after `#`; these files are the same for everybody and hold nothing secret.

use axum::{
    Router,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::state::AppState;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
const ENGLISH: &str = include_str!("en.txt");
const SPANISH: &str = include_str!("es.txt");

/// Scripts, styles and requests of our own origin, and nothing else; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// At the root: the page is for people, not part of the API.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/link", get(|headers: HeaderMap| std::future::ready(page(&headers))))
        .route("/link/page.js", get(|| std::future::ready(guarded(([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)))))
        .route("/link/page.css", get(|| std::future::ready(guarded(([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)))))
}

fn page(headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let text = if prefers_spanish(accepted) { fill(SPANISH, "es") } else { fill(ENGLISH, "en") };
    let mut response = guarded(Html(text));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Language"));
    response
}

fn guarded(content: impl IntoResponse) -> Response {
    let mut response = content.into_response();
    let guards: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ];
    for (name, value) in guards {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Puts the texts (`name = text` a line) where the page has `{{name}}`.
fn fill(texts: &str, language: &str) -> String {
    let texts = texts.lines().filter_map(|line| line.split_once(" = "));
    let page = PAGE.replace("{{language}}", language);
    texts.fold(page, |page, (name, text)| page.replace(&format!("{{{{{name}}}}}"), text))
}

/// Whether Spanish comes before English in what the browser asks for. English where neither does.
fn prefers_spanish(accepted: &str) -> bool {
    let weight = |wanted: &str| {
        accepted
            .split(',')
            .filter_map(|range| {
                let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
                let primary = tag.trim().split('-').next().unwrap_or_default();
                let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.parse::<f32>().ok())?;
                primary.eq_ignore_ascii_case(wanted).then_some(weight)
            })
            .fold(0.0, f32::max)
    };
    weight("es") > weight("en")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_speaks_the_language_that_the_browser_prefers() {
        for spanish in ["es", "es-MX,es;q=0.9,en;q=0.8", "en;q=0.5, ES-AR"] {
            assert!(prefers_spanish(spanish), "{spanish}");
        }
        for english in ["", "en-US,en;q=0.9,es;q=0.8", "pt-BR,pt;q=0.9", "*", "es;q=0", "es;q=x"] {
            assert!(!prefers_spanish(english), "{english}");
        }
    }

    #[test]
    fn both_languages_have_every_text() {
        for (texts, language) in [(ENGLISH, "en"), (SPANISH, "es")] {
            let page = fill(texts, language);
            assert!(!page.contains("{{"), "{language}: {:?}", page.split("{{").nth(1).map(|rest| &rest[..20.min(rest.len())]));
            assert!(page.contains(&format!("lang=\"{language}\"")));
        }
    }

    #[test]
    fn nothing_of_the_page_is_inline_or_from_elsewhere() {
        for forbidden in ["<style", " style=", " onclick", "javascript:", "http://", "https://", "innerHTML"] {
            assert!(!PAGE.contains(forbidden) && !SCRIPT.contains(forbidden), "{forbidden}");
        }
        assert_eq!(PAGE.matches("<script").count(), PAGE.matches("<script src=\"/link/page.js\" defer></script>").count());
    }
}
