//! Default deny. What an operation declares in the OpenAPI document (`x-roles`, `x-scope`, `x-chat`) is what is enforced: the declarations are
//! read from the document that is served, [`guard`] judges roles and scope before a handler runs, and the extractors of chats ask the same
//! [`Rule`] what they must demand. A route without a declaration has no rule, and without one nobody is a [`super::Caller`].

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contract::{AuditAction, Scope, TenantId};
use http::{Method, header, request::Parts};
use serde_json::json;
use store::{audit::Act, tenants::DEFAULT_SESSION, users::Rol};
use tracing::{Instrument, Span};
use utoipa::openapi::{OpenApi, path::Operation};

use super::Caller;
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// What an operation demands of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNeed {
    /// Nothing: any key will do.
    None,
    /// This scope.
    Scope(Scope),
    /// This scope, but for what the key itself made: the handler looks who did.
    OwnOr(Scope),
    /// No key will do: people, grants and keys are managed by people.
    Person,
}

/// What an operation demands in the chats it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatNeed {
    /// It touches none.
    None,
    /// A grant.
    Read,
    /// A grant that allows writing.
    Write,
    /// The same; and who may start chats reaches a private chat without a grant, and is granted it.
    Start,
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    admin: bool,
    empleado: bool,
    /// What a key needs besides its maker's role.
    pub key: KeyNeed,
    /// What the caller needs in the chats that the operation touches.
    pub chat: ChatNeed,
}

impl Rule {
    /// Reads an operation's declaration. `None`: it has none, or one that says nothing known.
    pub fn of(operation: &Operation) -> Option<Self> {
        let declared = operation.extensions.as_ref()?;
        let roles = declared.get("x-roles")?.as_array()?;
        let has = |rol: Rol| roles.iter().any(|r| r == rol.as_str());
        let (admin, empleado) = (has(Rol::Admin), has(Rol::Empleado));
        if roles.len() != usize::from(admin) + usize::from(empleado) {
            return None;
        }
        let key = match declared.get("x-scope")?.as_str()? {
            "none" => KeyNeed::None,
            "person" => KeyNeed::Person,
            scope => match scope.strip_suffix(" or own") {
                Some(scope) => KeyNeed::OwnOr(Scope::from_name(scope)?),
                None => KeyNeed::Scope(Scope::from_name(scope)?),
            },
        };
        let chat = match declared.get("x-chat")?.as_str()? {
            "none" => ChatNeed::None,
            "read" => ChatNeed::Read,
            "write" => ChatNeed::Write,
            "start" => ChatNeed::Start,
            _ => return None,
        };
        Some(Self { admin, empleado, key, chat })
    }

    /// Whether anybody may call, without a token.
    pub const fn is_public(self) -> bool {
        !self.admin && !self.empleado
    }

    const fn controls_sessions(self) -> bool {
        matches!(self.key, KeyNeed::Scope(Scope::SessionsControl | Scope::SessionsLink))
    }

    /// The roles' names.
    pub const fn roles(self) -> &'static str {
        match (self.admin, self.empleado) {
            (true, true) => "ADMIN, EMPLEADO",
            (true, false) => "ADMIN",
            (false, true) => "EMPLEADO",
            (false, false) => "*everybody*",
        }
    }

    /// Judges who calls. `scopes`: of a key; none: a person.
    ///
    /// # Errors
    /// `role_forbidden`, `scope_missing`.
    pub fn admit(self, rol: Rol, scopes: Option<Scopes>) -> Result<(), Problem> {
        let allowed = match rol {
            Rol::Admin => self.admin,
            Rol::Empleado => self.empleado,
        };
        if !allowed && !self.is_public() {
            return Err(Problem::new(Code::RoleForbidden, "only an ADMIN may do this"));
        }
        match (self.key, scopes) {
            (_, None) | (KeyNeed::None | KeyNeed::OwnOr(_), Some(_)) => Ok(()),
            (KeyNeed::Scope(scope), Some(scopes)) if scopes.has(scope) => Ok(()),
            (KeyNeed::Scope(scope), Some(_)) => {
                Err(Problem::new(Code::ScopeMissing, format!("the key needs the scope {}", scope.as_str())))
            }
            (KeyNeed::Person, Some(_)) => Err(Problem::new(Code::ScopeMissing, "no API key may do this: log in as a person")),
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u32);

impl Scopes {
    const fn bit(scope: Scope) -> u32 {
        1 << scope as u32
    }
    /// Whether it is in.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }
}
impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, scope| set | Self::bit(scope)))
    }
}

/// Every operation's rule and name, by path template and method.
#[derive(Debug, Default)]
pub struct Rules(HashMap<String, HashMap<Method, (Rule, String)>>);

impl Rules {
    /// Reads them from the document.
    pub fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter().map(|(path, item)| {
            let methods = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            let rules = methods.into_iter().filter_map(|(method, operation)| {
                let operation = operation.as_ref()?;
                Some((method, (Rule::of(operation)?, operation.operation_id.clone()?)))
            });
            (path.clone(), rules.collect())
        });
        Self(paths.collect())
    }

    /// The rule of one operation.
    pub fn get(&self, path: &str, method: &Method) -> Option<Rule> {
        self.0.get(path)?.get(method).map(|(rule, _)| *rule)
    }

    /// Whether two paths have the same operations with the same rules.
    #[cfg(test)]
    pub(crate) fn same(&self, one: &str, other: &str) -> bool {
        let rules =
            |path: &str| self.0.get(path).map(|all| all.iter().map(|(method, (rule, _))| (method, rule)).collect::<HashMap<_, _>>());
        rules(one).is_some() && rules(one) == rules(other)
    }

    fn find(&self, request: &Request) -> Option<(Rule, &str)> {
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let (rule, name) = self.0.get(request.extensions().get::<MatchedPath>()?.as_str())?.get(method)?;
        Some((*rule, name))
    }
}

