//! Everybody calls everything: the answer is what the operation declares. A new operation is walked by itself; where it needs a body or a
//! path that nobody here knows, the walk fails and says so.

use std::collections::BTreeMap;

use contract::Scope;
use harness::{Stack, Tenant, client::ApiClient};
use reqwest::Method;
use serde_json::{Value, json};

use crate::PEER;

/// An operation as the served document declares it.
struct Operation {
    id: String,
    method: Method,
    path: String,
    roles: Vec<String>,
    scope: String,
    chat: String,
    needs_body: bool,
}

impl Operation {
    fn all(document: &Value) -> Vec<Self> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().expect("as the document and the answers are formed") {
            for (method, operation) in item.as_object().expect("as the document and the answers are formed") {
                let roles = operation["x-roles"]
                    .as_array()
                    .expect("as the document and the answers are formed")
                    .iter()
                    .map(|r| r.as_str().expect("as the document and the answers are formed").to_owned());
                all.push(Self {
                    id: operation["operationId"].as_str().expect("as the document and the answers are formed").to_owned(),
                    method: method.to_uppercase().parse().expect("as the document and the answers are formed"),
                    path: path.clone(),
                    roles: roles.collect(),
                    scope: operation["x-scope"].as_str().expect("as the document and the answers are formed").to_owned(),
                    chat: operation["x-chat"].as_str().expect("as the document and the answers are formed").to_owned(),
                    needs_body: operation["requestBody"]["required"] == true,
                });
            }
        }
        // What takes things away comes last.
        all.sort_by_key(|o| (o.method == Method::DELETE, o.method != Method::GET, o.path.clone()));
        all
    }

    /// The name of the operation that both mounts share.
    fn name(&self) -> String {
        let rest = self.path.strip_prefix("/api/sessions/{session}/").and(self.id.strip_prefix("session"));
        rest.map_or_else(|| self.id.clone(), |rest| format!("{}{}", rest[..1].to_lowercase(), &rest[1..]))
    }

    /// Whether it names something of the tenant, in its path or body.
    fn names_something(&self) -> bool {
        self.path.contains('{') || self.names_a_chat()
    }

    /// Whether it names a chat, or what hangs on one.
    fn names_a_chat(&self) -> bool {
        self.chat != "none" && (self.path.contains("{chat}") || self.path.contains("{id}") || self.body_names_a_chat())
    }

    /// Whether it is of one session, or of a picture of its page.
    fn is_of_one_session(&self) -> bool {
        ["/api/whatsapp/", "/api/sessions/{session}", "/api/media/"].iter().any(|start| self.path.starts_with(start))
    }

    fn body_names_a_chat(&self) -> bool {
        self.name() == "send"
    }
}

/// Who calls, and what is to be expected of it.
struct Persona {
    name: String,
    client: ApiClient,
    rol: &'static str,
    /// A key's; none: a person.
    scopes: Option<Vec<&'static str>>,
    sees: Sees,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    Everything,
    Granted {
        write: bool,
    },
    /// Reads the chat by a grant to a key, which administers nothing.
    GrantedToKey,
    /// Everything of the default session, by a key with a list: it administers that session, and nothing of the tenant.
    Session,
    /// Other chats than the one that is asked for.
    Elsewhere,
    OtherTenant,
    /// Has no credential.
    Nobody,
}

/// What a call is to come to.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Refused(&'static str),
    /// Served, or refused for what is asked and not for who asks. `blind`: nothing of the chat or tenant is shown.
    Passes {
        blind: bool,
    },
}

/// What only a linked account or a host makes: who may see it is told that it is not there.
const ABSENT: [&str; 2] = ["getMedia", "getContact"];
/// What never ends by itself where it is served.
const ENDLESS: [&str; 1] = ["streamEvents"];

