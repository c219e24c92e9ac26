//! Sockets end: with their callers' rights, with their process, and where a client does not play along. What they missed is there again.

use std::time::{Duration, Instant};

use futures::future::join_all;
use harness::{
    Stack,
    faults::Word,
    process::Signal,
    socketio::{Said, Socket},
    until,
};
use serde_json::{Value, json};

use crate::{
    PEER,
    company::{Company, company},
    sockets::{SOON, head, job, seq},
    streams::short_lived,
};

/// How a socket ends: the events before the last word, the last word, and whether the server took it out of its namespace first.
struct End {
    events: Vec<Value>,
    last: Value,
    taken_out: bool,
    closed: Option<String>,
}

async fn end_of(socket: &mut Socket) -> End {
    let mut end = End { events: Vec::new(), last: Value::Null, taken_out: false, closed: None };
    for said in socket.rest(SOON).await {
        match said {
            Said::Event(name, mut arguments) if name == "stream.end" => end.last = arguments.remove(0),
            Said::Event(name, _) if name == "cursor" || name == "auth.expiring" => {}
            Said::Event(_, mut arguments) => end.events.extend(arguments.pop()),
            Said::Disconnected => end.taken_out = true,
            Said::Closed(why) => end.closed = why,
            Said::Ack(..) => {}
        }
    }
    end
}

#[tokio::test]
async fn a_socket_ends_within_a_second_of_its_logins_users_keys_or_tenants_end() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let maker = ana.person("ADMIN").await;
    let of_maker = |change: &str| format!("update app_user set {change} where email = '{}'", maker.email);
    let again = of_maker("state = 'active', rol = 'ADMIN'");
    let ends = [
        ("update api_key set revoked_at = clock_timestamp()".to_owned(), true, "unauthenticated"),
        ("update api_key set expires_at = clock_timestamp()".to_owned(), true, "token_expired"),
        (of_maker("state = 'disabled'"), true, "unauthenticated"),
        (of_maker("state = 'disabled'"), false, "unauthenticated"),
        (of_maker("rol = 'EMPLEADO'"), false, "unauthenticated"),
        ("update tenant set state = 'suspended'".to_owned(), false, "tenant_suspended"),
    ];
    for (end, by_key, code) in ends {
        stack.postgres.sql(&again);
        let mut socket = until("the maker to count again", SOON, || async {
            let key = maker.client.post("/api/keys", json!({"name": "m", "scopes": ["events:read"]})).await.body["secret"].clone();
            let key = maker.client.with_token(key.as_str()?);
            (if by_key { &key } else { &maker.client }).socket(json!({})).await.ok()
        })
        .await;
        stack.postgres.sql(&end);
        let began = Instant::now();
        let ended = end_of(&mut socket).await;
        let took = began.elapsed();
        assert_eq!((&ended.last["reason"], &ended.last["problem"]["code"]), (&json!(code), &json!(code)), "{end}");
        assert!(ended.taken_out && ended.events.is_empty(), "the client does not come again by itself");
        assert!(took < Duration::from_millis(1300), "{took:?} after {end}");
    }
}

#[tokio::test]
async fn what_happens_after_a_logout_or_a_grants_end_is_not_shown_even_if_it_was_on_its_way() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let granted = ana.happens(PEER).await;
    ana.grant(&stack, &granted);
    let mut socket = ana.clerk.socket(json!({})).await.unwrap();
    let mut point = stack.points().arm("rights.revoke_mid_stream");
    ana.happens(PEER).await;
    let arrival = point.arrived().await;
    ana.ungrant(&stack);
    drop(point);
    arrival.reply(Word::Go).await;
    socket.passes(head(&ana).await, SOON).await;

    ana.grant(&stack, &granted);
    let mut point = stack.points().arm("rights.revoke_mid_stream");
    ana.happens(PEER).await;
    let arrival = point.arrived().await;
    ana.clerk.post("/api/auth/logout", json!({})).await;
    drop(point);
    arrival.reply(Word::Go).await;
    let ended = end_of(&mut socket).await;
    assert_eq!((ended.events, &ended.last["reason"]), (Vec::new(), &json!("unauthenticated")));
}

/// A caller whose token ends in so many seconds.
fn brief(stack: &Stack, company: &Company, seconds: i64) -> harness::ApiClient {
    let since_login =
        "select extract(epoch from clock_timestamp())::bigint - (select extract(epoch from max(issued_at))::bigint from refresh_token)";
    let lasting = seconds + stack.postgres.sql(since_login).parse::<i64>().expect("seconds");
    company.admin.with_token(&short_lived(stack, company.admin.token(), lasting))
}

