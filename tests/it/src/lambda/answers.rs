//! The same answer by every way, and nothing left behind it.

use std::time::Duration;

use harness::{PAGE_ORIGIN, Stack, Tenant, faults::Word, until_true};
use serde_json::{Value, json};

use super::ways::{Call, Seen, Way};
use crate::PEER;

/// Longer than any wait of these calls.
const WITHIN: Duration = Duration::from_secs(30);

/// Calls with the status that the container gives them. `true`: an encoded slash is in the path.
fn calls(ana: &Tenant) -> Vec<(u64, Call, bool)> {
    let me = &ana.client;
    let get = |path: &str| Call::new("GET", path).by(me);
    let login = |body: &[u8]| Call::new("POST", "/api/auth/login").json(body.to_vec());
    let too_large = [br#"{"email": ""#.to_vec(), vec![b'x'; 4 * 1024 * 1024], br#"""#.to_vec()].concat();
    let plain = vec![
        (200, Call::new("GET", "/livez")),
        (200, Call::new("GET", "/openapi.json")),
        (404, get("/api/nowhere")),
        (405, Call::new("DELETE", "/api/jobs").by(me)),
        (401, Call::new("GET", "/api/jobs")),
        // From a page of another origin, and what its browser asks first.
        (200, get("/api/jobs").query("limit=1").header("origin", PAGE_ORIGIN)),
        (200, get("/api/jobs").query("limit=1").header("origin", "https://evil.example")),
        (200, Call::new("OPTIONS", "/api/jobs").header("origin", PAGE_ORIGIN).header("access-control-request-method", "GET")),
        (401, Call::new("GET", "/api/jobs").header("authorization", "Bearer x.y.z")),
        (200, get("/api/jobs").query("limit=1")),
        (200, get("/api/sessions/default/status")),
        // Bodies.
        (400, login(b"{")),
        (400, login(b"{\"email\": \"\xff\xfe\"}")),
        (422, login(br#"{"email": "a", "password": 1}"#)),
        (415, Call { body: b"{}".to_vec(), ..Call::new("POST", "/api/auth/login").header("content-type", "text/plain") }),
        (413, login(&too_large)),
        // Queries, encoded and not.
        (200, get("/api/events").query("types=message%2Cjob.updated&after=2&limit=5")),
        (400, get("/api/events").query("types=mess%61ge%252Cjob.updated")),
        (400, get("/api/events").query("limit=a%26b")),
        (400, get("/api/events").query("nope=%C3%A9%20x")),
        (410, get("/api/events").query("after=1")),
        // Ids in paths: percent-decoded once.
        (200, get(&format!("/api/chats/%2B{PEER}"))),
        (200, get(&format!("/api/chats/{PEER}%40c.us"))),
        (400, get(&format!("/api/chats/{PEER}%2540c.us"))),
        (400, get("/api/chats/%D9%A1%D9%A2%D9%A3%D9%A4%D9%A5%D9%A6%D9%A7%D9%A8")),
        (400, get("/api/chats/12345678%00")),
        (400, get("/api/chats/%20")),
        (400, get("/api/chats/..")),
        (404, get("/api/chats/../jobs/x")),
        // A code as JSON, as a picture and as text.
        (200, get("/api/whatsapp/qr")),
        (200, get("/api/whatsapp/qr").header("accept", "image/png")),
        (200, get("/api/whatsapp/qr").header("accept", "image/svg+xml")),
        (406, get("/api/whatsapp/qr").header("accept", "text/html")),
        // Held for a second: a reader follows the log meanwhile.
        (200, get("/api/events").query("after=2&wait=1")),
    ];
    let slashes = [(400, get("/api/chats/12345678%2F..")), (400, get("/api/chats/a%2Fb/messages"))];
    plain.into_iter().map(|(s, c)| (s, c, false)).chain(slashes.into_iter().map(|(s, c)| (s, c, true))).collect()
}

/// A tenant with a chat, a log of two events of which the first is gone, and a code to scan.
async fn prepared(stack: &Stack) -> Tenant {
    let ana = stack.tenant("ana").await;
    for _ in 0..2 {
        let body = json!({"type": "text", "text": "hello", "whenUnavailable": "queue"});
        let job = ana.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok();
        ana.client.post(&format!("/api/jobs/{}/cancel", job["id"].as_str().expect("a text")), json!({})).await.ok();
    }
    let db = stack.db().await;
    sqlx::raw_sql(
        "update session set state = 'linking'; update tenant_counter set floor_seq = 3, seq = 3;
         update chat set last_message_at = now()",
    )
    .execute(&db)
    .await
    .expect("Postgres answers");
    let shard = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(ana.id.as_bytes()) % 512;
    stack.redis.command(&["SET", &format!("zg:{{{shard}}}:qr:{}", ana.session), "2@a-code", "PX", "600000"]).await;
    ana
}

#[tokio::test]
async fn a_function_answers_what_the_container_answers_whoever_brings_the_call() {
    let stack = Stack::start().await;
    let ana = prepared(&stack).await;
    let function = stack.function().await;
    let mut wrong = Vec::new();
    for (status, call, slash) in calls(&ana) {
        let container = Seen::of_container(&stack.api.url(), &call).await.steady();
        let named = format!("{} {}?{}", call.method, call.path, call.query);
        if container.status != status {
            wrong.push(format!("{named}: the container: {} {}", container.status, String::from_utf8_lossy(&container.body)));
        }
        for way in Way::ALL {
            let answer = function.runtime.invoke(way.event(&call), WITHIN).await;
            let seen = Seen::of_event(&answer).steady();
            if slash && way.decodes_path() {
                assert!([400, 404].contains(&seen.status), "{way:?} {named}: {}", seen.status);
                continue;
            }
            let binary = container.headers.get("content-type").is_some_and(|t| t[0] == "image/png");
            if seen != container || answer["isBase64Encoded"] != json!(binary) {
                wrong.push(format!("{way:?} {named}:\n{seen:?}\ninstead of\n{container:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_send_by_any_way_is_one_job_for_one_key() {
    let stack = Stack::start().await;
    let ana = prepared(&stack).await;
    let function = stack.function().await;
    let call = Call::new("POST", "/api/messages").by(&ana.client).header("idempotency-key", "the-same");
    let call = call.json(json!({"to": PEER, "type": "text", "text": "é \u{1F600}", "whenUnavailable": "queue"}).to_string());
    let first = Seen::of_event(&function.runtime.invoke(Way::Http.event(&call), WITHIN).await);
    assert_eq!(first.status, 202, "{}", String::from_utf8_lossy(&first.body));
    let job: Value = serde_json::from_slice(&first.body).expect("JSON");
    let mut seen = vec![Seen::of_container(&stack.api.url(), &call).await];
    for way in Way::ALL {
        seen.push(Seen::of_event(&function.runtime.invoke(way.event(&call), WITHIN).await));
    }
    for again in seen {
        assert_eq!((again.status, &again.headers["location"]), (202, &first.headers["location"]));
        assert_eq!(again.headers["idempotency-replayed"], ["true"]);
        assert_eq!(serde_json::from_slice::<Value>(&again.body).expect("JSON")["id"], job["id"]);
    }
    let body: String = sqlx::query_scalar("select body from message where job is not null order by created_at desc limit 1")
        .fetch_one(&stack.db().await)
        .await
        .expect("Postgres answers");
    assert_eq!(body, "é \u{1F600}");
}

#[tokio::test]
async fn nothing_is_left_to_do_when_a_function_has_answered() {
    let stack = Stack::start().await;
    let ana = prepared(&stack).await;
    let function = stack.function().await;
    // What was accepted is in its lane before the answer goes out, however long that takes.
    let before = entries(&stack).await;
    let mut committed = stack.points().arm_once("api.accept.committed");
    let call = Call::new("POST", "/api/messages").by(&ana.client);
    let call = call.json(json!({"to": PEER, "type": "text", "text": "x", "whenUnavailable": "queue"}).to_string());
    let answer = async { Seen::of_event(&function.runtime.invoke(Way::Http.event(&call), WITHIN).await) };
    let hold = async {
        let arrival = committed.arrived().await;
        assert_eq!(entries(&stack).await, before, "committed, and not pushed yet");
        arrival.reply(Word::Delay(300)).await;
    };
    let (answer, ()) = tokio::join!(answer, hold);
    assert_eq!((answer.status, entries(&stack).await), (202, before + 1));

    // A held request follows the log over a connection of its own. It is closed with the answer, not some time later.
    let held = Call::new("GET", "/api/events").query("after=3&wait=2").by(&ana.client);
    let listening = async || stack.redis.command(&["PUBSUB", "CHANNELS", "zg:*:new:*"]).await != redis::Value::Array(vec![]);
    let answer = async { Seen::of_event(&function.runtime.invoke(Way::Http.event(&held), WITHIN).await) };
    let (answer, ()) = tokio::join!(answer, until_true("the reader to listen", WITHIN, &listening));
    assert_eq!(answer.status, 200);
    assert!(!function.process.log().contains("not everything had ended"));
    until_true("Redis to see the connection's end", Duration::from_secs(1), async || !listening().await).await;
}

/// Entries of the session's write lane.
async fn entries(stack: &Stack) -> i64 {
    let keys: Vec<String> = redis::from_redis_value(stack.redis.command(&["KEYS", "zg:*:lane:*:write"]).await).expect("of that type");
    redis::from_redis_value(stack.redis.command(&["ZCARD", &keys[0]]).await).expect("of that type")
}

#[tokio::test]
async fn a_function_that_streams_gives_the_same_bytes_after_a_prelude() {
    let stack = Stack::start().await;
    let ana = prepared(&stack).await;
    let function = stack.function_with("streaming", stack.postgres.url(), stack.redis.url()).await;
    for (status, path) in [(200, "/api/whatsapp/qr"), (200, "/api/jobs"), (404, "/api/nowhere")] {
        let call = Call::new("GET", path).by(&ana.client).header("accept", "image/png, application/json;q=0.5");
        let container = Seen::of_container(&stack.api.url(), &call).await;
        let raw = function.runtime.raw(Way::Url.event(&call), WITHIN).await.expect("it answers");
        let end = raw.windows(8).position(|w| w == [0; 8]).expect("a prelude ends with eight zero bytes");
        let prelude: Value = serde_json::from_slice(&raw[..end]).expect("JSON");
        assert_eq!((prelude["statusCode"].as_u64(), container.status), (Some(status), status));
        assert_eq!(prelude["headers"]["content-type"], json!(container.headers["content-type"][0]));
        if path.ends_with("qr") {
            assert_eq!(raw[end + 8..], container.body);
        }
    }
}

#[tokio::test]
async fn a_stream_ends_by_itself_in_a_function_and_goes_on_behind_its_last_id_and_there_are_no_sockets() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let happens = async || {
        let (_, job) = ana.chat(PEER).await;
        ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
        job
    };
    let seen = happens().await;
    let function = stack.function().await;
    let call = Call::new("GET", "/api/events/stream").query("after=0").by(&ana.client);
    let answer = Seen::of_event(&function.runtime.invoke(Way::Http.event(&call), WITHIN).await);
    let text = String::from_utf8(answer.body).expect("text");
    let told = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event");
    let event: Value = serde_json::from_str(told).expect("an envelope");
    assert_eq!((answer.status, &event["data"]["job"]["id"]), (200, &json!(seen)));
    assert!(text.trim_end().ends_with(": ends: stopping"), "{text}");
    let last = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("a cursor");
    let missed = happens().await;
    let mut again = ana.client.stream("/api/events/stream", &[("last-event-id", last)]).await.expect("goes on");
    assert_eq!(again.event(WITHIN).await["data"]["job"]["id"], json!(missed));

    let call = Call::new("GET", "/socket.io/").query("EIO=4&transport=websocket");
    let refused = Seen::of_event(&function.runtime.invoke(Way::Http.event(&call), WITHIN).await);
    let problem: Value = serde_json::from_slice(&refused.body).expect("a problem");
    assert_eq!((refused.status, &problem["code"]), (501, &json!("unsupported")));
}
