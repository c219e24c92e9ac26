//! Streams: every event that the caller may see, once and in order, for as long as it may.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use harness::{Stack, faults::Word};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    PEER,
    company::{Company, company},
};

const SOON: Duration = Duration::from_secs(10);
const OTHER: &str = "5511777770000";

fn seq(event: &Value) -> i64 {
    event["seq"].as_i64().expect("a seq")
}

fn job(event: &Value) -> &str {
    event["data"]["job"]["id"].as_str().unwrap_or_default()
}

async fn head(company: &Company) -> i64 {
    company.admin.get("/api/jobs").await.headers["zaguan-seq"].to_str().expect("a header").parse().expect("a seq")
}

#[tokio::test]
async fn a_stream_brings_what_happens_under_its_seq_and_goes_on_where_its_client_stopped() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let first = ana.happens(PEER).await;
    let start = head(&ana).await;
    let mut live = ana.admin.stream("/api/events/stream", &[]).await.unwrap();
    let hello = live.next(SOON).await.unwrap();
    assert_eq!((hello.id.as_str(), hello.data), (&*start.to_string(), None), "a stream without a cursor starts at the head, and says so");
    assert!(hello.retry.is_some_and(|ms| (1000..=6000).contains(&ms)));

    let second = ana.happens(PEER).await;
    let said = live.next(SOON).await.unwrap();
    let event = said.data.unwrap();
    assert_eq!((job(&event), said.id), (&*second, seq(&event).to_string()));
    assert_eq!(ana.admin.events(start).await, std::slice::from_ref(&event), "it is the same on every transport");

    // Said while nothing happens: how far all has been judged, without an event.
    let quiet = live.next(SOON).await.unwrap();
    assert_eq!((quiet.id, quiet.data), (seq(&event).to_string(), None));

    let third = ana.happens(PEER).await;
    let cursor = seq(&event).to_string();
    let mut again = ana.admin.stream("/api/events/stream?after=0", &[("last-event-id", &cursor)]).await.unwrap();
    assert_eq!(job(&again.event(SOON).await), third, "what the client heard last wins over `after`");
    let mut all = ana.admin.stream("/api/events/stream?after=0", &[]).await.unwrap();
    for expected in [&first, &second, &third] {
        assert_eq!(job(&all.event(SOON).await), expected);
    }
}

