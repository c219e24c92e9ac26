//! Limits: what a tenant may use, refused beyond it with a time to come again; kept where they protect people, open where Redis is away.

use std::time::Duration;

use futures::future::join_all;
use harness::{Stack, Tenant, client::Answer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::PEER;

fn set(stack: &Stack, tenant: &Tenant, name: &str, value: i64) {
    let id: contract::TenantId = tenant.id.parse().expect("an id");
    stack.postgres.sql(&format!("insert into usage_limit (tenant, name, value) values ('{}', '{name}', {value})", id.uuid()));
}

async fn send(tenant: &Tenant, to: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
    tenant.client.ask(Method::POST, &format!("/api/chats/{to}/messages"), headers, Some(body)).await
}

fn refusal(answer: &Answer) -> (StatusCode, &Value) {
    assert!(answer.headers["retry-after"].to_str().is_ok_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)), "{:?}", answer.headers);
    (answer.status, &answer.body["code"])
}

#[tokio::test]
async fn sends_beyond_the_minutes_are_refused_and_every_answer_says_what_is_left() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    set(&stack, &ana, "sendsPerMinute", 3);
    let first = send(&ana, PEER, &[("idempotency-key", "k")]).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(first.headers["ratelimit-policy"], "\"sendsPerMinute\";q=3;w=60, \"sendsPerDay\";q=50000;w=86400");
    assert!(first.headers["ratelimit"].to_str().unwrap().starts_with("\"sendsPerMinute\";r=2;t="));
    for _ in 0..2 {
        assert_eq!(send(&ana, PEER, &[]).await.status, StatusCode::ACCEPTED);
    }
    let beyond = send(&ana, PEER, &[]).await;
    assert_eq!(refusal(&beyond), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited")));
    assert!(beyond.headers["ratelimit"].to_str().unwrap().starts_with("\"sendsPerMinute\";r=0;t="));
    let repeated = send(&ana, PEER, &[("idempotency-key", "k")]).await;
    assert_eq!((repeated.status, &repeated.body["id"]), (StatusCode::ACCEPTED, &first.body["id"]), "a repeated request sends nothing");
    assert_eq!(ana.client.get("/api/jobs").await.ok()["items"].as_array().unwrap().len(), 3);
    assert_eq!(send(&bea, PEER, &[]).await.status, StatusCode::ACCEPTED, "another tenant has its own");

    set(&stack, &bea, "sendsPerDay", 1);
    let tomorrow = harness::until("the limit to be read anew", Duration::from_secs(10), || async {
        let answer = send(&bea, PEER, &[]).await;
        (answer.status == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    })
    .await;
    assert_eq!(refusal(&tomorrow).1, "quota_exceeded");
}

#[tokio::test]
async fn new_chats_stop_at_the_cap_exactly_however_many_are_asked_for_at_once_and_known_chats_go_on() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let number = |n: usize| format!("55119{n:08}");
    let answers = join_all((0..40).map(|n| {
        let ana = &ana;
        async move { send(ana, &number(n), &[("idempotency-key", &format!("key-{n}"))]).await }
    }))
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().enumerate().partition(|(_, a)| a.status == StatusCode::ACCEPTED);
    assert_eq!(accepted.len(), 20, "the day after linking, and before it");
    for (_, answer) in &refused {
        assert_eq!(refusal(answer), (StatusCode::TOO_MANY_REQUESTS, &json!("new_chat_cap")));
    }
    let (known, fresh) = (accepted[0].0, refused[0].0);
    assert_eq!(send(&ana, &number(known), &[]).await.status, StatusCode::ACCEPTED, "a known chat is not new");
    assert_eq!(ana.client.get("/api/jobs").await.ok()["items"].as_array().unwrap().len(), 21);

    // Somebody who wrote first is no stranger.
    let session: contract::SessionId = ana.session.parse().unwrap();
    stack.postgres.sql(&format!(
        "update chat set last_message_at = now() where session = '{}' and phone = '{}'",
        session.uuid(),
        number(refused[1].0)
    ));
    assert_eq!(send(&ana, &number(refused[1].0), &[]).await.status, StatusCode::ACCEPTED);

    // A week after linking the cap has come half its way; a refusal was not remembered under its key.
    stack.postgres.sql("update session set linked_at = now() - interval '7 days'");
    assert_eq!(send(&ana, &number(fresh), &[("idempotency-key", &format!("key-{fresh}"))]).await.status, StatusCode::ACCEPTED);
    assert_eq!(stack.postgres.sql("select new_chats || ' of ' || new_chats_cap from lane_position"), "21 of 110");
}

