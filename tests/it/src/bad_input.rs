//! Bad input over the whole document: whatever is sent, the answer is a clear problem, and nothing is lost.

use std::time::Duration;

use harness::Stack;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::PEER;

/// Requests that are tried.
const CASES: u32 = 1200;

/// A request as it goes over the wire: any path that is HTTP, any body.
#[derive(Debug, Clone)]
struct Request {
    operation: usize,
    path: Vec<String>,
    query: Vec<(usize, String)>,
    unknown_parameter: bool,
    token: Token,
    headers: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Good,
    None,
    Text(&'static str),
}

fn path_part() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("default".to_owned()),
        3 => Just(PEER.to_owned()),
        2 => prop::sample::select(vec![
            "%00", "..", "%2e%2e", "%2E%2E%2Fetc", "%252e", "%ff%fe", "a%2Fb", "cht_", "cht_zzzzzzzzzzzzzzzzzzzzzzzzzz", "ses_0", "job_%F0%9F%98%80",
            "job_00000000000000000000000000", "evt_7zzzzzzzzzzzzzzzzzzzzzzzzz", "5511999990000:5%40c.us", "%D9%A1%D9%A2%D9%A3%D9%A4%D9%A5%D9%A6%D9%A7",
            "55%20119", "status%40broadcast", "-", "null", "%7B%7D", "'%3B--", "0", "999999999999999999999",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9_@.-]{1,40}",
        1 => Just("a".repeat(5000)),
    ]
}

fn query_value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "-1",
            "0",
            "1",
            "201",
            "1e9",
            "99999999999999999999",
            "NaN",
            "%00",
            "%ff",
            "true",
            "a,b",
            "%F0%9F%98%80",
            "default",
            PEER
        ])
        .prop_map(str::to_owned),
        "[A-Za-z0-9_.-]{1,60}",
        Just("x".repeat(6000)),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["text", "ADMIN", "\u{202E}", "a\nb\u{1b}[31m", "a@b.example", "queue", "2020-01-01T00:00:00Z"])
            .prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "type",
        "text",
        "to",
        "name",
        "email",
        "password",
        "refreshToken",
        "expiresIn",
        "reference",
        "whenUnavailable",
        "allowNewAccount",
        "__proto__",
        "x",
        "rol",
        "chat",
        "session",
        "access",
        "scopes",
        "phone",
        "settings",
        "url",
        "types",
        "headers",
        "state",
        "seq",
        "since",
    ]);
    leaf.prop_recursive(4, 30, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..5).prop_map(|m| json!(m))
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => json_value().prop_map(|v| v.to_string().into_bytes()),
        2 => any::<String>().prop_map(|text| json!({"type": "text", "text": text, "to": PEER, "whenUnavailable": "queue"}).to_string().into_bytes()),
        2 => any::<String>().prop_map(|text| json!({"type": "text", "text": text, "whenUnavailable": "queue"}).to_string().into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(br#"{"text": "\ud800", "type": "text"}"#.to_vec()),
        1 => Just(b"{\"text\": \"\xff\xfe\"}".to_vec()),
        1 => Just([b"[".repeat(3000), b"]".repeat(3000)].concat()),
        1 => Just(b"{\"a\":".repeat(3000)),
        1 => Just(Vec::new()),
    ]
}

