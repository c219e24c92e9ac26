//! The documented command: what AWS's own developers run functions with on their machines.

use harness::Stack;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::ways::{Call, Seen, Way};
use crate::PEER;

#[tokio::test]
async fn behind_the_emulator_of_cargo_lambda_a_function_answers_what_the_container_answers() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let emulated = stack.emulated().await;
    let http = reqwest::Client::new();
    let send = json!({"to": PEER, "type": "text", "text": "é \u{1F600}", "whenUnavailable": "queue"}).to_string();
    let calls = [
        (200, Call::new("GET", "/livez")),
        (401, Call::new("GET", "/api/jobs")),
        (202, Call::new("POST", "/api/messages").by(&ana.client).header("idempotency-key", "the-same").json(send)),
        (200, Call::new("GET", "/api/jobs").by(&ana.client).query("limit=1")),
        (400, Call::new("POST", "/api/auth/login").json("{")),
        (404, Call::new("GET", "/api/chats/5511777770000").by(&ana.client)),
    ];
    for (status, call) in calls {
        // Asked first, so that the function's answer to a repeated send is the replay that the container's second one is.
        Seen::of_container(&stack.api.url(), &call).await;
        let container = Seen::of_container(&stack.api.url(), &call).await.steady();
        assert_eq!(container.status, status, "{call:?}");

        let url = format!("{}/2015-03-31/functions/zaguan-api/invocations", emulated.url);
        for way in Way::ALL {
            let answer: Value = http.post(&url).json(&way.event(&call)).send().await.expect("it answers").json().await.expect("JSON");
            assert_eq!(Seen::of_event(&answer).steady(), container, "{way:?} {call:?}");
        }

        // The function URL: the emulator makes the event out of a request, and an answer out of what the function says.
        let url = format!("{}/lambda-url/zaguan-api{}?{}", emulated.url, call.path, call.query);
        let headers: HeaderMap = call.headers.iter().map(|(n, v)| (n.parse().expect("a name"), v.parse().expect("a value"))).collect();
        let request = http.request(call.method.parse().expect("a method"), url).headers(headers).body(call.body.clone());
        let answer = request.send().await.expect("it answers");
        assert_eq!(u64::from(answer.status().as_u16()), status, "{call:?}");
        let body = Seen { status, headers: container.headers.clone(), body: answer.bytes().await.expect("a body").to_vec() };
        assert_eq!(body.steady(), container, "{call:?}");
    }
}
