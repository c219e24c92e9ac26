//! The example consumer of the firehose loses nothing and does nothing twice, whatever becomes of it and of Redis.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{
    Folder, Stack, Tenant, User,
    process::{Process, Signal},
    until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// The example, and where it keeps what it has done.
struct Example {
    folder: Folder,
    keys: BTreeMap<String, String>,
    runs: usize,
}

impl Example {
    async fn new(tenants: &[&Tenant]) -> Self {
        let folder = Folder::new(User::find().unwrap()).unwrap();
        let mut keys = BTreeMap::new();
        for tenant in tenants {
            let key = tenant.key(json!({"scopes": ["events:read"]})).await;
            keys.insert(tenant.id.clone(), key.client.token().to_owned());
        }
        std::fs::write(folder.path().join("keys.json"), json!(keys).to_string()).unwrap();
        Self { folder, keys, runs: 0 }
    }

    /// Python with the example's packages, as `.ci/setup` installs them.
    fn command(&self, arguments: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new(root.join(".venv/bin/python3"));
        command.arg(root.join("docs/examples/firehose-consumer/consumer.py")).args(arguments);
        command.env("STATE", self.path("state.db"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self, stack: &Stack, name: &str) -> Process {
        self.runs += 1;
        let mut command = self.command(&[]);
        command.env("REDIS_URL", stack.redis.url()).env("API_URL", stack.api.url()).env("KEYS_FILE", self.path("keys.json"));
        command.env("CONSUMER", name).env("CLAIM_MS", "300").env("SWEEP_S", "600");
        Process::start(&format!("consumer-{}", self.runs), self.folder.path(), command).unwrap()
    }

    /// What it has done, in the order in which it did it.
    fn done(&self) -> Vec<Value> {
        let shown = self.command(&["show"]).output().unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        String::from_utf8_lossy(&shown.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Until each of the tenants' logs has been done: every event once, in order, as the log has it.
    async fn has_done_all_of(&self, tenants: &[&Tenant]) {
        for tenant in tenants {
            let log = tenant.client.events(0).await;
            let of_it = |done: Vec<Value>| done.into_iter().filter(|e| e["tenant"] == tenant.id.as_str()).collect::<Vec<_>>();
            until("the consumer to come to the end", SOON, || async { (of_it(self.done()).len() >= log.len()).then_some(()) }).await;
            assert_eq!(of_it(self.done()), log);
        }
        assert_eq!(self.keys.len(), tenants.len());
    }
}

/// Two events for each round.
async fn something_happens(tenant: &Tenant, rounds: usize) {
    let person = tenant.person("EMPLEADO").await;
    for _ in 0..rounds {
        let body = json!({"session": "default", "all": true, "access": "read"});
        let grant = tenant.client.post(&format!("/api/users/{}/grants", person.id), body).await.ok();
        let grant = grant["id"].as_str().unwrap();
        assert!(tenant.client.delete(&format!("/api/users/{}/grants/{grant}", person.id)).await.status.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_consumer_does_each_event_once_and_in_order_through_kill_9_foreign_open_entries_and_flushall() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let both = [&ana, &bea];
    let mut example = Example::new(&both).await;

    // From before it ran for the first time, and while it runs.
    something_happens(&ana, 5).await;
    let mut consumer = example.start(&stack, "one");
    tokio::join!(something_happens(&ana, 10), something_happens(&bea, 10));
    example.has_done_all_of(&both).await;

    // Killed in the middle of it; another one took entries and is never heard of again.
    let killed = async {
        until("it is at it", SOON, || async { (!example.done().is_empty()).then_some(()) }).await;
        consumer.signal(Signal::KILL);
        consumer.wait(SOON).await.unwrap();
    };
    tokio::join!(something_happens(&ana, 10), something_happens(&bea, 10), killed);
    let (firehose, before) = (firehose_of(&stack, &bea).await, example.done().len());
    something_happens(&bea, 3).await;
    let taken = stack.redis.command(&["XREADGROUP", "GROUP", "example", "lost", "COUNT", "1000", "STREAMS", &firehose, ">"]).await;
    assert!(!matches!(taken, redis::Value::Nil), "nothing was taken");
    assert_eq!(example.done().len(), before, "nobody is at it");
    let mut consumer = example.start(&stack, "one");
    example.has_done_all_of(&both).await;
    let open = stack.redis.command(&["XPENDING", &firehose, "example"]).await;
    assert!(matches!(&open, redis::Value::Array(all) if all[0] == redis::Value::Int(0)), "{open:?}");

    // Redis forgets everything while it listens; what happened before it noticed is in no stream that it reads.
    something_happens(&ana, 1).await;
    stack.redis.command(&["FLUSHALL"]).await;
    tokio::join!(something_happens(&ana, 5), something_happens(&bea, 1));
    stack.redis.command(&["FLUSHALL"]).await;
    example.has_done_all_of(&both).await;
    assert!(consumer.log().contains("Redis has lost its data"), "{}", consumer.log());

    // And while nobody runs.
    consumer.signal(Signal::KILL);
    consumer.wait(SOON).await.unwrap();
    something_happens(&bea, 5).await;
    stack.redis.command(&["FLUSHALL"]).await;
    let _consumer = example.start(&stack, "two");
    something_happens(&ana, 2).await;
    example.has_done_all_of(&both).await;
}

/// The firehose that a tenant's events are in: the one key of that name.
async fn firehose_of(stack: &Stack, tenant: &Tenant) -> String {
    let shard = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(tenant.id.as_bytes()) % 512;
    let key = format!("zg:{{{shard}}}:firehose");
    assert_eq!(stack.redis.command(&["EXISTS", &key]).await, redis::Value::Int(1));
    key
}

#[tokio::test]
async fn the_firehoses_user_may_do_all_that_the_example_does_and_read_nothing_else() {
    let acl = include_str!("../../../infra/redis/users.acl");
    let line = acl.lines().find(|line| line.starts_with("user firehose")).unwrap().replace("#FIREHOSE_PASSWORD_SHA256", ">secret");
    let stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let mut words = vec!["ACL", "SETUSER"];
    words.extend(line.split_whitespace().skip(1));
    stack.redis.command(&words).await;
    something_happens(&ana, 3).await;

    let mut example = Example::new(&[&ana]).await;
    let mut command = example.command(&[]);
    let url = stack.redis.url().replace("redis://", "redis://firehose:secret@");
    command.env("REDIS_URL", url).env("API_URL", stack.api.url()).env("KEYS_FILE", example.path("keys.json")).env("CLAIM_MS", "300");
    let _consumer = Process::start("consumer", example.folder.path(), command).unwrap();
    example.runs += 1;
    example.has_done_all_of(&[&ana]).await;
    let events = firehose_of(&stack, &ana).await.replace("firehose", &format!("ev:{}", ana.id));
    for refused in [vec!["XRANGE", &events, "-", "+"], vec!["FLUSHALL"], vec!["GET", "zg:hosts"]] {
        let dry = [vec!["ACL", "DRYRUN", "firehose"], refused].concat();
        assert_ne!(stack.redis.command(&dry).await, redis::Value::Okay, "{dry:?}");
    }
}
