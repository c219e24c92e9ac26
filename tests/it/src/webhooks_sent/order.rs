//! What is told, and in which order.

use std::time::Duration;

use harness::{
    Stack,
    receiver::{Receiver, Reply},
    until_true,
};
use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::{Hook, SOON, comes, complete, quick};

#[tokio::test]
async fn every_event_comes_once_signed_and_in_order_with_the_envelope_of_every_other_transport() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/in?token=secret")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let worker = stack.teller(&quick()).await;
    hook.emit(3).await;
    comes(&receiver, first + 2).await;
    let last = hook.emit(700).await;
    hook.settled(last).await;
    assert_eq!(complete(&receiver, first, last), 0);

    let read = ana.client.events(first - 1).await;
    let got = receiver.got();
    for (got, event) in got.iter().zip(&read) {
        assert_eq!((&got.body, got.header("content-type"), &*got.path), (event, "application/json", "/in"));
    }
    assert!(got.iter().all(|g| hook.signed(g)));
    let headers =
        [("x-own", "a header of ours"), ("user-agent", concat!("zaguan-webhooks/", env!("CARGO_PKG_VERSION"))), ("zaguan-replay", "")];
    for (name, value) in headers {
        assert_eq!(got[0].header(name), value);
    }
    assert!(got[0].header("host").starts_with("127.0.0.1:"), "the tenant's headers do not name another host");
    assert_eq!(
        hook.count("state = 'delivered' and kind = 'live' and status = 200 and attempt = 1 and finished_at is not null").await,
        last - first + 1
    );
    assert_eq!(hook.count("true").await, last - first + 1);
    assert!(hook.get::<bool>("last_success_at is not null and failing_since is null").await);

    let numbers = reqwest::get(worker.url("/metrics")).await.unwrap().text().await.unwrap();
    for number in ["zaguan_webhooks_held 1", r#"zaguan_webhook_deliveries_total{outcome="delivered"}"#, "zaguan_webhook_lag_seconds"] {
        assert!(numbers.contains(number), "{number} in {numbers}");
    }
    for private in ["token=secret", "number 1", "whsec_"] {
        assert!(!worker.process.log().contains(private), "{private} is in the log");
    }
}

#[tokio::test]
async fn a_failing_event_holds_back_all_that_follow_and_none_overtakes_it() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let bad = first + 4;
    receiver.answers(move |got| Reply::Status(if got.seq() == bad { 500 } else { 200 }));
    let _worker = stack.teller(&quick()).await;
    let last = hook.emit(20).await;
    receiver.until("ten attempts", SOON, |got| got.iter().filter(|g| g.seq() == bad).count() >= 10).await;
    assert!(receiver.seqs().iter().all(|seq| *seq <= bad));
    let mut attempts = receiver.got();
    attempts.retain(|g| g.seq() == bad);
    assert!(attempts.iter().all(|g| g.raw == attempts[0].raw && hook.signed(g)), "each attempt is signed as of now, and says the same");
    assert_eq!(hook.get::<i64>("cursor_seq").await, bad);
    assert_eq!(hook.count("state = 'waiting'").await, 1);
    assert!(hook.get::<bool>("failing_since is not null and last_failure = 'http_500' and failures > 0").await);
    receiver.answers(|_| Reply::Status(200));
    hook.settled(last).await;
    complete(&receiver, first, last);
    assert!(hook.get::<bool>("failing_since is null and failures = 0").await);
}

#[tokio::test]
async fn by_chat_a_failing_chat_holds_back_itself_only_and_chats_are_told_at_once() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::with(&stack, &ana, &receiver.url("/"), json!({"ordered_by": "chat", "concurrency": 3})).await;
    let first = hook.get::<i64>("cursor_seq").await + 1;
    let [bad, good, other] = [(); 3].map(|()| Uuid::now_v7());
    let bad_name = contract::ChatId::from_uuid(bad).to_string();
    // The first of each chat is answered late: two are under way together.
    let failing = bad_name.clone();
    receiver.answers(move |got| if got.body["chat"] == *failing { Reply::Status(503) } else { Reply::Late(Duration::from_millis(5), 200) });
    for _ in 0..10 {
        hook.emit_in(2, Some(bad)).await;
        hook.emit_in(2, Some(good)).await;
        hook.emit_in(1, Some(other)).await;
        hook.emit_in(1, None).await;
    }
    let worker = stack.teller(&quick()).await;
    until_true("all others", SOON, async || hook.count("state = 'delivered'").await == 40).await;
    hook.settled(first + 59).await;
    assert_eq!(hook.count("state = 'waiting'").await, 20);
    let of_bad = |seqs: &[harness::receiver::Got]| seqs.iter().filter(|g| g.body["chat"] == *bad_name).map(|g| g.seq()).collect::<Vec<_>>();
    assert!(of_bad(&receiver.got()).iter().all(|seq| *seq == first), "only the head of the chat is tried");
    // Another worker finds the same in the rows.
    drop(worker);
    let _worker = stack.teller(&quick()).await;
    let before = receiver.got().len();
    receiver.until("the head again", SOON, |got| got.len() > before).await;
    receiver.answers(|_| Reply::Status(200));
    until_true("the chat", SOON, async || hook.count("state = 'delivered'").await == 60).await;
    let got = receiver.got();
    for chat in [Some(bad), Some(good), Some(other), None] {
        let name = chat.map(|c| json!(contract::ChatId::from_uuid(c)));
        let mut seqs: Vec<i64> = got.iter().filter(|g| g.body["chat"] == name.clone().unwrap_or_default()).map(|g| g.seq()).collect();
        seqs.dedup();
        assert!(seqs.is_sorted(), "{seqs:?}");
    }
}