#[tokio::test]
async fn streams_and_waiting_requests_beyond_their_number_are_refused_until_one_ends() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let open = || ana.client.stream("/api/events/stream", &[]);
    let mut streams: Vec<_> = join_all((0..30).map(|_| open())).await;
    let refused: Vec<_> = streams.iter().filter_map(|s| s.as_ref().err()).collect();
    assert_eq!(refused.len(), 10, "20 a principal");
    assert_eq!(refusal(refused[0]), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited")));
    streams.retain(Result::is_ok);
    let key = ana.key(json!({"scopes": ["events:read"]})).await;
    assert!(key.client.stream("/api/events/stream", &[]).await.is_ok(), "a key is a principal of its own");
    streams.pop();
    let again = harness::until("a place to be free", Duration::from_secs(5), || async { open().await.ok() }).await;
    drop(again);

    let job = send(&ana, PEER, &[]).await.body["id"].as_str().unwrap().to_owned();
    let began = std::time::Instant::now();
    let waits = join_all((0..120).map(|_| ana.client.ask(Method::GET, "/api/events?after=0&types=session.gap&wait=2", &[], None))).await;
    let refused = waits.iter().filter(|a| refusal_or_none(a)).count();
    assert_eq!(refused, 70, "50 wait, the others are told to come again");
    assert!(began.elapsed() < Duration::from_secs(15));
    let path = format!("/api/jobs/{job}");
    let waited = harness::until("a place to be free", Duration::from_secs(5), || async {
        let answer = ana.client.ask(Method::GET, &path, &[("prefer", "wait=1")], None).await;
        (answer.status == StatusCode::OK).then_some(answer)
    });
    waited.await;
}

fn refusal_or_none(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::OK => false,
        StatusCode::TOO_MANY_REQUESTS => refusal(answer).1 == "rate_limited",
        other => panic!("{other}: {}", answer.body),
    }
}

#[tokio::test]
async fn while_redis_is_away_nobody_is_refused_and_it_is_counted() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    set(&stack, &ana, "sendsPerMinute", 1);
    stack.redis.kill().await;
    for _ in 0..2 {
        let sent = send(&ana, PEER, &[]).await;
        assert_eq!((sent.status, sent.headers.get("ratelimit")), (StatusCode::ACCEPTED, None));
    }
    assert!(ana.client.stream("/api/events/stream", &[]).await.is_ok());
    let metrics = reqwest::get(stack.api.metrics_url()).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|l| l.starts_with("zaguan_limits_not_kept_total")).expect("it is counted");
    assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 3.0, "{line}");
}

#[tokio::test]
async fn no_more_sessions_are_made_than_the_operator_allows_and_the_admin_can_read_it() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    set(&stack, &ana, "sessions", 4);
    let names: Vec<_> = (0..9).map(|n| format!("s{n}")).collect();
    let made = join_all(names.iter().map(|name| ana.client.post("/api/sessions", json!({"name": name})))).await;
    let refused: Vec<_> = made.iter().filter(|a| a.status != StatusCode::CREATED).collect();
    assert_eq!(refused.len(), 6, "three beside the default one, however many are asked for at once");
    assert_eq!(refusal(refused[0]), (StatusCode::TOO_MANY_REQUESTS, &json!("quota_exceeded")));
    let limits = ana.client.get("/api/limits").await.ok();
    let one = |name: &str| limits["items"].as_array().unwrap().iter().find(|l| l["name"] == name).cloned().unwrap();
    assert_eq!(one("sessions"), json!({"name": "sessions", "value": 4, "used": 4}));
    assert_eq!(one("newChatsPerDay"), json!({"name": "newChatsPerDay", "value": 200, "used": null}));
}

