//! An EMPLEADO sees what is granted to it, from the request after the grant to the request before its end.

use std::time::Duration;

use harness::{
    Stack, Tenant,
    client::{Answer, ApiClient},
    people::Person,
    until,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).collect()
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text, "whenUnavailable": "queue"})
}

async fn not_found(client: &ApiClient, path: &str) {
    let answer = client.get(path).await;
    assert_eq!((answer.status.as_u16(), &answer.body["code"]), (404, &json!("not_found")), "{path}");
}

#[tokio::test]
async fn an_empleado_sees_a_chat_its_messages_jobs_and_events_while_it_is_granted_and_not_a_request_longer() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, job) = ana.chat(PEER).await;
    let (other, _) = ana.chat("5511777770000").await;
    stack.sql("update chat set last_message_at = clock_timestamp()").await.unwrap();
    ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
    let person = ana.person("EMPLEADO").await;
    let client = &person.client;

    let paths = [format!("/api/chats/{chat}"), format!("/api/chats/{PEER}/messages"), format!("/api/jobs/{job}")];
    for path in &paths {
        not_found(client, path).await;
    }
    assert!(client.events(0).await.is_empty());
    let grant = ana.grant(&person.id, &chat, "read").await;
    for path in &paths {
        assert_eq!(client.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(ids(&client.get("/api/chats").await.ok()), [&chat]);
    assert_eq!(ids(&client.get("/api/jobs").await.ok()), [&job]);
    let seen: Vec<String> = client.events(0).await.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["job.updated", "grant.created"], "the chat's history and its own grant");
    let refused = client.post(&format!("/api/chats/{chat}/messages"), text("may I?")).await;
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (403, &json!("role_forbidden")));
    not_found(client, &format!("/api/chats/{other}")).await;

    // The newer grant of the same chat takes the place of the older one.
    let newer = ana.grant(&person.id, &chat, "write").await;
    assert_eq!(ids(&ana.client.get(&format!("/api/users/{}/grants", person.id)).await.ok()), [&newer]);
    assert_eq!(ana.client.delete(&format!("/api/users/{}/grants/{grant}", person.id)).await.status, StatusCode::NOT_FOUND);
    let sent = client.post(&format!("/api/chats/{chat}/messages"), text("thanks")).await;
    assert_eq!((sent.status.as_u16(), &sent.body["createdBy"]), (202, &json!(person.id)));

    ana.client.delete(&format!("/api/users/{}/grants/{newer}", person.id)).await.ok();
    for path in &paths {
        not_found(client, path).await;
    }
    not_found(client, &format!("/api/jobs/{}", sent.body["id"].as_str().unwrap())).await;
    assert_eq!(client.get("/api/chats").await.ok()["items"], json!([]));
    let seen: Vec<String> = client.events(0).await.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["grant.created", "grant.created", "grant.deleted"]);
}