#[tokio::test]
async fn a_webhook_is_told_of_what_it_asked_for_and_of_nothing_else() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let db = stack.db().await;
    // A private chat that another was merged into, a group, and status updates.
    let [whole, merged, group, status] = [(); 4].map(|()| Uuid::now_v7());
    let session: Uuid = sqlx::query_scalar("select id from session").fetch_one(&db).await.unwrap();
    for (chat, kind, into) in
        [(whole, "private", None), (merged, "private", Some(whole)), (group, "group", None), (status, "broadcast", None)]
    {
        sqlx::query("insert into chat (id, tenant, session, account, kind, wa_id, merged_into) select $1, tenant, id, '', $3, $1::text, $4 from session where id = $2")
            .bind(chat)
            .bind(session)
            .bind(kind)
            .bind(into)
            .execute(&db)
            .await
            .unwrap();
    }
    let paths = [
        ("all", json!({})),
        ("types", json!({"types": ["message"]})),
        ("no_groups", json!({"ignore_groups": true})),
        ("no_status", json!({"ignore_status": true})),
        ("no_own", json!({"ignore_own": true})),
        ("chat", json!({"chats": [merged]})),
        ("session", json!({"sessions": [session]})),
    ];
    let mut hooks = Vec::new();
    for (path, columns) in paths {
        hooks.push(Hook::with(&stack, &ana, &receiver.url(&format!("/{path}")), columns).await);
    }
    let hook = &hooks[0];
    let first = hook.get::<i64>("cursor_seq").await + 1;
    // Two of each: the second is the account's own.
    for chat in [Some(whole), Some(merged), Some(group), Some(status), None] {
        hook.emit_in(2, chat).await;
    }
    let job = ana
        .client
        .post(&format!("/api/chats/{}/messages", crate::PEER), json!({"type": "text", "text": "hello", "whenUnavailable": "queue"}))
        .await
        .ok();
    let cancelled = ana.client.post(&format!("/api/jobs/{}/cancel", job["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(cancelled.status, StatusCode::OK);
    let last = first + 10;
    let _worker = stack.teller(&quick()).await;
    for hook in &hooks {
        hook.settled(last).await;
    }
    let told = |path: &str| receiver.got().iter().filter(|g| g.path == format!("/{path}")).map(|g| g.seq() - first).collect::<Vec<_>>();
    assert_eq!(told("all"), (0..=10).collect::<Vec<_>>());
    assert_eq!(told("types"), (0..=9).collect::<Vec<_>>());
    assert_eq!(told("no_groups"), [0, 1, 2, 3, 6, 7, 8, 9, 10]);
    assert_eq!(told("no_status"), [0, 1, 2, 3, 4, 5, 8, 9, 10]);
    assert_eq!(told("no_own"), [0, 2, 4, 6, 8, 10]);
    assert_eq!(told("chat"), [0, 1, 2, 3], "what was merged into it or with it is the same chat");
    assert_eq!(told("session"), [10], "events without a session are of none");
}

#[tokio::test]
async fn changes_take_effect_with_and_without_redis() {
    let mut stack = Stack::start().await;
    let (ana, first, second) = (stack.tenant("ana").await, Receiver::start().await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &first.url("/")).await;
    let _worker = stack.teller(&quick()).await;
    let seq = hook.emit(1).await;
    comes(&first, seq).await;
    stack.redis.kill().await;
    hook.set(&format!("url = '{}', types = '{{message}}'", second.url("/"))).await;
    let seq = hook.emit(1).await;
    // Either endpoint may get what was written while the change was on its way; what is written after it has been noticed goes to the second.
    hook.settled(seq).await;
    until_true("the second to be told", SOON, async || {
        hook.emit(1).await;
        !second.got().is_empty()
    })
    .await;
    stack.redis.up().await.unwrap();
    hook.set("state = 'paused', reason = 'requested'").await;
    hook.wake().await;
    until_true("it to be given back", SOON, async || hook.get::<bool>("owner is null").await).await;
    let (cursor, seq) = (hook.get::<i64>("cursor_seq").await, hook.emit(5).await);
    hook.set("state = 'active', reason = null").await;
    hook.wake().await;
    comes(&second, seq).await;
    let mut since = second.seqs();
    since.retain(|seq| *seq > cursor);
    assert_eq!(since, (cursor + 1..=seq).collect::<Vec<_>>(), "what happened meanwhile is told once");
}
