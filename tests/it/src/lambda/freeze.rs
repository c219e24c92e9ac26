//! Between two invocations the process stands still, for as long as AWS likes, and its connections may die in that time.

use std::time::{Duration, Instant};

use harness::{Proxy, Stack, lambda::Function, process::alive};
use rustix::process::Signal;
use serde_json::json;

use super::ways::{Call, Seen, Way};
use crate::PEER;

const WITHIN: Duration = Duration::from_secs(30);
/// Longer than what counts as a freeze.
const LONG: Duration = Duration::from_millis(5_500);

struct Frozen {
    stack: Stack,
    function: Function,
    postgres: Proxy,
    redis: Proxy,
    call: Call,
}

impl Frozen {
    /// A function that reaches its stores through proxies, warm.
    async fn start() -> Self {
        let stack = Stack::start().await;
        let ana = stack.tenant("ana").await;
        let (database_url, redis_url) = (stack.postgres.url(), stack.redis.url());
        let (postgres, redis) = (Proxy::before(&database_url).unwrap(), Proxy::before(&redis_url).unwrap());
        let (database_url, redis_url) = (postgres.url(&database_url), redis.url(&redis_url));
        let function = stack.function_with("buffered", database_url, redis_url).await;
        let call = Call::new("POST", "/api/messages").by(&ana.client);
        let call = call.json(json!({"to": PEER, "type": "text", "text": "x", "whenUnavailable": "queue"}).to_string());
        let frozen = Self { stack, function, postgres, redis, call };
        frozen.answers(Duration::from_secs(10)).await;
        frozen
    }

    /// A send goes through both stores: the row in Postgres, and the entry in Redis before the answer.
    async fn answers(&self, within: Duration) {
        let (before, began) = (self.entries().await, Instant::now());
        let answer = Seen::of_event(&self.function.runtime.invoke(Way::Http.event(&self.call), WITHIN).await);
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        assert!(began.elapsed() < within, "it took {:?}", began.elapsed());
        assert_eq!(self.entries().await, before + 1, "it is in its lane");
    }

    async fn entries(&self) -> i64 {
        let keys: Vec<String> = redis::from_redis_value(self.stack.redis.command(&["KEYS", "zg:*:lane:*"]).await).unwrap();
        match keys.first() {
            Some(key) => redis::from_redis_value(self.stack.redis.command(&["ZCARD", key]).await).unwrap(),
            None => 0,
        }
    }

    fn cut(&self, how: fn(&Proxy)) {
        how(&self.postgres);
        how(&self.redis);
    }

    async fn freeze(&self, long: Duration, meanwhile: impl FnOnce()) {
        self.function.process.signal(Signal::STOP);
        meanwhile();
        tokio::time::sleep(long).await;
        self.function.process.signal(Signal::CONT);
        assert!(alive(self.function.process.pid()));
    }
}

#[tokio::test]
async fn after_a_freeze_in_which_the_servers_hung_up_the_next_invocation_is_answered() {
    let frozen = Frozen::start().await;
    frozen.freeze(Duration::from_millis(200), || frozen.cut(Proxy::cut)).await;
    frozen.answers(Duration::from_secs(2)).await;
    frozen.freeze(LONG, || frozen.cut(Proxy::cut)).await;
    frozen.answers(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn after_a_long_freeze_connections_that_fell_silent_are_not_even_tried() {
    let frozen = Frozen::start().await;
    frozen.freeze(LONG, || frozen.cut(Proxy::silence)).await;
    // Less than any of them may take to show that it lives.
    frozen.answers(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn after_a_short_freeze_connections_that_fell_silent_cost_a_deadline_and_are_replaced() {
    let frozen = Frozen::start().await;
    frozen.freeze(Duration::from_millis(200), || frozen.postgres.silence()).await;
    frozen.answers(Duration::from_secs(5)).await;
    // Redis does not answer: the send is accepted all the same, and the next one finds a connection that works.
    frozen.freeze(Duration::from_millis(200), || frozen.redis.silence()).await;
    let answer = Seen::of_event(&frozen.function.runtime.invoke(Way::Http.event(&frozen.call), WITHIN).await);
    assert_eq!(answer.status, 202);
    frozen.answers(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_container_too_gets_rid_of_connections_that_fell_silent() {
    let frozen = Frozen::start().await;
    // Nothing is frozen here: the process runs on and nobody tells it.
    frozen.cut(Proxy::silence);
    let answer = Seen::of_event(&frozen.function.runtime.invoke(Way::Url.event(&frozen.call), WITHIN).await);
    assert_eq!(answer.status, 202);
    frozen.answers(Duration::from_secs(1)).await;
}