#[tokio::test]
async fn a_client_is_told_before_its_token_ends_goes_on_with_a_new_one_and_ends_without() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let brief = brief(&stack, &ana, 5);
    let mut renews = brief.socket(json!({})).await.unwrap();
    let mut forgets = brief.socket(json!({})).await.unwrap();
    for socket in [&mut renews, &mut forgets] {
        let (name, arguments) = socket.event(SOON).await;
        assert_eq!(name, "auth.expiring");
        assert!(arguments[0]["expiresAt"].is_string());
    }
    for (asked, code) in [
        (json!({"token": ana.clerk.token()}), "role_forbidden"),
        (json!({"token": "x"}), "unauthenticated"),
        (json!({}), "unauthenticated"),
        (json!({"ticket": "x"}), "invalid_body"),
    ] {
        assert_eq!(renews.ask("auth", asked.clone(), SOON).await["problem"]["code"], code, "{asked}");
    }
    let renewed = renews.ask("auth", json!({"token": ana.admin.token()}), SOON).await;
    assert!(renewed["expiresAt"].is_string(), "{renewed}");

    let ended = end_of(&mut forgets).await;
    assert_eq!((&ended.last["reason"], ended.taken_out), (&json!("token_expired"), true));
    let seen = ana.happens(PEER).await;
    assert_eq!(job(&renews.envelope(SOON).await), seen, "after the first token's end");
    let mut again = ana.admin.socket(json!({"after": ended.last["cursor"]})).await.unwrap();
    assert_eq!(job(&again.envelope(SOON).await), seen);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_and_goes_on_where_it_stopped() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let start = head(&ana).await;
    let mut stuck = ana.admin.socket(json!({})).await.unwrap();
    // More than the connection holds, and more than a thousand behind that.
    stack.postgres.sql(
        "with c as (update tenant_counter set seq = seq + 4000 returning tenant, seq)
         insert into event (tenant, seq, day, id, type, at, data)
         select tenant, seq - 4000 + n, current_date, gen_random_uuid(), 'session.status', now(), jsonb_build_object('x', repeat('x', 8000))
           from c, generate_series(1, 4000) n",
    );
    ana.happens(PEER).await;
    // The place of a socket that was let go is free again.
    until("the socket to be let go", Duration::from_secs(20), || async {
        let left = format!("{:?}", stack.redis.command(&["KEYS", "zg:*:held:*:streams"]).await);
        (!left.contains("streams")).then_some(())
    })
    .await;
    let ended = end_of(&mut stuck).await;
    for (event, expected) in ended.events.iter().zip(start + 1..) {
        assert_eq!(seq(event), expected, "without a hole");
    }
    let last = ended.events.last().map_or(start, seq);
    assert!(last < start + 4000);
    // Whether the reason still reached it depends on when it read on.
    assert!(ended.last.is_null() || ended.last["reason"] == "too_slow" && !ended.taken_out, "{}", ended.last);
    let mut again = ana.admin.socket(json!({"after": last})).await.unwrap();
    for expected in last + 1..=start + 4001 {
        assert_eq!(seq(&again.envelope(SOON).await), expected);
    }
}

#[tokio::test]
async fn a_client_that_reads_on_in_time_hears_that_it_was_too_slow() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let start = head(&ana).await;
    let mut slow = ana.admin.socket(json!({})).await.unwrap();
    slow.passes(start, SOON).await;
    // Held where it judges: more than a thousand come up behind that.
    let mut point = stack.points().arm("rights.revoke_mid_stream");
    ana.happens(PEER).await;
    let arrival = point.arrived().await;
    stack.postgres.sql(
        "with c as (update tenant_counter set seq = seq + 6000 returning tenant, seq)
         insert into event (tenant, seq, day, id, type, at, data)
         select tenant, seq - 6000 + n, current_date, gen_random_uuid(), 'session.status', now(), jsonb_build_object('x', repeat('x', 8000))
           from c, generate_series(1, 6000) n",
    );
    drop(point);
    arrival.reply(Word::Go).await;
    ana.happens(PEER).await;
    // It reads on while it is being let go.
    let http = reqwest::Client::new();
    until("the socket to be let go", Duration::from_secs(20), || async {
        let metrics = http.get(stack.api.metrics_url()).send().await.ok()?.text().await.ok()?;
        let mut lines = metrics.lines();
        lines.any(|l| l.starts_with("zaguan_streams_ended_total") && l.contains("socketio") && l.contains("too_slow")).then_some(())
    })
    .await;
    let ended = end_of(&mut slow).await;
    assert_eq!((&ended.last["reason"], ended.closed.as_deref(), ended.taken_out), (&json!("too_slow"), Some("too_slow"), false));
    assert_eq!(ended.last["cursor"], json!(ended.events.last().map(seq)), "where to go on");
}