impl Persona {
    fn expects(&self, operation: &Operation) -> Expected {
        use Expected::{Passes, Refused};
        if self.sees == Sees::Nobody {
            return Refused("unauthenticated");
        }
        if !operation.roles.iter().any(|r| r == self.rol) {
            return Refused("role_forbidden");
        }
        if let Some(scopes) = &self.scopes
            && operation.scope != "none"
            // What only its maker may see without the scope was not made by any of these.
            && !scopes.contains(&operation.scope.trim_end_matches(" or own"))
        {
            return Refused("scope_missing");
        }
        // What is of a chat asks for the chat, whoever's it is to do.
        let admin_only = operation.roles == ["ADMIN"] && operation.chat == "none";
        match self.sees {
            Sees::OtherTenant if operation.names_something() => Refused("not_found"),
            Sees::OtherTenant => Passes { blind: true },
            // Only sessions that are not in its list can be deleted.
            Sees::Session if operation.name() == "deleteSession" => Refused("not_found"),
            Sees::Session if admin_only && !operation.is_of_one_session() => Refused("role_forbidden"),
            Sees::Session if operation.name() == "cancelJob" => Refused("role_forbidden"),
            Sees::Session => Passes { blind: false },
            // A key that is limited to chats administers nothing.
            Sees::Elsewhere | Sees::GrantedToKey if admin_only => Refused("role_forbidden"),
            Sees::Elsewhere if operation.names_a_chat() => Refused("not_found"),
            Sees::Elsewhere => Passes { blind: operation.chat != "none" },
            // The job is an ADMIN's.
            Sees::Granted { .. } | Sees::GrantedToKey if operation.name() == "cancelJob" => Refused("role_forbidden"),
            Sees::Granted { write: false } | Sees::GrantedToKey
                if operation.names_a_chat() && ["write", "start"].contains(&operation.chat.as_str()) =>
            {
                Refused("role_forbidden")
            }
            Sees::Granted { .. } | Sees::GrantedToKey | Sees::Everything | Sees::Nobody => Passes { blind: false },
        }
    }
}

/// What there is to be asked for.
struct World {
    ana: Tenant,
    chat: String,
    job: String,
    message: String,
    user: String,
    user_grant: String,
    key: String,
    key_grant: String,
    webhook: String,
    delivery: String,
    export: String,
    db: sqlx::PgPool,
}

impl World {
    async fn new(stack: &Stack) -> Self {
        let ana = stack.tenant("ana").await;
        let (chat, job) = ana.chat(PEER).await;
        stack.sql("update chat set last_message_at = clock_timestamp()").await.expect("as the document and the answers are formed");
        let messages = ana.client.get(&format!("/api/chats/{chat}/messages")).await.ok();
        let user = ana.person("EMPLEADO").await.id;
        let user_grant = ana.grant(&user, &chat, "read").await;
        let key = ana.key(json!({"scopes": ["export"], "chats": []})).await.id;
        let key_grant = ana.grant(&key, &chat, "read").await;
        let message = messages["items"][0]["id"].as_str().expect("as the document and the answers are formed").to_owned();
        let hook = json!({"name": "walked", "url": "https://hooks.example.com/in"});
        let webhook = ana.client.post("/api/webhooks", hook).await.ok()["id"].as_str().expect("it has an id").to_owned();
        let delivery = contract::DeliveryId::new();
        stack.postgres.sql(&format!(
            "insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state)
             select '{}', tenant, id, gen_random_uuid(), 1, 'message', 'live', 'dead' from webhook",
            delivery.uuid()
        ));
        let (delivery, export, db) = (delivery.to_string(), contract::ExportId::new().to_string(), stack.db().await);
        let world = Self { ana, chat, job, message, user, user_grant, key, key_grant, webhook, delivery, export, db };
        world.export().await;
        world
    }