#[tokio::test]
async fn what_would_wait_beyond_the_number_is_refused_before_it_is_accepted() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    stack.sql("update session set state = 'working', wanted = 'running', account = '5511999990000'").await.unwrap();
    let poll = "/api/events?after=0&types=session.gap&wait=10";
    let clients: Vec<_> = (0..50).map(|_| ana.client.clone()).collect();
    let held = tokio::spawn(join_all(clients.into_iter().map(|c| async move { c.get(poll).await })));
    harness::until("all places to be taken", Duration::from_secs(5), || async {
        let keys: Vec<String> = redis::from_redis_value(stack.redis.command(&["KEYS", "zg:*:held:*:waiting requests"]).await).ok()?;
        let held: i64 = redis::from_redis_value(stack.redis.command(&["ZCARD", keys.first()?]).await).ok()?;
        (held == 50).then_some(())
    })
    .await;
    for (path, prefer) in [("restart", "wait=1"), ("logout", "wait=1"), ("screenshot", "")] {
        let answer = ana.client.ask(Method::POST, &format!("/api/whatsapp/{path}"), &[("prefer", prefer)], None).await;
        assert_eq!(refusal(&answer), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited")), "{path}");
    }
    assert_eq!(ana.client.get("/api/jobs").await.ok()["items"], json!([]), "nothing of it will be done");
    let answer = ana.client.ask(Method::POST, "/api/whatsapp/restart", &[], None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "who does not wait needs no place");
    assert!(held.await.unwrap().iter().all(|a| a.status == StatusCode::OK));
}

#[tokio::test]
async fn codes_and_links_hold_no_more_requests_than_others_do() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let link = ana.client.post("/api/whatsapp/link-page", json!({})).await.ok();
    let (token, customer) = (harness::people::link_token(&link), ana.client.stranger());
    let look = |path: String| {
        let (customer, token) = (&customer, &token);
        async move { customer.ask(Method::GET, &path, &[("zaguan-link", token)], None).await }
    };
    let version = look("/api/link".to_owned()).await.ok()["version"].as_str().unwrap().to_owned();
    let looks = join_all((0..20).map(|_| look(format!("/api/link?wait=2&version={version}")))).await;
    assert_eq!(looks.iter().filter(|a| refusal_or_none(a)).count(), 15, "five a link");

    let codes = join_all((0..80).map(|_| ana.client.get("/api/whatsapp/qr?wait=2"))).await;
    let (refused, waited): (Vec<_>, Vec<_>) = codes.iter().partition(|a| a.status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((refused.len(), waited.len()), (30, 50));
    assert_eq!(refusal(refused[0]).1, "rate_limited");
    assert!(waited.iter().all(|a| a.body["code"] == "qr_not_ready"));
}

#[tokio::test]
async fn a_session_has_exactly_as_many_unfinished_jobs_as_it_may_however_many_are_sent_at_once() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    set(&stack, &ana, "queuedJobsPerSession", 3);
    let answers = join_all((0..12).map(|n| {
        let ana = &ana;
        async move { send(ana, PEER, &[("idempotency-key", &format!("key-{n}"))]).await }
    }))
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().enumerate().partition(|(_, a)| a.status == StatusCode::ACCEPTED);
    assert_eq!(accepted.len(), 3);
    for (_, answer) in &refused {
        assert_eq!(refusal(answer), (StatusCode::TOO_MANY_REQUESTS, &json!("lane_full")));
    }
    let again = send(&ana, PEER, &[("idempotency-key", &format!("key-{}", accepted[0].0))]).await;
    assert_eq!((again.status, &again.body["id"]), (StatusCode::ACCEPTED, &accepted[0].1.body["id"]), "a repeated request is not one more");
    // What empties a queue is not refused because it is full.
    stack.sql("update session set state = 'working', wanted = 'running'").await.unwrap();
    let restart = ana.client.post("/api/whatsapp/restart", json!({})).await.ok();
    for (_, answer) in &accepted {
        ana.client.post(&format!("/api/jobs/{}/cancel", answer.body["id"].as_str().unwrap()), json!({})).await.ok();
    }
    ana.client.post(&format!("/api/jobs/{}/cancel", restart["id"].as_str().unwrap()), json!({})).await.ok();
    let freed = join_all(refused.iter().take(5).map(|(n, _)| {
        let ana = &ana;
        async move { send(ana, PEER, &[("idempotency-key", &format!("key-{n}"))]).await.status }
    }))
    .await;
    assert_eq!(freed.iter().filter(|s| **s == StatusCode::ACCEPTED).count(), 3, "a refusal is not remembered under its key");
}