#[tokio::test]
async fn a_process_that_ends_says_so_and_its_clients_go_on_at_another_one() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let mut other = stack.another_api().await;
    let mut socket = ana.admin.at(&other.url()).socket(json!({})).await.unwrap();
    let mut nobody = Socket::dial(&other.url(), "EIO=4&transport=websocket").await.unwrap();
    ana.happens(PEER).await;
    let seen = seq(&socket.envelope(SOON).await);
    other.process.signal(Signal::TERM);
    let ended = end_of(&mut socket).await;
    assert_eq!((&ended.last, ended.taken_out), (&json!({"reason": "stopping", "cursor": seen}), false));
    assert_eq!(ended.closed.as_deref(), Some("stopping"));
    assert_eq!(nobody.next(SOON).await, Said::Closed(Some("stopping".into())));
    assert!(other.process.wait(SOON).await.is_some_and(|status| status.success()), "nothing holds it");
    let missed = ana.happens(PEER).await;
    let mut again = ana.admin.socket(json!({"after": seen})).await.unwrap();
    assert_eq!(job(&again.envelope(SOON).await), missed);
}

#[tokio::test]
async fn what_a_client_may_not_say_is_answered_and_one_that_goes_on_with_it_is_thrown_out() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let mut socket = ana.admin.socket(json!({})).await.unwrap();
    assert_eq!(socket.ask("sendMessage", json!({"to": PEER}), SOON).await["problem"]["code"], "invalid_parameter");
    socket.send(r#"42["shout",1]"#).await;
    let (name, arguments) = socket.event(SOON).await;
    assert_eq!((&*name, &arguments[0]["code"]), ("problem", &json!("invalid_parameter")), "without a number to answer to");
    socket.send("4x").await;
    assert_eq!(socket.event(SOON).await.1[0]["code"], "malformed_request");
    socket.send_bytes(vec![1, 2, 3]).await;
    assert_eq!(socket.event(SOON).await.1[0]["code"], "malformed_request");
    let refused = socket.enter("/whatsapp-web.js", &json!({})).await.unwrap_err();
    assert_eq!(refused["data"]["field"], "namespace");
    let mut socket = ana.admin.socket(json!({})).await.unwrap();
    for _ in 0..11 {
        socket.send(r#"42["shout"]"#).await;
    }
    let ended = end_of(&mut socket).await;
    assert_eq!((&ended.last["reason"], ended.taken_out), (&json!("rate_limited"), true));

    // Too many of what is allowed: refused, then thrown out as well.
    let mut socket = ana.admin.socket(json!({})).await.unwrap();
    for n in 0..20 {
        assert_eq!(socket.ask("resume", json!({"after": 0}), SOON).await["cursor"], 0, "{n}");
    }
    assert_eq!(socket.ask("resume", json!({"after": 0}), SOON).await["problem"]["code"], "rate_limited");

    let mut socket = ana.admin.socket(json!({})).await.unwrap();
    socket.send(&format!("42{}", json!(["subscribe", {"types": "x".repeat(70_000)}]))).await;
    let ended = end_of(&mut socket).await;
    assert_eq!(ended.last["reason"], "body_too_large");
    // Before it is let in nobody is heard at all.
    let mut nobody = Socket::dial(&stack.api.url(), "EIO=4&transport=websocket").await.unwrap();
    nobody.send(r#"42["subscribe",{}]"#).await;
    assert!(matches!(nobody.next(SOON).await, Said::Closed(Some(_))));
}

#[tokio::test]
async fn a_client_that_no_longer_answers_is_let_go() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    // It does not answer pings because nobody reads here.
    let socket = ana.admin.socket(json!({})).await.unwrap();
    until("its place to be free", Duration::from_secs(20), || async {
        let left = format!("{:?}", stack.redis.command(&["KEYS", "zg:*:held:*:streams"]).await);
        (!left.contains("streams")).then_some(())
    })
    .await;
    drop(socket);
}

#[tokio::test]
async fn a_principal_has_so_many_streams_of_both_kinds_and_one_that_ends_makes_room() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let _stream = ana.client.stream("/api/events/stream", &[]).await.unwrap();
    let opened = join_all((0..21).map(|_| ana.client.socket(json!({})))).await;
    let refused: Vec<&Value> = opened.iter().filter_map(|socket| socket.as_ref().err()).collect();
    assert_eq!(refused.len(), 2, "20 a principal");
    assert_eq!((&refused[0]["data"]["code"], &refused[0]["data"]["retryable"]), (&json!("rate_limited"), &json!(true)));
    drop(opened);
    until("a place to be free", Duration::from_secs(5), || async { ana.client.socket(json!({})).await.ok() }).await;
}