    /// Makes the chat's export where it is not there. Its file is not.
    async fn export(&self) {
        let export = self.export.parse::<contract::ExportId>().expect("an id").uuid();
        let chat = self.chat.parse::<contract::ChatId>().expect("an id").uuid();
        let statement = format!(
            "insert into export (id, tenant, session, chat, job, created_by, object, key, size, sha256, messages, snapshot_at, expires_at)
             select '{export}', tenant, session, id, gen_random_uuid(), tenant, gen_random_uuid(), '', 0, '', 0, now(), now() + interval '1 day'
               from chat where id = '{chat}' on conflict do nothing"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.db).await.expect("the statement is right");
    }

    /// A whole path for an operation; `None`: it has a part that nobody here knows.
    async fn path(&self, operation: &Operation) -> Option<String> {
        let media = "med_00000000000000000000000000".to_owned();
        let id = match &operation.path {
            path if path.contains("/jobs/") => &self.job,
            path if path.contains("/media/") => &media,
            path if path.contains("/exports/") => {
                self.export().await;
                &self.export
            }
            _ => &self.message,
        };
        let grant = if operation.path.contains("/users/") { &self.user_grant } else { &self.key_grant };
        // What is deleted with all that is in it is a session made for the call, or left over from one that was refused.
        let session = match operation.name().as_str() {
            "deleteSession" => {
                let there = self.ana.client.get("/api/sessions").await.ok();
                let spare = |s: &&Value| s["name"].as_str().is_some_and(|name| name.starts_with("s-"));
                match there["items"].as_array()?.iter().find(spare) {
                    Some(left) => left["id"].as_str()?.to_owned(),
                    None => {
                        let name = format!("s-{}", harness::random_word(4));
                        self.ana.client.post("/api/sessions", json!({"name": name})).await.ok()["id"].as_str()?.to_owned()
                    }
                }
            }
            _ => self.ana.session.clone(),
        };
        let webhook = match operation.name().as_str() {
            "deleteWebhook" => {
                let there = self.ana.client.get("/api/webhooks").await.ok();
                match there["items"].as_array()?.iter().find(|w| w["name"] == "spare") {
                    Some(left) => left["id"].as_str()?.to_owned(),
                    None => {
                        let spare = json!({"name": "spare", "url": "https://hooks.example.com/in"});
                        self.ana.client.post("/api/webhooks", spare).await.ok()["id"].as_str()?.to_owned()
                    }
                }
            }
            _ => self.webhook.clone(),
        };
        let mut path = operation.path.clone();
        let peer = PEER.to_owned();
        let parts = [
            ("chat", &self.chat),
            ("id", id),
            ("user", &self.user),
            ("key", &self.key),
            ("grant", grant),
            ("session", &session),
            ("contact", &peer),
            ("webhook", &webhook),
            ("delivery", &self.delivery),
        ];
        for (name, value) in parts {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        (!path.contains('{')).then_some(path)
    }

    /// A body that is in order.
    fn body(&self, operation: &Operation) -> Option<Value> {
        let send = json!({"type": "text", "text": "walked", "whenUnavailable": "queue"});
        let body = match operation.name().as_str() {
            "sendToChat" => send,
            "send" => {
                let mut send = send;
                send["to"] = json!(self.chat);
                send
            }
            "markRead" => json!({"whenUnavailable": "queue"}),
            "createSession" => json!({"name": format!("s-{}", harness::random_word(4))}),
            "changeSession" => json!({}),
            "pairingCode" => json!({"phone": crate::OURS}),
            "changePassword" => json!({"currentPassword": "not the password", "newPassword": "another password"}),
            "inviteUser" => json!({"email": format!("{}@walk.example", harness::random_word(6)), "name": "W", "rol": "EMPLEADO"}),
            "changeUser" => json!({"name": "Walked"}),
            "grantToUser" | "grantToKey" => json!({"session": "default", "chat": "5511222220000", "access": "read"}),
            "createWebhook" => json!({"name": "walked", "url": "https://hooks.example.com/in"}),
            "changeWebhook" => json!({"name": "walked"}),
            "replayWebhook" => json!({"seq": 1}),
            "eraseContact" => json!({"contact": "5511333330000"}),
            "changeRetention" => json!({}),
            "createKey" => json!({"name": "walked", "scopes": ["media"]}),
            _ => return None,
        };
        Some(body)
    }

    async fn personas(&self, stack: &Stack) -> Vec<Persona> {
        let (ana, bea) = (&self.ana, stack.tenant("bea").await);
        let person =
            |name: &str, client: &ApiClient, rol, sees| Persona { name: name.to_owned(), client: client.clone(), rol, scopes: None, sees };
        let (write, read, none) = (ana.person("EMPLEADO").await, ana.person("EMPLEADO").await, ana.person("EMPLEADO").await);
        ana.grant(&write.id, &self.chat, "write").await;
        ana.grant(&read.id, &self.chat, "read").await;
        let (elsewhere, _) = ana.chat("5511777770000").await;
        ana.grant(&none.id, &elsewhere, "write").await;
        let everywhere = ana.person("EMPLEADO").await;
        let all_chats = json!({"session": "default", "all": true, "access": "write"});
        ana.client.post(&format!("/api/users/{}/grants", everywhere.id), all_chats).await.ok();
        let mut all = vec![
            person("EMPLEADO of all chats", &everywhere.client, "EMPLEADO", Sees::Granted { write: true }),
            person("ADMIN", &ana.client, "ADMIN", Sees::Everything),
            person("EMPLEADO who writes", &write.client, "EMPLEADO", Sees::Granted { write: true }),
            person("EMPLEADO who reads", &read.client, "EMPLEADO", Sees::Granted { write: false }),
            person("EMPLEADO of another chat", &none.client, "EMPLEADO", Sees::Elsewhere),
            person("another tenant's ADMIN", &bea.client, "ADMIN", Sees::OtherTenant),
            person("another tenant's EMPLEADO", &bea.person("EMPLEADO").await.client, "EMPLEADO", Sees::OtherTenant),
            person("nobody", &ana.client.stranger(), "", Sees::Nobody),
        ];
        let mut key = async |name: String, of: &Tenant, scopes: Vec<&'static str>, chats: Option<&str>, sees| {
            let mut body = json!({"scopes": scopes});
            if let Some(chat) = chats {
                body["chats"] = json!([chat]);
            }
            all.push(Persona { name, client: of.key(body).await.client, rol: "ADMIN", scopes: Some(scopes), sees });
        };
        let every: Vec<&str> = Scope::ALL.iter().map(|s| s.as_str()).collect();
        for scope in every.clone() {
            key(format!("a key for {scope}"), ana, vec![scope], None, Sees::Everything).await;
        }
        key("a key for all of another chat".into(), ana, every.clone(), Some(&elsewhere), Sees::Elsewhere).await;
        let demoted = ana.person("ADMIN").await;
        let of_demoted = demoted.client.post("/api/keys", json!({"name": "m", "scopes": every})).await.ok();
        ana.client.patch(&format!("/api/users/{}", demoted.id), json!({"rol": "EMPLEADO"})).await.ok();
        ana.grant(&demoted.id, &self.chat, "write").await;
        let reads = ana.key(json!({"scopes": every, "chats": []})).await;
        ana.grant(&reads.id, &self.chat, "read").await;
        let listed = ana.key(json!({"scopes": every, "sessions": ["default"]})).await;
        let machine =
            |name: &str, client: ApiClient, rol, sees| Persona { name: name.into(), client, rol, scopes: Some(every.clone()), sees };
        let secret = of_demoted["secret"].as_str().expect("it is shown once");
        let more = [
            machine("an EMPLEADO's key", ana.client.with_token(secret), "EMPLEADO", Sees::Granted { write: true }),
            machine("a key that reads the chat", reads.client, "ADMIN", Sees::GrantedToKey),
            machine("a key for the session", listed.client, "ADMIN", Sees::Session),
        ];
        key("another tenant's key".into(), &bea, every.clone(), None, Sees::OtherTenant).await;
        all.extend(more);
        all
    }

    /// Whether an answer shows what only those may see who see the chat, or the tenant.
    fn is_shown_in(&self, body: &Value, sees: Sees) -> bool {
        let text = body.to_string();
        let of_the_chat = text.contains(&self.chat) || text.contains(&self.job) || text.contains(&self.message);
        of_the_chat || sees == Sees::OtherTenant && (text.contains(&self.ana.id) || text.contains(&self.ana.session))
    }
}

#[tokio::test]
async fn everybody_may_call_exactly_what_the_document_declares() {
    let stack = Stack::start().await;
    let world = World::new(&stack).await;
    let personas = world.personas(&stack).await;
    let document = world.ana.client.get("/openapi.json").await.ok();
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    let mut calls = 0;
    for operation in Operation::all(&document) {
        let label = format!("{} {}", operation.method, operation.path);
        if operation.roles.is_empty() {
            // Whoever holds a link shows that instead of a token.
            let by_link = operation.path.starts_with("/api/link") || operation.name() == "logout";
            let answer = world.ana.client.stranger().ask(operation.method.clone(), &operation.path, &[], Some(json!({}))).await;
            let code = answer.body["code"].as_str().unwrap_or_default();
            let refused = ["role_forbidden", "scope_missing", "internal", "method_not_allowed"].contains(&code);
            if refused || (code == "unauthenticated") != by_link {
                wrong.insert(format!("{label} as anybody"), format!("{} {code}", answer.status));
            }
            continue;
        }
        let body = world.body(&operation);
        let sample = world.path(&operation).await;
        if sample.is_none() || body.is_none() && operation.needs_body {
            wrong.insert(label, "nobody here knows a path or body for it: teach World::path and World::body".into());
            continue;
        }
        // Refusals first: who is served may change what the others would find.
        let mut order: Vec<(&Persona, Expected)> = personas.iter().map(|p| (p, p.expects(&operation))).collect();
        order.sort_by_key(|(_, expected)| matches!(expected, Expected::Passes { .. }));
        for (persona, expected) in order {
            let path = world.path(&operation).await.expect("as the document and the answers are formed");
            if matches!(expected, Expected::Passes { .. }) && ENDLESS.contains(&operation.name().as_str()) {
                continue;
            }
            let answer = persona.client.ask(operation.method.clone(), &path, &[("prefer", "wait=0")], body.clone()).await;
            let code = answer.body["code"].as_str().unwrap_or_default();
            let refusals = ["unauthenticated", "role_forbidden", "scope_missing", "not_found", "internal", "method_not_allowed"];
            let right = match expected {
                Expected::Refused(why) => code == why,
                Expected::Passes { .. } if ABSENT.contains(&operation.name().as_str()) && code == "not_found" => true,
                Expected::Passes { blind } => !(refusals.contains(&code) || blind && world.is_shown_in(&answer.body, persona.sees)),
            };
            if !right {
                wrong.insert(format!("{label} as {}", persona.name), format!("{} {code}, expected {expected:?}", answer.status));
            }
            calls += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(calls > 800, "{calls} calls are not everybody and everything");
}
