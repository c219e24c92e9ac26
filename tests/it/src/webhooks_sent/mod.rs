//! Telling webhooks: in order, all of them, signed, whatever dies; and never to where they must not go.

mod ends;
mod kinds;
mod order;
mod outages;
mod reach;
mod workers;

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{TenantId, WebhookId};
use harness::{
    Stack, Tenant,
    receiver::{Got, Receiver},
    until_true,
};
use ring::hmac;
use serde_json::{Value, json};
use service::{
    Environment,
    seal::{MasterKeys, Purpose},
};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

/// Longer than a lease, a retry and a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Quick in all; a receiver that fails is tried again every tenth of a second, for ever.
fn quick() -> String {
    timings(&json!({}))
}

/// The same with changes.
fn timings(changes: &Value) -> String {
    let mut timings =
        json!({"leaseMs": 2000, "lookEveryMs": 200, "connectWithinMs": 1000, "answerWithinMs": 2000, "retryAfterMs": vec![100; 5000]});
    for (name, value) in changes.as_object().expect("the test made it so") {
        timings[name] = value.clone();
    }
    timings.to_string()
}

/// A tenant's webhook, made as its row: what can be asked of it over HTTP is tested elsewhere.
struct Hook {
    db: PgPool,
    redis: queue::Redis,
    tenant: TenantId,
    id: WebhookId,
    secret: String,
}

impl Hook {
    async fn of(stack: &Stack, tenant: &Tenant, url: &str) -> Self {
        Self::with(stack, tenant, url, json!({})).await
    }

