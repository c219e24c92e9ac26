//! Where a webhook may lead and what headers it may carry, judged when it is given. What a name resolves to is judged at every connect, by the
//! worker: what is said here saves a tenant from finding out later.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use http::{HeaderName, HeaderValue};
use service::addresses::{Allowed, is_port_refused};
use url::{Host, Url};

use crate::problem::{Code, Problem};

const LONGEST_URL: usize = 2048;
const MOST_HEADERS: usize = 20;
const LONGEST_HEADER_NAME: usize = 64;
const LONGEST_HEADER_VALUE: usize = 1024;

/// Names, and beginnings of names, that are ours or the connection's.
const KEPT_NAMES: [&str; 12] = [
    "connection",
    "date",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "http2-settings",
];
const KEPT_BEGINNINGS: [&str; 4] = ["content-", "webhook-", "zaguan-", "proxy-"];

/// What an installation demands of webhooks' URLs.
#[derive(Debug, Clone, Default)]
pub struct UrlRules {
    /// Whether nothing unencrypted is taken.
    pub https_only: bool,
    /// What may be reached beside the public internet.
    pub allowed: Allowed,
}

impl UrlRules {
    /// The URL as it is stored: read by the web's own rules, so that an address is the address however it is written.
    ///
    /// # Errors
    /// `invalid_body`, naming the field.
    pub fn read(&self, text: &str) -> Result<String, Problem> {
        let bad = |why: &str| Problem::new(Code::InvalidBody, why.to_owned()).field("url");
        // The reader of URLs drops line breaks and tabs in silence.
        if text.len() > LONGEST_URL || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("expected at most 2048 characters, no blanks, no control characters"));
        }
        let url = Url::parse(text).map_err(|_| bad("expected an absolute URL, as https://example.com/hooks"))?;
        match url.scheme() {
            "https" => {}
            "http" if !self.https_only => {}
            _ => return Err(bad("expected https")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a user or password in a URL ends up in logs: use a header"));
        }
        if url.fragment().is_some() {
            return Err(bad("a fragment is never sent"));
        }
        let literal = match url.host() {
            Some(Host::Domain(name)) => is_this_machine(name).then_some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            Some(Host::Ipv4(v4)) => Some(IpAddr::from(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::from(v6)),
            None => return Err(bad("expected a host")),
        };
        if literal.is_some_and(|address| self.allowed.check(address).is_err()) {
            return Err(bad("the host is not an address of the public internet"));
        }
        if url.port_or_known_default().is_none_or(is_port_refused) {
            return Err(bad("webhooks do not call this port"));
        }
        Ok(url.into())
    }
}

fn is_this_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// The headers that a tenant wants sent along, by their names in lower case.
///
/// # Errors
/// `invalid_body`, naming the header.
pub fn headers(asked: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    let mut all = BTreeMap::new();
    for (name, value) in asked {
        let bad = |why: &str| Err(Problem::new(Code::InvalidBody, why.to_owned()).field(format!("headers.{}", shown(&name))));
        let lower = match name.parse::<HeaderName>() {
            Ok(read) if name.len() <= LONGEST_HEADER_NAME => read.as_str().to_owned(),
            _ => return bad("expected a header's name of at most 64 characters"),
        };
        if is_kept(&lower) {
            return bad("this header is not yours to set");
        }
        if value.len() > LONGEST_HEADER_VALUE || HeaderValue::from_str(&value).is_err() || value.trim() != value {
            return bad("expected at most 1024 visible ASCII characters, no line breaks, no blanks around them");
        }
        if all.insert(lower, value).is_some() {
            return bad("it is there twice");
        }
    }
    if all.len() > MOST_HEADERS {
        return Err(Problem::new(Code::InvalidBody, "expected at most 20 headers").field("headers"));
    }
    Ok(all)
}

fn is_kept(name: &str) -> bool {
    KEPT_NAMES.contains(&name) || KEPT_BEGINNINGS.iter().any(|start| name.starts_with(start))
}

