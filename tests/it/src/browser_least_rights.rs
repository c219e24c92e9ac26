//! The users of `infra/redis/users.acl` and the role that `migrate` equips have what the services need, and no more.

use harness::{
    Stack,
    services::{Api, Host, Worker},
    until_true,
};
use redis::Value;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    PEER, SOON,
    lambda::ways::{Call, Seen, Way},
};

const ACL: &str = include_str!("../../../infra/redis/users.acl");

/// Makes the users of the file, each with its own name as its password.
async fn make_users(stack: &Stack) {
    for line in ACL.lines().filter(|line| !line.starts_with("user default")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let (name, password) = (words[0], format!(">{}", words[0]));
        let rules = words[1..].iter().map(|word| if word.starts_with('#') { &password } else { *word });
        stack.redis.command(&[&["ACL", "SETUSER", name], rules.collect::<Vec<_>>().as_slice()].concat()).await;
    }
}

fn redis_url(stack: &Stack, user: &str) -> String {
    stack.redis.url().replace("redis://", &format!("redis://{user}:{user}@"))
}

/// What Redis refused.
async fn refused(stack: &Stack) -> Value {
    stack.redis.command(&["ACL", "LOG"]).await
}

#[tokio::test]
async fn every_service_does_its_work_with_the_rights_that_an_operator_is_told_to_give_it() {
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    make_users(&stack).await;
    sqlx::raw_sql("create role zaguan_app login").execute(&stack.db().await).await.unwrap();
    let app_url = stack.postgres.url().replace("zaguan@", "zaguan_app@");
    Api::migrate_for(&stack.told(stack.postgres.url(), stack.redis.url()), "zaguan_app").unwrap();

    // The API: accept, push, wake, publish, follow.
    let api = stack.function_with("buffered", app_url.clone(), redis_url(&stack, "api")).await;
    let ask = async |call: Call| Seen::of_event(&api.runtime.invoke(Way::Url.event(&call), SOON).await);
    let send = Call::new("POST", "/api/messages").by(&ana.client);
    let sent = ask(send.json(json!({"to": PEER, "type": "text", "text": "x", "whenUnavailable": "queue"}).to_string())).await;
    let job: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    let job = job["id"].as_str().unwrap();
    let answers = [
        sent.status,
        ask(Call::new("POST", format!("/api/jobs/{job}/cancel")).by(&ana.client)).await.status,
        ask(Call::new("POST", "/api/whatsapp/init").by(&ana.client)).await.status,
        ask(Call::new("GET", "/api/whatsapp/qr").by(&ana.client)).await.status,
        ask(Call::new("GET", "/api/events").query("after=9&wait=1").by(&ana.client)).await.status,
        ask(Call::new("GET", "/api/events").query("after=2&wait=1").by(&ana.client)).await.status,
        ask(Call::new("GET", "/readyz")).await.status,
    ];
    assert_eq!(answers, [202, 200, 202, 503, 409, 200, 200]);
    assert_eq!(refused(&stack).await, Value::Array(vec![]), "of the API");
    assert!(!api.process.log().contains(r#""level":"ERROR""#), "{}", api.process.log());

    // The worker: a task through the queue, and its readiness.
    let schedule = r#"{"lookEveryMs": 100, "heartbeatEveryMs": 1000}"#;
    let worker = Worker::start(&stack.told(stack.postgres.url(), redis_url(&stack, "worker")), "worker", schedule, "{}").await.unwrap();
    until_true("every task to be done once", SOON, async || {
        let text = reqwest::get(worker.url("/metrics")).await.unwrap().text().await.unwrap();
        text.lines().filter(|l| l.starts_with("zaguan_task_runs_total") && l.contains(r#"outcome="done""#)).count() == 12
    })
    .await;
    assert_eq!(refused(&stack).await, Value::Array(vec![]), "of the worker");

    // A host: it says that it lives, claims the session that is wanted, and shows its code.
    let data = stack.folder().join("data");
    let told = stack.told(app_url.clone(), redis_url(&stack, "host"));
    let host = Host::start(&told, "host", &data, &stack.sim.browser_args(), 1).await.unwrap();
    ana.client.until_state("linking", SOON).await;
    until_true("a code", SOON, async || ana.client.get("/api/whatsapp/qr").await.status.is_success()).await;
    // Again, a heartbeat later: more than what it does at its start.
    let beat = async || stack.redis.command(&["ZRANGE", "zg:hosts", "0", "-1", "WITHSCORES"]).await;
    let first = beat().await;
    until_true("two heartbeats", SOON, async || beat().await != first).await;
    assert_eq!(refused(&stack).await, Value::Array(vec![]), "of the host");
    drop(host);

    // And no more.
    let app = PgPool::connect(&app_url).await.unwrap();
    assert!(sqlx::raw_sql("drop table event").execute(&app).await.is_err());
    assert!(sqlx::raw_sql("create table x (y int)").execute(&app).await.is_err());
    for (user, command) in [
        ("api", &["FLUSHALL"][..]),
        ("api", &["KEYS", "*"]),
        ("api", &["GET", "other"]),
        ("host", &["CONFIG", "SET", "maxmemory", "1"]),
        ("worker", &["SET", "other", "1"]),
        ("firehose", &["SET", "zg:{1}:firehose", "1"]),
    ] {
        let mut connection = redis::Client::open(redis_url(&stack, user)).unwrap().get_multiplexed_async_connection().await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        assert!(asked.query_async::<Value>(&mut connection).await.is_err(), "{user}: {command:?}");
    }
}
