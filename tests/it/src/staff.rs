//! People join by invitation, change and lose their passwords, and are let out; a tenant keeps an ADMIN.

use std::time::Duration;

use harness::{Stack, people::link_token, until};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Longer than any process may go on believing what it knew of a user.
const WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_invitation_is_accepted_once_and_a_collision_shows_to_the_invitee_only() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let stranger = ana.client.stranger();
    let accept = |token: String, password: &'static str| {
        let stranger = stranger.clone();
        async move { stranger.post("/api/auth/invitations/accept", json!({"token": token, "password": password})).await }
    };

    let (user, token) = ana.invite("Nuevo@x.example", "EMPLEADO").await;
    let id = user["id"].as_str().unwrap();
    assert_eq!(user["state"], "invited");
    assert!(user["invitation"]["url"].as_str().unwrap().starts_with(&stack.api.url()));
    assert_eq!(stranger.try_login("nuevo@x.example", "").await.status, StatusCode::UNAUTHORIZED);

    let short = accept(token.clone(), "short").await;
    assert_eq!((short.status.as_u16(), &short.body["field"]), (422, &json!("password")));
    let tokens = accept(token.clone(), "long enough").await.ok();
    let me = stranger.with_token(tokens["accessToken"].as_str().unwrap()).get("/api/me").await.ok();
    assert_eq!((&me["id"], &me["rol"], &me["email"]), (&json!(id), &json!("EMPLEADO"), &json!("Nuevo@x.example")));
    assert_eq!(accept(token, "another one").await.body["code"], "invalid_link");
    assert!(stranger.try_login("NUEVO@X.EXAMPLE", "long enough").await.status.is_success());

    // The other tenant learns nothing when it invites; the invitee does.
    let again = ana.client.post("/api/users", json!({"email": "nuevo@x.example", "name": "N", "rol": "ADMIN"})).await;
    assert_eq!(again.body["code"], "email_taken");
    let (other, token) = bea.invite("nuevo@x.example", "ADMIN").await;
    assert_eq!(other["state"], "invited");
    assert_eq!(accept(token, "long enough").await.body["code"], "email_taken");

    // A newer link voids the older one.
    let (user, old) = bea.invite("second@x.example", "ADMIN").await;
    let link = bea.client.post(&format!("/api/users/{}/invitation", user["id"].as_str().unwrap()), json!({})).await.ok();
    assert_eq!(accept(old, "long enough").await.body["code"], "invalid_link");
    assert!(accept(link_token(&link), "long enough").await.status.is_success());
    let path = format!("/api/users/{}/invitation", user["id"].as_str().unwrap());
    assert_eq!(bea.client.post(&path, json!({})).await.body["code"], "user_state");
    assert_eq!(ana.client.post(&path, json!({})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn disabling_and_a_change_of_role_end_every_login_within_a_second_and_the_last_admin_stays() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("EMPLEADO").await;
    let path = format!("/api/users/{}", person.id);
    let ended = |client: harness::client::ApiClient| async move {
        until("the token to be refused", WITHIN, || async {
            (client.get("/api/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    };

    assert_eq!(ana.client.patch(&path, json!({"rol": "ADMIN"})).await.ok()["rol"], "ADMIN");
    ended(person.client.clone()).await;
    let tokens = ana.client.try_login(&person.email, &person.password).await.ok();
    let admin = ana.client.with_token(tokens["accessToken"].as_str().unwrap());
    assert_eq!(admin.get("/api/users").await.ok()["items"].as_array().unwrap().len(), 2);

    assert_eq!(ana.client.patch(&path, json!({"state": "disabled"})).await.ok()["state"], "disabled");
    ended(admin).await;
    assert_eq!(ana.client.try_login(&person.email, &person.password).await.body["code"], "invalid_credentials");
    let refresh = json!({"refreshToken": tokens["refreshToken"]});
    assert_eq!(ana.client.post("/api/auth/refresh", refresh.clone()).await.body["code"], "invalid_refresh_token");
    assert_eq!(ana.client.patch(&path, json!({"state": "active"})).await.ok()["state"], "active");
    assert_eq!(ana.client.post("/api/auth/refresh", refresh).await.body["code"], "invalid_refresh_token", "what was void stays void");
    assert!(ana.client.try_login(&person.email, &person.password).await.status.is_success());

    // Two ADMINs that take the right from one another at once: one of them stays.
    let me = ana.client.get("/api/me").await.ok()["id"].as_str().unwrap().to_owned();
    let demote = |id: &str| {
        let (client, path) = (ana.client.clone(), format!("/api/users/{id}"));
        async move { client.patch(&path, json!({"rol": "EMPLEADO"})).await }
    };
    let (one, other) = tokio::join!(demote(&me), demote(&person.id));
    let codes = [&one, &other].map(|a| (a.status.as_u16(), a.body["code"].as_str().unwrap_or("done").to_owned()));
    assert!(codes.iter().any(|(_, code)| code == "done"), "{codes:?}");
    assert!(codes.iter().any(|(_, code)| code != "done"), "both went: {codes:?}");
}

#[tokio::test]
async fn a_lone_admin_can_neither_be_demoted_nor_disabled_and_a_patch_changes_what_it_names() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let me = format!("/api/users/{}", ana.client.get("/api/me").await.ok()["id"].as_str().unwrap());
    for patch in [json!({"rol": "EMPLEADO"}), json!({"state": "disabled"}), json!({"rol": "EMPLEADO", "name": "x"})] {
        let answer = ana.client.patch(&me, patch.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (409, &json!("last_admin")), "{patch}");
    }
    ana.invite("second@x.example", "ADMIN").await;
    assert_eq!(ana.client.patch(&me, json!({"rol": "EMPLEADO"})).await.body["code"], "last_admin", "who has only been invited is none yet");

    let changed = ana.client.patch(&me, json!({"name": "Ana María"})).await.ok();
    assert_eq!((&changed["name"], &changed["rol"], &changed["state"]), (&json!("Ana María"), &json!("ADMIN"), &json!("active")));
    for (patch, field) in [
        (json!({"name": null}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"rol": "ROOT"}), "rol"),
        (json!({"adminId": "ten_00000000000000000000000000"}), "adminId"),
        (json!({"canStartChats": 1}), "canStartChats"),
    ] {
        let answer = ana.client.patch(&me, patch.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.body["field"]), (422, &json!(field)), "{patch}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_set_anew_by_who_was_given_a_link() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("EMPLEADO").await;
    let change = |current: &str, new: &str| {
        let (client, body) = (person.client.clone(), json!({"currentPassword": current, "newPassword": new}));
        async move { client.post("/api/auth/password", body).await }
    };
    let wrong = change("not it", "something new").await;
    assert_eq!((wrong.status.as_u16(), &wrong.body["field"]), (401, &json!("currentPassword")));
    assert_eq!(change(&person.password, "short").await.body["field"], "newPassword");
    let tokens = change(&person.password, "something new").await.ok();
    let fresh = person.client.with_token(tokens["accessToken"].as_str().unwrap());
    assert!(fresh.get("/api/me").await.status.is_success());
    until("the old token to be refused", WITHIN, || async {
        (person.client.get("/api/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;

    let stranger = ana.client.stranger();
    for email in [person.email.as_str(), "nobody@x.example"] {
        let forgot = stranger.post("/api/auth/password/forgot", json!({"email": email})).await;
        assert_eq!((forgot.status, &forgot.body), (StatusCode::ACCEPTED, &Value::Null));
    }
    let seen = ana.client.get(&format!("/api/users/{}", person.id)).await.ok();
    assert!(seen["passwordResetRequestedAt"].is_string(), "its ADMINs see that it asks");
    let rows = ana.client.get("/api/audit?action=password.forgotten").await.ok();
    assert_eq!(rows["items"].as_array().unwrap().len(), 1);
    let link = ana.client.post(&format!("/api/users/{}/password-reset", person.id), json!({})).await.ok();
    let token = link_token(&link);
    let as_invitation = json!({"token": token, "password": "a third one"});
    assert_eq!(stranger.post("/api/auth/invitations/accept", as_invitation.clone()).await.body["code"], "invalid_link");
    assert_eq!(stranger.post("/api/auth/password/reset", as_invitation.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(stranger.post("/api/auth/password/reset", as_invitation).await.body["code"], "invalid_link");
    assert_eq!(stranger.try_login(&person.email, "something new").await.status, StatusCode::UNAUTHORIZED);
    assert!(stranger.try_login(&person.email, "a third one").await.status.is_success());
    let page = reqwest::get(link["url"].as_str().unwrap()).await.unwrap();
    assert!(page.status().is_success() && page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'sha256-"));

    // Whose only ADMIN has forgotten its password asks the operator.
    let link = stack.api.reset_password("admin@ana.example").unwrap();
    let body = json!({"token": link_token(&link), "password": "the admin's new one"});
    assert_eq!(stranger.post("/api/auth/password/reset", body).await.status, StatusCode::NO_CONTENT);
    assert!(stranger.try_login("admin@ana.example", "the admin's new one").await.status.is_success());
    assert!(stack.api.reset_password("nobody@x.example").is_err());
    until("the login of before to be refused", WITHIN, || async {
        (fresh.get("/api/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_administrative_act_leaves_a_row_that_nothing_changes_and_that_holds_no_message_text() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat("5511888880000").await;
    let person = ana.person("EMPLEADO").await;
    let grant = ana.grant(&person.id, &chat, "read").await;
    ana.client.delete(&format!("/api/users/{}/grants/{grant}", person.id)).await.ok();
    ana.client.patch(&format!("/api/users/{}", person.id), json!({"name": "Otra"})).await.ok();
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    let second = ana.client.post("/api/sessions", json!({"name": "second"})).await.ok();
    let key = ana.key(json!({"scopes": ["audit:read"]})).await;
    for _ in 0..3 {
        ana.client.try_login(&person.email, "wrong password").await;
    }
    let rows = key.client.get("/api/audit").await.ok();
    let actions: Vec<&str> = rows["items"].as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    let controlled = "session.controlled";
    let expected = [
        "login.failed",
        "key.created",
        controlled,
        controlled,
        "user.changed",
        "grant.deleted",
        "grant.created",
        "user.joined",
        "user.invited",
    ];
    assert_eq!(actions, expected);
    let by = ana.client.get("/api/me").await.ok()["id"].clone();
    assert_eq!((&rows["items"][2]["target"], &rows["items"][2]["detail"]["operation"]), (&second["id"], &json!("createSession")));
    assert_eq!((&rows["items"][3]["target"], &rows["items"][3]["detail"]["operation"]), (&json!("default"), &json!("stop")));
    assert_eq!(rows["items"][6]["actor"], by);
    assert_eq!(rows["items"][6]["target"], json!(grant));
    assert!(!rows.to_string().contains("to 5511888880000"), "no message text");
    let only = ana.client.get(&format!("/api/audit?target={grant}&limit=1")).await.ok();
    assert_eq!(only["items"][0]["action"], "grant.deleted");
    assert!(only["next"].is_string());

    assert!(stack.sql("update audit set action = 'nothing'").await.is_err(), "rows are never changed");
    ana.client.delete(&format!("/api/keys/{}", key.id)).await.ok();
    assert_eq!(ana.client.get("/api/audit?action=key.revoked").await.ok()["items"].as_array().unwrap().len(), 1);
}
