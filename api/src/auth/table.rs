//! `docs/authorization.md`: what the OpenAPI document declares, as a table.

use std::fmt::Write;

use utoipa::openapi::OpenApi;

use super::rule::{ChatNeed, KeyNeed, Rule};
use crate::openapi::NAMED;

const HEAD: &str = "# Who may do what

Written by `make openapi` from the declarations that are enforced (`x-roles`, `x-scope`, `x-chat` in `api/openapi.json`); do not edit.
A test calls every operation below as everybody below.

- **Roles**: whose access token, or whose key's maker, may call. *everybody* needs no credential. Others get 403 `role_forbidden`.
- **Key**: the scope that an API key needs, else 403 `scope_missing`. *any*: any key. *no key*: people only.
- **Chat**: what an EMPLEADO, or a key with lists, needs in the chats it touches: a grant to *read* or to *write*. Without one the chat is not
  there: 404, or missing from the list; with one that allows reading only, writing is 403 `role_forbidden`. *start*: as *write*, and who has
  `canStartChats` also reaches people whose chats were not granted to it.
- What belongs to another tenant is not there: 404.
- The operations of a session have a twin below `/api/sessions/{session}`, with the same rights.

| operation | roles | key | chat |
|---|---|---|---|
";

/// The page.
pub fn table(document: &OpenApi) -> String {
    let mut page = HEAD.to_owned();
    for (path, item) in &document.paths.paths {
        let twin = path
            .strip_prefix(NAMED)
            .is_some_and(|rest| ["/api/whatsapp", "/api"].iter().any(|short| document.paths.paths.contains_key(&format!("{short}{rest}"))));
        if twin {
            continue;
        }
        let methods = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)];
        for (method, operation) in methods {
            let Some(rule) = operation.as_ref().and_then(Rule::of) else { continue };
            let chat = match rule.chat {
                ChatNeed::None => "",
                ChatNeed::Read => "read",
                ChatNeed::Write => "write",
                ChatNeed::Start => "start",
            };
            let key = match rule.key {
                _ if rule.is_public() => String::new(),
                KeyNeed::None => "any".to_owned(),
                KeyNeed::Person => "no key".to_owned(),
                KeyNeed::Scope(scope) => scope.as_str().to_owned(),
                KeyNeed::OwnOr(scope) => format!("{}; its own without", scope.as_str()),
            };
            // A String takes whatever is written to it.
            let _ = writeln!(page, "| `{method} {path}` | {} | {key} | {chat} |", rule.roles());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_operation_has_a_line_or_a_twin_with_the_same_rights() {
        let document = crate::document();
        let page = super::table(&document);
        let rules = crate::auth::Rules::of(&document);
        for path in document.paths.paths.keys() {
            if let Some(rest) = path.strip_prefix(super::NAMED).filter(|_| !page.contains(&format!(" {path}`"))) {
                let twin = ["/api/whatsapp", "/api"].map(|short| format!("{short}{rest}"));
                assert!(twin.iter().any(|t| page.contains(&format!(" {t}`")) && rules.same(t, path)), "{path}");
            }
        }
        let committed = include_str!("../../../docs/authorization.md");
        assert!(page == committed, "docs/authorization.md is out of date: make openapi");
    }
}