#[tokio::test]
async fn a_refused_send_grants_nothing_and_a_repeated_one_costs_nothing() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let person = ana.person("EMPLEADO").await;
    ana.client.patch(&format!("/api/users/{}", person.id), json!({"canStartChats": true})).await.ok();
    for name in ["newChatsPerDayAtFirst", "newChatsPerDay"] {
        set(&stack, &ana, name, 0);
    }
    let body = json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
    let path = format!("/api/chats/{PEER}/messages");
    let send = |key: &'static str| {
        let (client, path, body) = (&person.client, &path, &body);
        async move { client.ask(Method::POST, path, &[("idempotency-key", key)], Some(body.clone())).await }
    };
    let grants = || async { ana.client.get(&format!("/api/users/{}/grants", person.id)).await.ok()["items"].as_array().unwrap().len() };
    assert_eq!(refusal(&send("a").await).1, "new_chat_cap");
    assert_eq!(grants().await, 0);
    stack.postgres.sql("delete from usage_limit where tenant is not null");
    set(&stack, &ana, "sendsPerMinute", 3);
    harness::until("the limits to be read anew", Duration::from_secs(10), || async {
        let answer = send("b").await;
        (answer.headers.get("ratelimit-policy").is_some_and(|p| p.to_str().unwrap().contains("q=3;")) || grants().await == 1).then_some(())
    })
    .await;
    assert_eq!(grants().await, 1);
    for _ in 0..5 {
        assert_eq!(send("b").await.headers["idempotency-replayed"], "true");
    }
    assert_eq!(send("c").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_number_has_as_many_pairing_codes_an_hour_as_the_operator_says() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    set(&stack, &ana, "pairingCodesPerHour", 1);
    stack.sql("update session set state = 'linking', wanted = 'running'").await.unwrap();
    let ask = |phone: &'static str| {
        let client = &ana.client;
        async move { client.ask(Method::POST, "/api/whatsapp/pairing-code", &[("prefer", "wait=0")], Some(json!({"phone": phone}))).await }
    };
    assert_eq!(ask(PEER).await.status, StatusCode::ACCEPTED);
    assert_eq!(refusal(&ask(PEER).await), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited")));
    assert_eq!(ask(crate::OURS).await.status, StatusCode::ACCEPTED, "another number has its own");
}

#[tokio::test]
async fn a_tenant_has_so_many_streams_whoever_opens_them() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    set(&stack, &ana, "streams", 5);
    let keys = [ana.key(json!({"scopes": ["events:read"]})).await, ana.key(json!({"scopes": ["events:read"]})).await];
    let opened = join_all((0..8).map(|n| keys[n % 2].client.stream("/api/events/stream", &[]))).await;
    let refused: Vec<_> = opened.iter().filter_map(|s| s.as_ref().err()).collect();
    assert_eq!(refused.len(), 3);
    assert_eq!(refusal(refused[0]), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited")));
    let bea = stack.tenant("bea").await;
    assert!(bea.client.stream("/api/events/stream", &[]).await.is_ok(), "another tenant has its own");
}
