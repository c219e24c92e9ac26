//! Pages for people: the document of the API to click through, and what each problem code means.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::Path,
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, header};
use utoipa_swagger_ui::{Config, serve};

use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Swagger UI styles itself; everything else comes from here, and nothing from elsewhere.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}code{background:#8882;padding:0 .3em}";

/// At the root. None of it is part of the API's document.
pub fn router() -> Router<AppState> {
    let config = Arc::new(Config::from("/openapi.json").use_base_layout().try_it_out_enabled(true));
    let file = move |path: String| {
        let config = config.clone();
        async move { docs_file(&path, config) }
    };
    let index = file.clone();
    Router::new()
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/api-docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(move || index(String::new())))
        .route("/docs/{*file}", get(move |Path(path): Path<String>| file(path)))
        .route("/problems", get(|| async { page("Problems", &list()) }))
        .route("/problems/{code}", get(|Path(code): Path<String>| async move { one(&code) }))
}

fn docs_file(path: &str, config: Arc<Config<'_>>) -> Result<Response, Problem> {
    match serve(path, config) {
        Ok(Some(file)) => {
            let kind = HeaderValue::try_from(file.content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
            Ok(([(header::CONTENT_TYPE, kind), policy(DOCS_POLICY)], file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(Problem::not_found()),
        Err(_) => Err(Problem::internal()),
    }
}

fn one(name: &str) -> Result<Response, Problem> {
    let code = Code::from_name(name).ok_or_else(Problem::not_found)?;
    Ok(page(code.title(), &entry(code)))
}

fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><h1>{0}</h1>{body}</html>",
        escaped(title)
    );
    ([policy(PAGE_POLICY)], Html(html)).into_response()
}

const fn policy(value: &'static str) -> (HeaderName, HeaderValue) {
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(value))
}

fn entry(code: Code) -> String {
    format!(
        "<p><code>{}</code>, status {}. {}</p><p>{}</p><p><a href=\"/problems\">All problems</a></p>",
        code.as_str(),
        code.status(),
        again(code),
        escaped(code.about())
    )
}

fn list() -> String {
    let mut html = "<ul>".to_owned();
    for code in Code::all() {
        let _ = write!(html, "<li><a href=\"/problems/{0}\"><code>{0}</code></a> {1}", code.as_str(), escaped(code.title()));
    }
    html + "</ul>"
}

/// Whether to come again.
const fn again(code: Code) -> &'static str {
    if code.retryable() { "The same request may succeed later." } else { "The same request will not succeed until something is changed." }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `docs/problems.md`.
pub fn problems_md() -> String {
    let mut text = "# Problems\n\n\
        Every failure is answered as `application/problem+json` (RFC 9457) with one of these codes, also as its `type` `/problems/{code}`.\n\
        Switch on `code`; treat one that you do not know by its status. *Again*: the same request may succeed later, without a change; wait\n\
        for `Retry-After` where there is one. `requestId` equals the header `X-Request-Id`: name it when you ask for help.\n\n\
        This page is written by `zaguan-api problems`.\n\n\
        | code | status | again | what it means |\n|---|---|---|---|\n"
        .to_owned();
    for code in Code::all() {
        let again = if code.retryable() { "yes" } else { "" };
        let about = code.about().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {} | {again} | **{}.** {about} |", code.as_str(), code.status().as_u16(), code.title());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_a_line_and_no_text_becomes_markup() {
        let all = problems_md();
        for code in Code::all() {
            assert!(one(code.as_str()).is_ok() && all.contains(&format!("| `{}` |", code.as_str())));
        }
        assert!(one("nope").is_err());
        assert_eq!(escaped("<b>&"), "&lt;b&gt;&amp;");
    }

    #[test]
    fn the_committed_page_is_what_the_codes_say() {
        assert!(
            include_str!("../../../docs/problems.md") == problems_md(),
            "docs/problems.md is out of date: write it with `make openapi`"
        );
    }

    #[test]
    fn the_documents_user_interface_is_part_of_the_binary() {
        let config = || Arc::new(Config::from("/openapi.json"));
        for file in ["", "swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
            let response = docs_file(file, config()).unwrap();
            assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY), "{file}");
        }
        assert!(docs_file("../Cargo.toml", config()).is_err());
    }
}