/// Around every documented route: who may not call it gets no further.
pub async fn guard(State((app, rules)): State<(AppState, Arc<Rules>)>, mut request: Request, next: Next) -> Response {
    let Some((rule, operation)) = rules.find(&request) else { return next.run(request).await };
    request.extensions_mut().insert(rule);
    if rule.is_public() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match Caller::from_request_parts(&mut parts, &app).await {
        Ok(caller) => {
            let controls = rule.controls_sessions() && parts.method != Method::GET;
            if !controls {
                return next.run(Request::from_parts(parts, body)).await;
            }
            let (session, operation, task) = (named_in(parts.uri.path()), operation.to_owned(), app.clone());
            let done = surely(&app, async move {
                let response = next.run(Request::from_parts(parts, body)).await;
                if response.status().is_success() {
                    let target = made(&response).unwrap_or(session);
                    let act = Act::new(caller.principal, AuditAction::SessionControlled, target, json!({"operation": operation}));
                    note(&task, caller.tenant, &act).await;
                }
                response
            });
            done.await.unwrap_or_else(IntoResponse::into_response)
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The session that a path names, by its id or name.
fn named_in(path: &str) -> String {
    path.strip_prefix("/api/sessions/").and_then(|rest| rest.split('/').next()).unwrap_or(DEFAULT_SESSION).to_owned()
}

/// The session that an answer says was created.
fn made(response: &Response) -> Option<String> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    location.strip_prefix("/api/sessions/").map(str::to_owned)
}

/// Does it to the end, whether or not its caller waits for it: what is done is noted. It is part of the request all the same, so that on
/// Lambda nothing is left to do behind an answer.
///
/// # Errors
/// `internal` where it panics.
pub async fn surely<T: Send + 'static>(app: &AppState, work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
    app.tasks.spawn(work.instrument(Span::current())).await.map_err(|why| Problem::internal().because(why))
}

/// What is done to sessions is noted around the operations: part of it happens in Redis and in hosts, so that no statement of Postgres does
/// it. (All other acts are written by the statement that does them.)
pub async fn note(app: &AppState, tenant: TenantId, act: &Act) {
    if let Err(why) = store::audit::record(&app.pool, tenant, act).await {
        metrics::counter!("zaguan_audit_failed_total").increment(1);
        tracing::error!(cause = %why, %tenant, detail = %act.detail, "done, and not written into the audit log");
    }
}

/// The rule of the operation that was called. A route that declares none serves nobody's data.
pub(super) fn declared(parts: &Parts) -> Result<Rule, Problem> {
    parts.extensions.get::<Rule>().copied().ok_or_else(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(roles: &[&str], scope: &str, chat: &str) -> Operation {
        let declared = serde_json::json!({"x-roles": roles, "x-scope": scope, "x-chat": chat, "responses": {}});
        serde_json::from_value(declared).unwrap()
    }

    #[test]
    fn an_operation_that_declares_nothing_or_nonsense_has_no_rule() {
        assert!(Rule::of(&operation(&["ADMIN"], "chats:read", "read")).is_some());
        for (roles, scope, chat) in [
            (&["ADMIN", "ROOT"][..], "none", "none"),
            (&["ADMIN"], "chats:everything", "none"),
            (&["ADMIN"], "none", "all"),
            (&["ADMIN", "ADMIN"], "none", "none"),
        ] {
            assert_eq!(Rule::of(&operation(roles, scope, chat)), None, "{roles:?} {scope} {chat}");
        }
        assert_eq!(Rule::of(&serde_json::from_value(serde_json::json!({"responses": {}})).unwrap()), None);
    }

    #[test]
    fn a_key_needs_the_scope_and_its_makers_role_and_a_person_the_role_only() {
        let rule = Rule::of(&operation(&["ADMIN"], "sessions:control", "none")).unwrap();
        let code = |rol, scopes: Option<&[Scope]>| rule.admit(rol, scopes.map(|s| s.iter().copied().collect())).err().map(|p| p.code);
        assert_eq!(code(Rol::Admin, None), None);
        assert_eq!(code(Rol::Empleado, None), Some(Code::RoleForbidden));
        assert_eq!(code(Rol::Admin, Some(&[Scope::SessionsControl])), None);
        assert_eq!(code(Rol::Admin, Some(&[Scope::SessionsRead, Scope::Export])), Some(Code::ScopeMissing));
        assert_eq!(code(Rol::Empleado, Some(&[Scope::SessionsControl])), Some(Code::RoleForbidden));
        let people = Rule::of(&operation(&["ADMIN"], "person", "none")).unwrap();
        assert!(people.admit(Rol::Admin, Some(Scope::ALL.iter().copied().collect())).is_err_and(|p| p.code == Code::ScopeMissing));
    }

    #[test]
    fn a_set_of_scopes_has_what_was_put_in() {
        for scope in Scope::ALL {
            let set = Scopes::from_iter([*scope]);
            assert!(Scope::ALL.iter().all(|other| set.has(*other) == (other == scope)));
        }
    }
}
