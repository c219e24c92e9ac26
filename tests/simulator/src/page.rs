//! The page: plain scripts, in the order of `page/ORDER`, with what the server knows in front.

use serde_json::json;

/// Which generation of the page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Message keys keep their text in `$1`; only bridge events announce things.
    Current,
    /// Message keys have `_serialized`; `main_loaded` and `logout` exist.
    Legacy,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Legacy => "legacy",
        }
    }
}

/// The revision whose module names the page has (`names.json`).
const VERSION: &str = "2.3000.1044822804";
const NAMES: &str = include_str!("../page/names.json");
include!(concat!(env!("OUT_DIR"), "/scripts.rs"));

/// How a document differs from the ordinary.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// A function that the page only names throws when it is called.
    pub strict: bool,
    /// `hasSynced` flips so long after the page's version is known, at the earliest.
    pub synced_after_ms: u64,
    /// Exports (`Module.name`) that the page lacks.
    pub broken: Vec<String>,
}

/// Facts for the scripts.
fn prelude(profile: Profile, manner: &Manner) -> String {
    let sim = json!({
        "profile": profile.name(), "version": VERSION, "syncedAfterMs": manner.synced_after_ms, "strict": manner.strict,
        "broken": manner.broken,
    });
    format!("window.__SIM={sim};window.__NAMES={NAMES};\n")
}

/// The scripts in `of` parts; the first holds the loader, so that a late part leaves the page half there.
pub fn part(profile: Profile, manner: &Manner, n: usize, of: usize) -> String {
    let cut = |i: usize| if i == 0 { 0 } else { 1 + (SCRIPTS.len() - 1) * i / of };
    let scripts = if n == 0 && of > 1 {
        &SCRIPTS[..1]
    } else if of == 1 {
        SCRIPTS
    } else {
        &SCRIPTS[cut(n).max(1)..cut(n + 1)]
    };
    let scripts = if n == 1 && of > 1 { &SCRIPTS[1..cut(2)] } else { scripts };
    let mut text = if n == 0 { prelude(profile, manner) } else { String::new() };
    for (_, script) in scripts {
        text.push_str(script);
        text.push_str("\n;\n");
    }
    text
}

/// The document. `gap_ms`: the parts arrive so far apart, as over a slow proxy.
pub fn html(parts: usize, gap_ms: u64) -> String {
    let scripts = if parts == 1 {
        "<script src=\"/app.js\"></script>".to_owned()
    } else {
        let load = format!(
            "let n = 0; const next = () => {{ const s = document.createElement('script'); s.src = '/part' + n + '.js'; \
             s.onload = () => {{ if (++n < {parts}) setTimeout(next, {gap_ms}); }}; document.body.appendChild(s); }}; next();"
        );
        format!("<script>{load}</script>")
    };
    format!(
        "<!doctype html><html id=\"whatsapp-web\" lang=\"en\"><head><meta charset=\"utf-8\"><title>WhatsApp Web</title></head>\
         <body><div id=\"app\"></div>{scripts}</body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_hold_every_script_once_and_in_order() {
        let manner = Manner { strict: false, synced_after_ms: 1300, broken: Vec::new() };
        let whole = part(Profile::Current, &manner, 0, 1);
        let parts: String = (0..3).map(|n| part(Profile::Current, &manner, n, 3)).collect();
        assert_eq!(whole, parts);
        assert!(whole.contains("window.__SIM"));
    }
}