/// A name as a problem may repeat it.
fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(LONGEST_HEADER_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(production: bool) -> UrlRules {
        let allowed = if production { "" } else { "127.0.0.1" };
        UrlRules { https_only: production, allowed: allowed.parse().unwrap() }
    }

    #[test]
    fn a_url_that_leads_inside_is_refused_however_it_is_written() {
        for inside in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::ffff:169.254.169.254]/latest/meta-data",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[fd00:ec2::254]/",
            "https://169.254.169.254/",
            "https://2852039166/",
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
        ] {
            let why = rules(true).read(inside).unwrap_err();
            assert_eq!((why.code, why.named_field()), (Code::InvalidBody, Some("url")), "{inside}");
        }
    }

    #[test]
    fn a_url_names_nothing_but_a_receiver() {
        for bad in [
            "",
            "example.com/hook",
            "/hook",
            "https:///",
            "http://example.com/",
            "ftp://example.com/",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://user@example.com/",
            "https://user:word@example.com/",
            "https://:word@example.com/",
            "https://example.com/#part",
            "https://example.com/a\r\nx: y",
            "https://exam\tple.com/",
            "https://example.com/ a",
            "https://example.com:0/",
            "https://example.com:22/",
            "https://example.com:6379/",
            "https://example.com:5432/",
            "https://example.com:99999/",
        ] {
            assert_eq!(rules(true).read(bad).unwrap_err().named_field(), Some("url"), "{bad}");
        }
        assert!(rules(true).read(&format!("https://example.com/{}", "a".repeat(2048))).is_err());
        let read = |text| rules(true).read(text).unwrap();
        assert_eq!(read("HTTPS://Example.COM:443/Hook?a=b"), "https://example.com/Hook?a=b");
        assert_eq!(read("https://b\u{fc}cher.example:8443"), "https://xn--bcher-kva.example:8443/");
        assert_eq!(read("https://93.184.216.34/x"), "https://93.184.216.34/x");
    }

    #[test]
    fn development_reaches_what_it_lists_and_nothing_beside_it() {
        for listed in ["http://127.0.0.1:4000/", "https://2130706433/", "http://[::ffff:127.0.0.1]:4000/", "http://localhost:4000/"] {
            assert!(rules(false).read(listed).is_ok(), "{listed}");
        }
        for other in ["http://127.0.0.2:4000/", "http://[::1]:4000/", "http://10.0.0.1/", "http://127.0.0.1:6379/"] {
            assert!(rules(false).read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn headers_of_ours_and_of_the_connection_and_line_breaks_are_refused_by_name() {
        let one = |name: &str, value: &str| headers(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        for (name, value) in [
            ("Host", "x"),
            ("content-type", "x"),
            ("Content-Length", "1"),
            ("Webhook-Signature", "x"),
            ("zaguan-replay", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Authorization", "x"),
            ("Connection", "x-a"),
            ("x a", "x"),
            ("x\r\nb", "x"),
            ("", "x"),
            ("x-a", "a\r\nb: c"),
            ("x-a", "a\nb"),
            ("x-a", "a\0"),
            ("x-a", " a"),
            ("x-a", "\u{e9}\u{1b}"),
        ] {
            let why = one(name, value).unwrap_err();
            assert!(why.named_field().unwrap().starts_with("headers.") && !why.named_field().unwrap().contains(['\r', '\n']), "{name}");
        }
        assert_eq!(one("X-Api-Key", "k").unwrap(), BTreeMap::from([("x-api-key".to_owned(), "k".to_owned())]));
        assert_eq!(one("Authorization", "Bearer a").unwrap().len(), 1);
        assert!(one("x-a", &"a".repeat(1025)).is_err() && one(&"a".repeat(65), "a").is_err());
        let pair = |a: &str, b: &str| BTreeMap::from([(a.to_owned(), String::new()), (b.to_owned(), String::new())]);
        assert!(headers(pair("X-A", "x-a")).is_err());
        assert!(headers((0..21).map(|n| (format!("x-{n}"), String::new())).collect()).is_err());
    }
}
