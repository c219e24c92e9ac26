//! People and machines of a company, as its ADMIN brings them in.

use std::net::IpAddr;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{Tenant, client::ApiClient};

/// Somebody who accepted an invitation, logged in.
pub struct Person {
    /// The caller.
    pub client: ApiClient,
    /// Its id.
    pub id: String,
    /// Where it logs in.
    pub email: String,
    /// With what.
    pub password: String,
}

/// An API key, in use.
pub struct Machine {
    /// The caller.
    pub client: ApiClient,
    /// Its id.
    pub id: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The token of a one-time link.
pub fn link_token(link: &Value) -> String {
    text(&link["url"]).rsplit('#').next().unwrap_or_default().to_owned()
}

impl Tenant {
    /// Invites somebody; answers the user and the invitation's token.
    pub async fn invite(&self, email: &str, rol: &str) -> (Value, String) {
        let invited = self.client.post("/api/users", json!({"email": email, "name": "New", "rol": rol})).await.ok();
        let token = link_token(&invited["invitation"]);
        (invited, token)
    }

    /// Somebody new of this role, who has accepted its invitation.
    pub async fn person(&self, rol: &str) -> Person {
        let (email, password) = (format!("{}@people.example", crate::random_word(6)), crate::random_word(8));
        let (user, token) = self.invite(&email, rol).await;
        let stranger = self.client.stranger();
        let tokens = stranger.post("/api/auth/invitations/accept", json!({"token": token, "password": password})).await.ok();
        Person { client: stranger.with_token(&text(&tokens["accessToken"])), id: text(&user["id"]), email, password }
    }

    /// Grants a chat of the default session to a user (`usr_…`) or key (`zgk_…`); answers the grant's id.
    pub async fn grant(&self, holder: &str, chat: &str, access: &str) -> String {
        let of = if holder.starts_with("usr_") { "users" } else { "keys" };
        let body = json!({"session": "default", "chat": chat, "access": access});
        text(&self.client.post(&format!("/api/{of}/{holder}/grants"), body).await.ok()["id"])
    }

    /// A key, as `body` says; a name is added.
    pub async fn key(&self, mut body: Value) -> Machine {
        body["name"] = json!("a machine");
        let made = self.client.post("/api/keys", body).await.ok();
        Machine { client: self.client.stranger().with_token(&text(&made["secret"])), id: text(&made["id"]) }
    }

    /// A chat of the default session with a message that was never sent; answers the chat's id and the job's.
    pub async fn chat(&self, phone: &str) -> (String, String) {
        let body = json!({"type": "text", "text": format!("to {phone}"), "whenUnavailable": "queue"});
        let sent = self.client.post(&format!("/api/chats/{phone}/messages"), body).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.body);
        (text(&sent.body["chat"]), text(&sent.body["id"]))
    }
}

impl ApiClient {
    /// The same service, called from another address of this machine (127.0.0.0/8).
    pub fn calling_from(&self, address: IpAddr) -> Self {
        let http = reqwest::Client::builder().local_address(address).build().expect("a client");
        self.with_http(http)
    }
}
