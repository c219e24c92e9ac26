//! The page for people.

use std::fmt::Write;

use contract::event::Entry;

const HEAD: &str = "\
# Event types

Written by `zaguan-api events` (`make openapi`) from the types in `jobs/contract/src/event`; do not edit. How to follow the log:
[events.md](events.md). The same as schemas: `Event` in `/openapi.json`, and `/asyncapi.json`, which names every transport.

Each event is an envelope `{id, seq, type, timestamp, tenant, session, chat, data}`, the same on every transport, with the body of its type in
`data`. Fields and types will be added: ignore those that you do not know. A body of `{\"erased\": true}` is what erasure left of it, whatever the
type. A grant counts from the moment it is made and for as long as it stands: what an EMPLEADO sees is judged when it is shown.

";

const NAMES: &str = "
## What others call it

For those who come from another gateway. Where several of ours stand for one of theirs, or the other way round, each is named in its row; what
they emit and we have no event for yet (edits, reactions, revocations, polls, groups, labels, presence, calls) is not in the table.

| Zaguan | WAHA | Evolution API | whatsapp-web.js |
|---|---|---|---|
";

/// `docs/event-types.md`.
pub fn event_types_md() -> String {
    let mut text = format!("{HEAD}| type | in the log | who sees it |\n|---|---|---|\n");
    for entry in Entry::all() {
        let name = entry.kind.as_str();
        let anchor = name.replace('.', "");
        let _ = writeln!(text, "| [`{name}`](#{anchor}) | {} | {} |", yes(entry.kept), entry.audience.about());
    }
    for entry in Entry::all() {
        let _ = write!(text, "\n{}", section(&entry));
    }
    text.push_str(NAMES);
    for entry in Entry::all() {
        let of = entry.elsewhere;
        let cells = [of.waha, of.evolution, of.whatsapp_web_js].map(names);
        let _ = writeln!(text, "| `{}` | {} |", entry.kind.as_str(), cells.join(" | "));
    }
    text
}

fn section(entry: &Entry) -> String {
    let kind = &entry.kind;
    let kept = if entry.kept { "" } else { " It is in no log: `seq` is null, and it cannot be asked for again." };
    let example = serde_json::to_string_pretty(&entry.envelope()).unwrap_or_default();
    format!(
        "## {}\n\n**When.** {}{kept}\n\n**What to do.** {}\n\n**Who sees it.** {}. **Schema.** `{}`\n\n```json\n{example}\n```\n",
        kind.as_str(),
        kind.when(),
        kind.advice(),
        entry.audience.about(),
        super::envelope_name(kind),
    )
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "" }
}

fn names(names: &[&str]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_types_say() {
        assert!(
            include_str!("../../../docs/event-types.md") == event_types_md(),
            "docs/event-types.md is out of date: write it with `make openapi`"
        );
    }
}