fn request(operations: usize) -> impl Strategy<Value = Request> {
    let token = prop_oneof![
        8 => Just(Token::Good),
        1 => Just(Token::None),
        1 => prop::sample::select(vec![
            "Bearer", "Bearer ", "Bearer a.b.c", "Basic YTpi", "Bearer zgk_00000000000000000000000000_x", "bearer \u{e9}",
            "Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJ1c2VySWQiOiJ4In0.",
        ]).prop_map(Token::Text),
    ];
    let header = prop_oneof![
        (Just("idempotency-key"), prop::sample::select(vec!["k1", "", "a b", "\u{e9}"]).prop_map(str::to_owned)),
        (
            Just("prefer"),
            prop::sample::select(vec!["wait=0", "wait=0, wait=-1", "wait=0; wait=x", "wait, wait=0", "wait=0;;,,="])
                .prop_map(str::to_owned)
        ),
        (Just("accept"), prop::sample::select(vec!["*/*", "image/png", "nope", "text/*;q=x", ""]).prop_map(str::to_owned)),
        (Just("x-request-id"), prop::sample::select(vec!["ok-1", "a b", "\u{e9}"]).prop_map(str::to_owned)),
        (Just("x-forwarded-for"), Just("203.0.113.9, 10.0.0.1".to_owned())),
    ];
    let kind = prop::sample::select(vec![
        "application/json",
        "application/json",
        "application/json; charset=utf-8",
        "application/merge-patch+json",
        "text/plain",
        "",
    ]);
    (
        0..operations,
        prop::collection::vec(path_part(), 4),
        prop::collection::vec((0_usize..8, query_value()), 0..3),
        prop::bool::weighted(0.05),
        token,
        prop::collection::vec(header, 0..3),
        kind,
        body(),
    )
        .prop_map(|(operation, path, query, unknown_parameter, token, headers, content_type, body)| Request {
            operation,
            path,
            query,
            unknown_parameter,
            token,
            headers,
            content_type,
            body,
        })
}

/// An operation of the document.
struct Operation {
    method: String,
    template: String,
    query: Vec<String>,
    answers: Vec<String>,
}

/// All but those that would end the test's own login, or stay open.
fn operations(document: &Value) -> Vec<Operation> {
    let left_out = ["logout", "streamEvents"];
    let mut all = Vec::new();
    for (template, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if left_out.iter().any(|id| operation["operationId"] == *id) {
                continue;
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named = parameters.iter().filter(|p| p["in"] == "query" && p["name"] != "wait").filter_map(|p| p["name"].as_str());
            all.push(Operation {
                method: method.to_uppercase(),
                template: template.clone(),
                query: named.map(str::to_owned).collect(),
                answers: operation["responses"].as_object().expect("responses").keys().cloned().collect(),
            });
        }
    }
    all
}