    /// One with columns of its own.
    async fn with(stack: &Stack, tenant: &Tenant, url: &str, columns: Value) -> Self {
        let (db, redis) = (stack.db().await, queue::Redis::connect(&stack.redis.url()).await.expect("the test made it so"));
        let hook = Self {
            db,
            redis,
            tenant: tenant.id.parse().expect("the test made it so"),
            id: WebhookId::new(),
            secret: format!("whsec_{}", harness::random_key()),
        };
        let keys = MasterKeys { master_key: stack.master_key().into(), master_key_previous: None };
        let sealer = keys.sealer(Environment::Development).expect("the test made it so");
        let sealed = sealer.seal(Purpose::WebhookSecret, hook.id.uuid().as_bytes(), hook.secret.as_bytes()).expect("the test made it so");
        let headers = json!({"x-own": "a header of ours", "host": "elsewhere.example", "webhook-id": "forged"}).to_string();
        let headers = sealer.seal(Purpose::WebhookHeaders, hook.id.uuid().as_bytes(), headers.as_bytes()).expect("the test made it so");
        let mut row = json!({"ordered_by": "endpoint", "concurrency": 1, "types": [], "ignore_groups": false, "ignore_status": false, "ignore_own": false});
        for (name, value) in columns.as_object().expect("the test made it so") {
            row[name] = value.clone();
        }
        sqlx::query(
            "insert into webhook (id, tenant, created_by, name, url, secret, headers, cursor_seq, types, sessions, chats, ignore_groups, ignore_status,
                                  ignore_own, ordered_by, concurrency)
             select $1, $2, $2, 'ours', $3, $4, $5, (select seq from tenant_counter where tenant = $2), r.types, r.sessions, r.chats, r.ignore_groups,
                    r.ignore_status, r.ignore_own, r.ordered_by, r.concurrency from jsonb_populate_record(null::webhook, $6) r",
        )
        .bind(hook.id.uuid())
        .bind(hook.tenant.uuid())
        .bind(url)
        .bind(sealed)
        .bind(headers)
        .bind(row)
        .execute(&hook.db)
        .await
        .expect("the test made it so");
        hook.wake().await;
        hook
    }

    /// What the API does after each change; Redis may be away.
    async fn wake(&self) {
        let _ = queue::hooks::wake(&self.redis, self.id).await;
    }

    /// Writes `count` events, and tells those who listen.
    async fn emit(&self, count: i64) -> i64 {
        self.emit_in(count, None).await
    }

    /// The same, of a chat.
    async fn emit_in(&self, count: i64, chat: Option<Uuid>) -> i64 {
        let head: i64 = sqlx::query_scalar(
            "with c as (update tenant_counter set seq = seq + $2 where tenant = $1 returning seq),
                  e as (insert into event (tenant, seq, day, id, type, at, chat, data)
                        select $1, c.seq - $2 + n, (now() at time zone 'UTC')::date, gen_random_uuid(), 'message', now(), $3,
                               jsonb_build_object('message', jsonb_build_object(
                               'id', 'msg_01m886gp7pexm9q2wv46b8c17c', 'text', 'number ' || n, 'fromMe', n % 2 = 0, 'type', 'text',
                               'status', 'sent', 'ack', 1, 'source', 'phone', 'sentBy', null, 'waId', '3EB0', 'sender', null, 'replyTo', null,
                               'timestamp', '2026-01-01T00:00:00.000Z', 'recovered', false, 'job', null, 'reference', null))
                          from c, generate_series(1, $2) n)
             select seq from c",
        )
        .bind(self.tenant.uuid())
        .bind(count)
        .bind(chat)
        .fetch_one(&self.db)
        .await
        .expect("the test made it so");
        let _ = queue::events::catch_up(&self.db, &self.redis, self.tenant, head).await;
        head
    }

    /// One value of its row.
    async fn get<T>(&self, column: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let sql = AssertSqlSafe(format!("select {column} from webhook where id = $1"));
        sqlx::query_scalar(sql).bind(self.id.uuid()).fetch_one(&self.db).await.expect("the test made it so")
    }

    async fn set(&self, columns: &str) {
        sqlx::query(AssertSqlSafe(format!("update webhook set {columns} where id = $1")))
            .bind(self.id.uuid())
            .execute(&self.db)
            .await
            .expect("the test made it so");
    }

    /// How many of its deliveries are so.
    async fn count(&self, how: &str) -> i64 {
        let sql = AssertSqlSafe(format!("select count(*) from webhook_delivery where webhook = $1 and {how}"));
        sqlx::query_scalar(sql).bind(self.id.uuid()).fetch_one(&self.db).await.expect("the test made it so")
    }

    /// One value of its only delivery that is so.
    async fn of_delivery<T>(&self, column: &str, how: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let sql = AssertSqlSafe(format!("select {column} from webhook_delivery where webhook = $1 and {how} order by id desc limit 1"));
        sqlx::query_scalar(sql).bind(self.id.uuid()).fetch_one(&self.db).await.expect("the test made it so")
    }

    /// What waits is due, and has failed for `days` already.
    async fn days_pass(&self, days: f64) {
        self.set(&format!("failing_since = failing_since - make_interval(secs => {})", days * 86400.0)).await;
        let sql = "update webhook_delivery set next_at = next_at - make_interval(secs => $2) where webhook = $1 and state = 'waiting'";
        sqlx::query(sql).bind(self.id.uuid()).bind(days * 86400.0).execute(&self.db).await.expect("the test made it so");
    }

    async fn settled(&self, seq: i64) {
        until_true("the cursor to arrive", SOON, async || self.get::<i64>("cursor_seq").await >= seq).await;
    }

    /// Whether a request is signed with its secret, as Standard Webhooks says.
    fn signed(&self, got: &Got) -> bool {
        let key =
            hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(self.secret.trim_start_matches("whsec_")).expect("the test made it so"));
        let said = [got.header("webhook-id").as_bytes(), b".", got.header("webhook-timestamp").as_bytes(), b".", &got.raw].concat();
        got.header("webhook-signature")
            .split(' ')
            .filter_map(|s| STANDARD.decode(s.strip_prefix("v1,")?).ok())
            .any(|s| hmac::verify(&key, &said, &s).is_ok())
    }
}

/// All of `from..=to` came, in order at their first coming; one that came again had the same id and body. Answers how many came again.
fn complete(receiver: &Receiver, from: i64, to: i64) -> usize {
    let (mut next, mut seen, got) = (from, BTreeSet::new(), receiver.got());
    for got in &got {
        assert_eq!(got.header("webhook-id"), got.body["id"], "the id is the event's");
        if seen.insert(got.header("webhook-id").to_owned()) {
            assert_eq!(got.seq(), next, "each in its turn: {:?}", receiver.seqs());
            next += 1;
        } else {
            assert!(got.seq() < next, "a repetition is of one that came");
        }
    }
    assert_eq!(next, to + 1, "all of them came");
    got.len() - seen.len()
}

/// Waits until the event of this `seq` has come.
async fn comes(receiver: &Receiver, seq: i64) -> Vec<Got> {
    receiver.until(&format!("event {seq}"), SOON, |got| got.iter().any(|g| g.seq() == seq)).await
}