#[tokio::test]
async fn a_cursor_from_elsewhere_is_refused_and_one_that_retention_passed_starts_with_a_gap() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    for _ in 0..4 {
        ana.happens(PEER).await;
    }
    let head = head(&ana).await;
    let ahead = format!("after={}", head + 1);
    let refused = ana.admin.stream(&format!("/api/events/stream?{ahead}"), &[]).await.err().unwrap();
    assert_eq!(
        (refused.status, &refused.body["code"], &refused.body["head"]),
        (StatusCode::CONFLICT, &json!("cursor_ahead"), &json!(head))
    );
    assert_eq!(ana.admin.get(&format!("/api/events?{ahead}")).await.status, StatusCode::CONFLICT);
    for bad in ["after=-1", "after=x", "types=nope", "sinceWhen=1"] {
        assert_eq!(
            ana.admin.stream(&format!("/api/events/stream?{bad}"), &[]).await.err().unwrap().status,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    assert_eq!(ana.admin.stream("/api/events/stream", &[("last-event-id", "x")]).await.err().unwrap().status, StatusCode::BAD_REQUEST);

    let floor = head - 1;
    stack.postgres.sql(&format!("delete from event where seq < {floor}; update tenant_counter set floor_seq = {floor}"));
    let expired = ana.admin.get("/api/events?after=0").await;
    assert_eq!((expired.status, &expired.body["oldest"]), (StatusCode::GONE, &json!(floor)));
    let mut stream = ana.admin.stream("/api/events/stream?after=0", &[]).await.unwrap();
    let mut said = stream.next(SOON).await.unwrap();
    while said.data.is_none() {
        said = stream.next(SOON).await.unwrap();
    }
    let gap = said.data.unwrap();
    assert_eq!((&gap["type"], &gap["seq"], &gap["data"]), (&json!("stream.gap"), &Value::Null, &json!({"after": 0, "oldest": floor})));
    assert_eq!((seq(&stream.event(SOON).await), seq(&stream.event(SOON).await)), (floor, head));
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_nothing_else() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let stranger = ana.admin.stranger();
    assert_eq!(stranger.post("/api/events/ticket", json!({})).await.status, StatusCode::UNAUTHORIZED);
    let bought = ana.admin.post("/api/events/ticket", json!({})).await;
    assert_eq!(
        (bought.status, &bought.body["expiresIn"], &bought.headers["cache-control"]),
        (StatusCode::CREATED, &json!(30), &"no-store".parse().unwrap())
    );
    let ticket = bought.body["ticket"].as_str().unwrap();

    for misuse in [stranger.with_token(ticket).get("/api/me").await, stranger.get(&format!("/api/me?ticket={ticket}")).await] {
        assert_eq!(misuse.status, StatusCode::UNAUTHORIZED);
    }
    let with = |ticket: &str| format!("/api/events/stream?ticket={ticket}&after=0");
    assert_eq!(
        stranger.stream(&with(ana.admin.token()), &[]).await.err().unwrap().status,
        StatusCode::UNAUTHORIZED,
        "a token is no ticket"
    );
    assert_eq!(
        stranger.stream(&format!("/api/events/stream?access_token={ticket}"), &[]).await.err().unwrap().status,
        StatusCode::UNAUTHORIZED
    );

    let opened = futures::future::join_all((0..8).map(|_| async { stranger.stream(&with(ticket), &[]).await.ok() })).await;
    let mut opened: Vec<_> = opened.into_iter().flatten().collect();
    assert_eq!(opened.len(), 1, "of all who come with it one gets in");
    let happened = ana.happens(PEER).await;
    assert_eq!(job(&opened[0].event(SOON).await), happened);
}

/// The stream's cursor comes to `seq` without an event being shown.
async fn passes(stream: &mut harness::sse::EventStream, seq: i64) {
    loop {
        let said = stream.next(SOON).await.expect("the stream goes on");
        assert_eq!(said.data, None);
        if said.id == seq.to_string() {
            return;
        }
    }
}

#[tokio::test]
async fn an_empleado_hears_of_a_chat_from_the_next_event_after_the_grant_and_nothing_after_it_went() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let granted = ana.happens(PEER).await;
    let mut clerk = ana.clerk.stream("/api/events/stream", &[]).await.unwrap();
    ana.happens(PEER).await;
    passes(&mut clerk, head(&ana).await).await;
    ana.grant(&stack, &granted);
    ana.happens(OTHER).await;
    let seen = ana.happens(PEER).await;
    assert_eq!(job(&clerk.event(SOON).await), seen);

    ana.ungrant(&stack);
    ana.happens(PEER).await;
    passes(&mut clerk, head(&ana).await).await;
    assert_eq!(ana.clerk.events(0).await, Vec::<Value>::new());
    let chat = ana.admin.job(&seen).await["chat"].as_str().unwrap().to_owned();
    for path in [format!("/api/events/stream?chat={chat}"), format!("/api/events/stream?chat={PEER}")] {
        assert_eq!(ana.clerk.stream(&path, &[]).await.err().unwrap().status, StatusCode::NOT_FOUND);
        assert_eq!(ana.clerk.get(&path.replace("/stream", "")).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn filters_show_only_what_was_asked_for_and_the_cursor_passes_the_rest() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let wanted = ana.happens(PEER).await;
    let chat = ana.admin.job(&wanted).await["chat"].as_str().unwrap().to_owned();
    ana.happens(OTHER).await;
    ana.admin.post("/api/whatsapp/init", json!({})).await.ok();
    let last = ana.happens(PEER).await;
    for filter in [format!("chat={chat}"), format!("chat={PEER}"), format!("chat=%2B{PEER}&types=job.updated")] {
        let mut stream = ana.admin.stream(&format!("/api/events/stream?after=0&{filter}"), &[]).await.unwrap();
        assert_eq!([job(&stream.event(SOON).await), job(&stream.event(SOON).await)], [&*wanted, &*last], "{filter}");
        let page = ana.admin.get(&format!("/api/events?after=0&{filter}")).await.ok();
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
        assert_eq!(page["next"], json!(head(&ana).await));
    }
    let mut states = ana.admin.stream("/api/events/stream?after=0&types=session.status&session=default", &[]).await.unwrap();
    assert_eq!(states.event(SOON).await["type"], "session.status");
    let nobody = ana.admin.stream("/api/events/stream?session=nope", &[]).await.err().unwrap();
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}

/// What a stream still says, and how long it took to end.
async fn end_of(stream: &mut harness::sse::EventStream) -> (Vec<Value>, Duration) {
    let began = Instant::now();
    (stream.rest(SOON).await, began.elapsed())
}

#[tokio::test]
async fn a_stream_ends_within_a_second_of_its_logins_users_or_tenants_end() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let ends = [
        format!("update app_user set state = 'disabled' where email = '{}'", ana.clerk_email),
        format!("update app_user set generation = generation + 1 where email = '{}'", ana.clerk_email),
        format!("update app_user set rol = 'ADMIN' where email = '{}'", ana.clerk_email),
        "update tenant set state = 'suspended'".to_owned(),
    ];
    for end in ends {
        stack
            .postgres
            .sql(&format!("update app_user set state = 'active', rol = 'EMPLEADO', generation = 0 where email = '{}'", ana.clerk_email));
        let open = || async { ana.clerk.stream("/api/events/stream", &[]).await.ok() };
        let mut stream = harness::until("the clerk to count again", SOON, open).await;
        stack.postgres.sql(&end);
        let (events, took) = end_of(&mut stream).await;
        assert_eq!(events, Vec::<Value>::new());
        assert!(took < Duration::from_millis(1300), "{took:?} after {end}");
    }
}

#[tokio::test]
async fn what_commits_after_a_logout_reaches_neither_stream_nor_long_poll() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let mut point = stack.points().arm("rights.revoke_mid_stream");
    let mut stream = ana.clerk.stream("/api/events/stream?types=session.status,job.updated", &[]).await.unwrap();
    let granted = ana.happens(PEER).await;
    ana.grant(&stack, &granted);
    let mut arrivals = vec![point.arrived().await];
    // Nothing shows when the long poll waits: one that was answered before an event could wake it is followed by another.
    let (poll, woken) = loop {
        let after = head(&ana).await;
        let clerk = ana.clerk.clone();
        let mut poll = tokio::spawn(async move { clerk.get(&format!("/api/events?after={after}&wait=20")).await });
        let woken = loop {
            ana.admin.post("/api/whatsapp/init", json!({})).await.ok();
            ana.admin.post("/api/whatsapp/stop", json!({})).await.ok();
            tokio::select! {
                arrival = point.arrived() => break Some(arrival),
                _ = &mut poll => break None,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        };
        if let Some(woken) = woken {
            break (poll, woken);
        }
    };
    arrivals.push(woken);
    ana.clerk.post("/api/auth/logout", json!({})).await;
    drop(point);
    for arrival in arrivals {
        arrival.reply(Word::Go).await;
    }
    assert_eq!(end_of(&mut stream).await.0, Vec::<Value>::new());
    let polled = poll.await.unwrap();
    assert_eq!((polled.status, &polled.body["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
}

/// A token of the same login that ends in a few seconds.
pub(crate) fn short_lived(stack: &Stack, token: &str, seconds: i64) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a JWT")).expect("base64");
    let claims: api::auth::Claims = serde_json::from_slice(&claims).expect("claims");
    api::auth::install();
    let tokens = api::auth::Tokens::read(stack.api.keys(), stack.api.url(), false).expect("keys");
    let made_at = claims.iat + seconds - api::auth::LIFETIME;
    let made_at = chrono::DateTime::from_timestamp(made_at, 0).expect("a time");
    tokens.sign(claims.tenant, claims.user, &claims.rol, claims.sid, made_at).expect("signs")
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it_and_shows_nothing_after_that() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let lasting = stack.postgres.sql(
        "select 4 + extract(epoch from clock_timestamp())::bigint - (select extract(epoch from max(issued_at))::bigint from refresh_token)",
    );
    let brief = ana.admin.with_token(&short_lived(&stack, ana.admin.token(), lasting.parse().unwrap()));
    let mut by_token = brief.stream("/api/events/stream", &[]).await.unwrap();
    let ticket = brief.post("/api/events/ticket", json!({})).await.ok()["ticket"].as_str().unwrap().to_owned();
    let mut by_ticket = ana.admin.stranger().stream(&format!("/api/events/stream?ticket={ticket}"), &[]).await.unwrap();
    let seen = ana.happens(PEER).await;
    for stream in [&mut by_token, &mut by_ticket] {
        assert_eq!(job(&stream.event(SOON).await), seen);
    }
    let mut point = stack.points().arm("token.expires_mid_stream");
    ana.happens(PEER).await;
    let arrivals = [point.arrived().await, point.arrived().await];
    harness::until("the token's end", SOON, || async { (brief.get("/api/me").await.body["code"] == "token_expired").then_some(()) }).await;
    drop(point);
    for arrival in arrivals {
        arrival.reply(Word::Go).await;
    }
    for stream in [&mut by_token, &mut by_ticket] {
        assert_eq!(end_of(stream).await.0, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_and_goes_on_where_it_stopped() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let start = head(&ana).await;
    let mut stuck = ana.admin.stream("/api/events/stream", &[]).await.unwrap();
    let held = format!("{:?}", stack.redis.command(&["KEYS", "zg:*:held:*:streams"]).await);
    assert!(held.contains("streams"), "it is counted: {held}");
    // More than the connection holds, and more than a thousand behind that.
    stack.postgres.sql(
        "with c as (update tenant_counter set seq = seq + 4000 returning tenant, seq)
         insert into event (tenant, seq, day, id, type, at, data)
         select tenant, seq - 4000 + n, current_date, gen_random_uuid(), 'moon.landed', now(), jsonb_build_object('x', repeat('x', 8000))
           from c, generate_series(1, 4000) n",
    );
    ana.happens(PEER).await;
    // The place of a stream that was ended is free again.
    harness::until("the stream to be ended", Duration::from_secs(20), || async {
        let left = format!("{:?}", stack.redis.command(&["KEYS", "zg:*:held:*:streams"]).await);
        (!left.contains("streams")).then_some(())
    })
    .await;
    let mut last = start;
    let mut why = String::new();
    while let Some(said) = stuck.next(SOON).await {
        if let Some(event) = said.data {
            assert_eq!(seq(&event), last + 1, "without a hole");
            last += 1;
        }
        why = said.comment.unwrap_or(why);
    }
    assert!(last < start + 4000 && (why.is_empty() || why == "ends: too_slow"), "{last} {why}");
    let mut again = ana.admin.stream("/api/events/stream", &[("last-event-id", &last.to_string())]).await.unwrap();
    for expected in last + 1..=start + 4001 {
        assert_eq!(seq(&again.event(SOON).await), expected);
    }
}

#[tokio::test]
async fn a_stream_whose_client_stood_still_ends_rather_than_tell_what_was_judged_long_ago() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let start = head(&ana).await;
    let mut stuck = ana.admin.stream("/api/events/stream", &[]).await.unwrap();
    // More than the connection holds, and fewer than are waited for.
    stack.postgres.sql(
        "with c as (update tenant_counter set seq = seq + 900 returning tenant, seq)
         insert into event (tenant, seq, day, id, type, at, data)
         select tenant, seq - 900 + n, current_date, gen_random_uuid(), 'moon.landed', now(), jsonb_build_object('x', repeat('x', 40000))
           from c, generate_series(1, 900) n",
    );
    ana.happens(PEER).await;
    let told = std::time::Instant::now();
    harness::until_true("it to stand still", SOON, async || told.elapsed() > Duration::from_secs(8)).await;
    stack.postgres.sql("update event set data = '{\"erased\": true}'");
    let mut last = start;
    while let Some(said) = stuck.next(SOON).await {
        if let Some(event) = said.data {
            assert_eq!(seq(&event), last + 1, "without a hole");
            last += 1;
        }
    }
    assert!(last < start + 900, "it ends");
    let mut again = ana.admin.stream("/api/events/stream", &[("last-event-id", &last.to_string())]).await.unwrap();
    for expected in last + 1..=start + 901 {
        let event = again.event(SOON).await;
        assert_eq!((seq(&event), &event["data"]), (expected, &serde_json::json!({"erased": true})));
    }
}

#[tokio::test]
async fn a_keys_stream_ends_within_a_second_of_the_keys_or_its_makers_end_and_narrows_with_its_maker() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let maker = ana.person("ADMIN").await;
    let of_maker = |change: &str| format!("update app_user set {change} where email = '{}'", maker.email);
    let key = async || {
        let made = harness::until("the maker to count again", SOON, || async {
            let made = maker.client.post("/api/keys", json!({"name": "m", "scopes": ["events:read"]})).await;
            (made.status == StatusCode::CREATED).then_some(made.body)
        });
        ana.client.stranger().with_token(made.await["secret"].as_str().unwrap())
    };
    let ends = [
        "update api_key set revoked_at = clock_timestamp()".to_owned(),
        "update api_key set expires_at = clock_timestamp()".to_owned(),
        of_maker("state = 'disabled'"),
    ];
    for end in ends {
        let mut stream = key().await.stream("/api/events/stream", &[]).await.unwrap();
        stack.postgres.sql(&end);
        let (events, took) = end_of(&mut stream).await;
        assert_eq!(events, Vec::<Value>::new());
        assert!(took < Duration::from_millis(1300), "{took:?} after {end}");
        stack.postgres.sql(&of_maker("state = 'active'"));
    }
    // What its maker does not see any more it does not see: the stream goes on without it.
    let mut stream = key().await.stream("/api/events/stream", &[]).await.unwrap();
    let happens = async || {
        let (_, job) = ana.chat(PEER).await;
        ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
        job
    };
    let seen = happens().await;
    assert_eq!(job(&stream.event(SOON).await), seen);
    stack.postgres.sql(&of_maker("rol = 'EMPLEADO'"));
    tokio::time::timeout(SOON, async { while maker.client.get("/api/me").await.status == StatusCode::OK {} })
        .await
        .expect("the role of now counts");
    happens().await;
    let head = ana.client.events(0).await.last().map(seq).unwrap();
    passes(&mut stream, head).await;
}

#[tokio::test]
async fn an_event_is_not_shown_whose_grant_goes_while_it_is_judged() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let granted = ana.happens(PEER).await;
    ana.grant(&stack, &granted);
    let mut stream = ana.clerk.stream("/api/events/stream", &[]).await.unwrap();
    let mut point = stack.points().arm("rights.revoke_mid_stream");
    ana.happens(PEER).await;
    let arrival = point.arrived().await;
    ana.ungrant(&stack);
    drop(point);
    arrival.reply(Word::Go).await;
    passes(&mut stream, head(&ana).await).await;
}

#[tokio::test]
async fn a_long_poll_whose_token_ends_while_it_waits_shows_nothing_more() {
    let stack = Stack::start().await;
    let ana = company(&stack, "ana").await;
    let lasting = stack.postgres.sql(
        "select 6 + extract(epoch from clock_timestamp())::bigint - (select extract(epoch from max(issued_at))::bigint from refresh_token)",
    );
    let brief = ana.admin.with_token(&short_lived(&stack, ana.admin.token(), lasting.parse().unwrap()));
    let after = head(&ana).await;
    let mut point = stack.points().arm("token.expires_mid_stream");
    let poll = {
        let brief = brief.clone();
        tokio::spawn(async move { brief.get(&format!("/api/events?after={after}&wait=20")).await })
    };
    // Nothing shows when it waits: what happens goes on until it is woken.
    let arrival = loop {
        ana.happens(PEER).await;
        tokio::select! {
            arrival = point.arrived() => break arrival,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    };
    harness::until("the token's end", SOON, || async { (brief.get("/api/me").await.body["code"] == "token_expired").then_some(()) }).await;
    drop(point);
    arrival.reply(Word::Go).await;
    let polled = poll.await.unwrap();
    assert_eq!((polled.status, &polled.body["code"]), (StatusCode::UNAUTHORIZED, &json!("token_expired")));
}