fn wire(request: &Request, operation: &Operation, good: &str) -> Vec<u8> {
    let mut parts = request.path.iter();
    let mut path = String::new();
    for piece in operation.template.split_inclusive('}') {
        let (fixed, parameter) = piece.split_once('{').map_or((piece, false), |(fixed, _)| (fixed, true));
        path += fixed;
        if parameter {
            path += parts.next().map_or("x", String::as_str);
        }
    }
    let known = |n: usize| operation.query.get(n % operation.query.len().max(1));
    let mut query: Vec<_> = request.query.iter().filter_map(|(n, value)| Some(format!("{}={value}", known(*n)?))).collect();
    if request.unknown_parameter {
        query.push("unheardOf=1".to_owned());
    }
    let mut head = format!("{} {path}?{} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n", operation.method, query.join("&"));
    match request.token {
        Token::Good => head += &format!("authorization: Bearer {good}\r\n"),
        Token::None => {}
        Token::Text(text) => head += &format!("authorization: {text}\r\n"),
    }
    // Some answers are worth waiting for where nothing is said; ten seconds each are not worth it here.
    if !request.headers.iter().any(|(name, _)| *name == "prefer") {
        head += "prefer: wait=0\r\n";
    }
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if operation.method != "GET" {
        head += &format!("content-type: {}\r\ncontent-length: {}\r\n", request.content_type, request.body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    if operation.method != "GET" {
        bytes.extend(&request.body);
    }
    bytes
}

struct Answered {
    status: String,
    head: String,
    body: Vec<u8>,
}

async fn exchange(address: &str, bytes: &[u8]) -> Answered {
    let mut stream = TcpStream::connect(address).await.expect("the API listens");
    // A refusal may come before all has been read.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("an answer within 10 s").ok();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    Answered { status: head.split(' ').nth(1).unwrap_or_default().to_owned(), head, body: answer[end + 4..].to_vec() }
}

/// What is wrong with an answer, if anything. The ids of jobs that were accepted go to `accepted`.
fn judge(answer: &Answered, operation: &Operation, accepted: &mut Vec<String>) -> Result<(), String> {
    let header = |name: &str| answer.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let id = header("x-request-id").ok_or("no X-Request-Id")?;
    if let Some(job) = body["id"].as_str().filter(|id| answer.status == "202" && id.starts_with("job_")) {
        accepted.push(job.to_owned());
    }
    if answer.status.starts_with('2') {
        return if operation.answers.contains(&answer.status) { Ok(()) } else { Err("an undocumented success".to_owned()) };
    }
    if header("content-type").as_deref() != Some("application/problem+json") {
        return Err("not a problem".to_owned());
    }
    let code = body["code"].as_str().and_then(api::problem::Code::from_name).ok_or("an unknown code")?;
    let waits_for_a_person = ["session_not_working", "qr_not_ready"].contains(&code.as_str());
    if code.status().is_server_error() && !waits_for_a_person {
        return Err("our failure".to_owned());
    }
    // Dots in a path may lead to another route, or none.
    let elsewhere = ["404", "405"].contains(&answer.status.as_str());
    if !operation.answers.contains(&answer.status) && !elsewhere {
        return Err("an undocumented refusal".to_owned());
    }
    let told = body["requestId"].as_str().unwrap_or_default();
    if !told.eq_ignore_ascii_case(&id) || body["status"].as_u64() != answer.status.parse().ok() || !body["detail"].is_string() {
        return Err("not what every problem says".to_owned());
    }
    Ok(())
}

#[test]
fn whatever_is_sent_to_any_operation_the_answer_is_a_clear_problem_and_nothing_is_lost() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stack = Stack::start().await;
        let ana = stack.tenant("ana").await;
        let first =
            ana.client.post("/api/messages", json!({"to": PEER, "type": "text", "text": "kept", "whenUnavailable": "queue"})).await.ok();
        let operations = operations(&ana.client.get("/openapi.json").await.ok());
        let address = stack.api.url().trim_start_matches("http://").to_owned();
        let mut accepted = vec![first["id"].as_str().unwrap().to_owned()];

        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
        let seen = std::cell::RefCell::new(&mut accepted);
        let outcome = TestRunner::new_with_rng(config, rng).run(&request(operations.len()), |request| {
            let operation = &operations[request.operation];
            let bytes = wire(&request, operation, ana.client.token());
            let answer = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(exchange(&address, &bytes)));
            judge(&answer, operation, &mut seen.borrow_mut()).map_err(|why| {
                let text = String::from_utf8_lossy(&answer.body).chars().take(400).collect::<String>();
                TestCaseError::fail(format!("{why}: {} {} -> {} {text}", operation.method, operation.template, answer.status))
            })
        });
        if let Err(why) = outcome {
            panic!("{why}");
        }
        // A body beyond the limit, for each operation that takes one.
        for operation in operations.iter().filter(|o| o.answers.iter().any(|a| a == "413")) {
            let huge = Request {
                operation: 0,
                path: vec!["default".to_owned(), PEER.to_owned(), "x".to_owned()],
                query: Vec::new(),
                unknown_parameter: false,
                token: Token::Good,
                headers: Vec::new(),
                content_type: "application/json",
                body: vec![b' '; (4 << 20) + 1],
            };
            let answer = exchange(&address, &wire(&huge, operation, ana.client.token())).await;
            assert!(answer.status.starts_with('4'), "{} {}: {}", operation.method, operation.template, answer.status);
        }

        assert!(!accepted.is_empty(), "some of it was good: {}", accepted.len());
        for job in &accepted {
            assert_eq!(ana.client.job(job).await["id"], json!(job), "what was accepted is there");
        }
        let kept = ana.client.get(&format!("/api/chats/{PEER}/messages?limit=200")).await.ok();
        assert!(kept["items"].as_array().unwrap().iter().any(|m| m["text"] == "kept"));
        assert_eq!(ana.client.get("/readyz").await.ok()["status"], "ready");
    });
}