#[tokio::test]
async fn a_held_request_of_an_empleado_answers_nothing_of_a_chat_that_was_taken_back_or_after_it_was_disabled() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, job) = ana.chat(PEER).await;
    let person = ana.person("EMPLEADO").await;
    let grant = ana.grant(&person.id, &chat, "write").await;
    let head = ana.client.get("/api/events?after=0&limit=200").await.ok()["next"].as_i64().unwrap();

    let wait = async |after: i64| person.client.get(&format!("/api/events?after={after}&wait=20&types=job.updated,session.status")).await;
    let (answer, ()) = tokio::join!(wait(head), async {
        ana.client.delete(&format!("/api/users/{}/grants/{grant}", person.id)).await.ok();
        ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
        ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    });
    let seen: Vec<&str> = answer.body["items"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(seen, ["session.status"], "the end of a job of a chat that is no longer granted is not shown");

    let (answer, ()) = tokio::join!(wait(answer.body["next"].as_i64().unwrap()), async {
        ana.client.patch(&format!("/api/users/{}", person.id), json!({"state": "disabled"})).await.ok();
        until("its end to be known", Duration::from_secs(2), || async {
            (person.client.get("/api/me").await.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
        ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    });
    assert_eq!((answer.status, &answer.body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
}

#[tokio::test]
async fn history_from_now_hides_what_was_said_before_and_a_grant_ends_by_the_databases_clock() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat(PEER).await;
    stack.sql("update message set sent_at = sent_at - interval '1 hour'").await.unwrap();
    let person = ana.person("EMPLEADO").await;
    let grants = format!("/api/users/{}/grants", person.id);
    let messages = format!("/api/chats/{chat}/messages");
    ana.client.post(&grants, json!({"session": "default", "chat": chat, "access": "write", "history": "fromNow"})).await.ok();
    assert_eq!(person.client.get(&messages).await.ok()["items"], json!([]));
    person.client.post(&messages, text("hello")).await.ok();
    assert_eq!(person.client.get(&messages).await.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(ana.client.get(&messages).await.ok()["items"].as_array().unwrap().len(), 2);

    let body = json!({"session": "default", "chat": chat, "access": "read", "expiresAt": "2001-01-01T00:00:00Z"});
    ana.client.post(&grants, body).await.ok();
    not_found(&person.client, &messages).await;
    assert_eq!(ana.client.get(&format!("/api/chats/{chat}/grants")).await.ok()["items"], json!([]), "what has expired covers nothing");
    let body = json!({"session": "default", "all": true, "access": "write"});
    ana.client.post(&grants, body).await.ok();
    assert_eq!(person.client.get(&messages).await.ok()["items"].as_array().unwrap().len(), 2);
    let new = person.client.post("/api/chats/5511666660000/messages", text("to somebody new")).await;
    assert_eq!(new.status, StatusCode::ACCEPTED, "all chats means those to come too");
    let shown = ana.client.get(&format!("/api/chats/{chat}/grants")).await.ok();
    assert_eq!((shown["items"].as_array().unwrap().len(), &shown["items"][0]["all"]), (1, &json!(true)));
}

#[tokio::test]
async fn who_may_start_chats_reaches_people_without_learning_whether_they_were_known() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    ana.chat(PEER).await;
    stack.sql("update message set sent_at = sent_at - interval '1 hour'").await.unwrap();
    let person = ana.person("EMPLEADO").await;
    let (known, unknown) = (PEER, "5511777770000");
    for to in [known, unknown] {
        assert_eq!(person.client.post(&format!("/api/chats/{to}/messages"), text("hi")).await.status, StatusCode::NOT_FOUND);
    }
    ana.client.patch(&format!("/api/users/{}", person.id), json!({"canStartChats": true})).await.ok();
    until("the right to be known", Duration::from_secs(2), || async {
        (person.client.get("/api/me").await.ok()["canStartChats"] == true).then_some(())
    })
    .await;
    let bad = person.client.post(&format!("/api/chats/{known}/messages"), json!({"type": "text", "text": ""})).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    not_found(&person.client, &format!("/api/chats/{known}")).await;
    assert_eq!(
        person.client.post(&format!("/api/chats/{known}/read"), json!({"whenUnavailable": "queue"})).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(person.client.post("/api/chats/120363041234567890@g.us/messages", text("hi")).await.status, StatusCode::NOT_FOUND);

    let mut answers = Vec::new();
    for to in [known, unknown] {
        let sent = person.client.post("/api/messages", json!({"to": to, "type": "text", "text": "hi", "whenUnavailable": "queue"})).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.body);
        let shown = person.client.get(&format!("/api/chats/{to}/messages")).await.ok();
        assert_eq!(shown["items"].as_array().unwrap().len(), 1, "its own message and none of before");
        let mut shape: Vec<String> = sent.body.as_object().unwrap().keys().cloned().collect();
        shape.sort();
        answers.push(shape);
    }
    assert_eq!(answers[0], answers[1]);
    let grants = ana.client.get(&format!("/api/users/{}/grants", person.id)).await.ok();
    let shown: Vec<_> = grants["items"].as_array().unwrap().iter().map(|g| (g["access"].clone(), g["history"].clone())).collect();
    assert_eq!(shown, vec![(json!("write"), json!("fromNow")); 2]);
    assert_eq!(ana.client.get("/api/audit?action=grant.created").await.ok()["items"][0]["actor"], json!(person.id));
}

/// An EMPLEADO who may start chats.
async fn starter(ana: &Tenant) -> Person {
    let person = ana.person("EMPLEADO").await;
    ana.client.patch(&format!("/api/users/{}", person.id), json!({"canStartChats": true})).await.ok();
    until("the right to be known", Duration::from_secs(2), || async {
        (person.client.get("/api/me").await.ok()["canStartChats"] == true).then_some(())
    })
    .await;
    person
}

async fn once(client: &ApiClient, key: &str) -> Answer {
    client.ask(Method::POST, &format!("/api/chats/{PEER}/messages"), &[("idempotency-key", key)], Some(text("hi"))).await
}

#[tokio::test]
async fn a_first_message_whose_request_died_before_it_granted_the_chat_is_shown_to_whoever_repeats_it() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = starter(&ana).await;
    let sent = once(&person.client, "k").await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.body);
    let job = format!("/api/jobs/{}", sent.body["id"].as_str().unwrap());
    // The grant, its audit entry and its event are one statement, which did not run.
    stack.sql("delete from access_grant").await.unwrap();
    stack.sql("delete from audit where action = 'grant.created'").await.unwrap();
    not_found(&person.client, &job).await;

    for _ in 0..2 {
        let again = once(&person.client, "k").await;
        assert_eq!((again.status, &again.body["id"]), (StatusCode::ACCEPTED, &sent.body["id"]), "{}", again.body);
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(person.client.get(&job).await.status, StatusCode::OK);
    }
    let messages = person.client.get(&format!("/api/chats/{PEER}/messages")).await.ok();
    assert_eq!(messages["items"].as_array().unwrap().len(), 1, "the chat is granted from that message on");
    let grants = ana.client.get(&format!("/api/users/{}/grants", person.id)).await.ok();
    assert_eq!(grants["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeated_first_message_gives_no_grant_back_that_was_taken_or_has_ended() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = starter(&ana).await;
    let grants = format!("/api/users/{}/grants", person.id);
    let refused = async |key: &str, why: &str| {
        let again = once(&person.client, key).await;
        assert_eq!((again.status.as_u16(), &again.body["code"]), (404, &json!("not_found")), "{why}");
    };
    let granted = async || ids(&ana.client.get(&grants).await.ok()).into_iter().map(str::to_owned).collect::<Vec<_>>();

    let sent = once(&person.client, "k1").await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.body);
    ana.client.delete(&format!("{grants}/{}", granted().await[0])).await.ok();
    refused("k1", "taken back").await;
    assert!(granted().await.is_empty());
    not_found(&person.client, &format!("/api/jobs/{}", sent.body["id"].as_str().unwrap())).await;

    // One that the message was not the beginning of.
    let given = ana.grant(&person.id, sent.body["chat"].as_str().unwrap(), "write").await;
    assert_eq!(once(&person.client, "k2").await.status, StatusCode::ACCEPTED);
    ana.client.delete(&format!("{grants}/{given}")).await.ok();
    refused("k2", "an ADMIN's grant, taken back").await;
    assert!(granted().await.is_empty());

    // A new message begins anew, as ever.
    assert_eq!(once(&person.client, "k3").await.status, StatusCode::ACCEPTED);
    stack.sql("update access_grant set expires_at = clock_timestamp()").await.unwrap();
    stack.sql("delete from audit where action = 'grant.created'").await.unwrap();
    refused("k3", "ended").await;
    assert_eq!(granted().await.len(), 1, "the ended one");
}

#[tokio::test]
async fn no_other_spelling_of_an_address_reaches_a_chat_that_is_not_granted() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    ana.chat(PEER).await;
    ana.chat("123456789012345@lid").await;
    let person = ana.person("EMPLEADO").await;
    for (address, status) in [
        (PEER.to_owned(), 404),
        (format!("+{PEER}"), 404),
        (format!("{PEER}@c.us"), 404),
        (format!("{PEER}@s.whatsapp.net"), 404),
        (format!("{PEER}%40c.us"), 404),
        ("123456789012345@lid".to_owned(), 404),
        (format!("{PEER}@C.US"), 400),
        (format!("{PEER}:5@s.whatsapp.net"), 400),
        (format!("{PEER}%2540c.us"), 400),
        ("٥٥١١٨٨٨٨٨٠٠٠٠".to_owned(), 400),
        (format!("{PEER}%00"), 400),
        (format!("{PEER}%2f..%2f{PEER}"), 400),
        ("cht_00000000000000000000000000".to_owned(), 404),
        ("CHT_00000000000000000000000000".to_owned(), 400),
    ] {
        for (method, path, body) in [
            (Method::GET, format!("/api/chats/{address}"), None),
            (Method::GET, format!("/api/chats/{address}/messages"), None),
            (Method::POST, format!("/api/chats/{address}/messages"), Some(text("hi"))),
            (Method::POST, format!("/api/sessions/default/chats/{address}/messages"), Some(text("hi"))),
        ] {
            let answer = person.client.ask(method.clone(), &path, &[], body).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn an_empleado_can_neither_raise_itself_nor_touch_a_colleagues_requests() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (chat, _) = ana.chat(PEER).await;
    let (one, other) = (ana.person("EMPLEADO").await, ana.person("EMPLEADO").await);
    let forbidden = async |answer: harness::client::Answer, what: &str| {
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (403, &json!("role_forbidden")), "{what}");
    };
    let me = format!("/api/users/{}", one.id);
    forbidden(one.client.patch(&me, json!({"rol": "ADMIN"})).await, "raise its role").await;
    forbidden(one.client.patch(&me, json!({"adminId": "ten_x"})).await, "change its tenant").await;
    let grant = json!({"session": "default", "chat": chat, "access": "write"});
    forbidden(one.client.post(&format!("{me}/grants"), grant).await, "grant itself a chat").await;
    forbidden(one.client.post("/api/keys", json!({"name": "x", "scopes": ["export"]})).await, "make a key").await;
    forbidden(one.client.get("/api/audit").await, "read the audit log").await;
    for path in ["/api/whatsapp/qr", "/api/sessions/default/qr"] {
        forbidden(one.client.get(path).await, path).await;
    }
    for path in ["/api/whatsapp/init", "/api/whatsapp/stop", "/api/sessions/default/stop", "/api/sessions/default/start"] {
        forbidden(one.client.post(path, json!({})).await, path).await;
    }

    // A colleague's idempotency key says nothing and repeats nothing.
    ana.grant(&one.id, &chat, "write").await;
    ana.grant(&other.id, &chat, "write").await;
    let send = async |client: &ApiClient, said: &str| {
        let path = format!("/api/chats/{chat}/messages");
        client.ask(Method::POST, &path, &[("idempotency-key", "order-1")], Some(text(said))).await
    };
    let (first, second) = (send(&one.client, "mine").await, send(&other.client, "quite another").await);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (202, 202));
    assert_ne!(first.body["id"], second.body["id"]);
    assert!(second.headers.get("idempotency-replayed").is_none());
    let cancel = format!("/api/jobs/{}/cancel", first.body["id"].as_str().unwrap());
    forbidden(other.client.post(&cancel, json!({})).await, "withdraw a colleague's job").await;
    assert!(one.client.post(&cancel, json!({})).await.status.is_success());
}

#[tokio::test]
async fn a_grant_names_one_target_that_is_there() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let (chat, _) = ana.chat(PEER).await;
    let (foreign, _) = bea.chat(PEER).await;
    let person = ana.person("EMPLEADO").await;
    let path = format!("/api/users/{}/grants", person.id);
    for (body, status, code) in [
        (json!({"session": "default", "access": "read"}), 422, "invalid_body"),
        (json!({"session": "default", "chat": chat, "all": true, "access": "read"}), 422, "invalid_body"),
        (json!({"session": "default", "label": "vip", "access": "read"}), 501, "unsupported"),
        (json!({"session": "default", "chat": foreign, "access": "read"}), 404, "not_found"),
        (json!({"session": bea.session, "all": true, "access": "read"}), 404, "not_found"),
        (json!({"session": "default", "chat": "nobody", "access": "read"}), 400, "invalid_id"),
        (json!({"session": "default", "chat": chat, "access": "own"}), 422, "invalid_body"),
        (json!({"session": "default", "chat": chat, "access": "read", "expiresAt": "+99999-01-01T00:00:00Z"}), 422, "invalid_body"),
    ] {
        let answer = ana.client.post(&path, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.body["code"].as_str().unwrap()), (status, code), "{body}: {}", answer.body);
    }
    let body = json!({"session": "default", "chat": chat, "access": "read"});
    assert_eq!(bea.client.post(&path, body).await.status, StatusCode::NOT_FOUND, "somebody else's user");
    let grant = ana.client.post(&path, json!({"session": "default", "chat": "5511222220000", "access": "read"})).await;
    assert_eq!(grant.status, StatusCode::CREATED, "a chat may be granted before its first message");
    assert_eq!(grant.headers["location"], format!("{path}/{}", grant.body["id"].as_str().unwrap()));
}
