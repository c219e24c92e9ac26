//! The worker: what is kept no longer goes, what waits too long ends, and a task runs once an interval whatever dies.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use harness::{
    Stack, Tenant,
    faults::{Armed, Arrival, Word},
    until_true,
};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::PEER;

/// Longer than the queue's own second, a heartbeat, and a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Every task as often as it can.
const QUICK: &str = r#"{"lookEveryMs": 100, "claimMs": 3000, "heartbeatEveryMs": 1000, "everyMs": {"events.partitions": 500,
    "events.retention": 500, "rows.retention": 500, "jobs.expired": 500, "jobs.finished": 500, "tokens.expired": 500, "queue.tidy": 500}}"#;

async fn run(db: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.expect("the statement is right");
}

async fn count(db: &PgPool, from: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {from}"))).fetch_one(db).await.expect("the query is right")
}

/// The id as Postgres writes it.
async fn uuid(db: &PgPool, table: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(format!("select id::text from {table} limit 1"))).fetch_one(db).await.expect("there is one")
}

/// The beginning of this task; others go on.
async fn comes_to(begun: &mut Armed, task: &str) -> Arrival {
    loop {
        let arrival = begun.arrived().await;
        if arrival.ids["task"] == task {
            return arrival;
        }
        arrival.reply(Word::Go).await;
    }
}

/// A job that waits although no session works.
async fn queued(tenant: &Tenant) -> String {
    let body = json!({"type": "text", "text": "hello", "whenUnavailable": "queue"});
    tenant.client.post(&format!("/api/chats/{PEER}/messages"), body).await.ok()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_worker_says_whether_it_lives_what_it_does_and_ends_in_order() {
    let mut stack = Stack::start().await;
    let mut worker = stack.try_worker(QUICK).await.unwrap();
    let ask = async |url: String| reqwest::get(url).await.unwrap();
    assert_eq!(ask(worker.url("/livez")).await.status(), StatusCode::OK);
    let ready: Value = ask(worker.url("/readyz")).await.json().await.unwrap();
    assert_eq!(ready, json!({"status": "ready", "postgres": true, "eventPartitions": true, "redis": true}));
    until_true("a task in the numbers", SOON, || async {
        let text = ask(worker.url("/metrics")).await.text().await.unwrap();
        text.contains(r#"zaguan_task_runs_total{task="queue.tidy",outcome="done"}"#)
    })
    .await;

    stack.redis.kill().await;
    assert_eq!(ask(worker.url("/readyz")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(worker.url("/livez")).await.status(), StatusCode::OK);
    stack.redis.up().await.unwrap();
    until_true("Redis to be found again", SOON, || async { ask(worker.url("/readyz")).await.status().is_success() }).await;

    worker.process.signal(Signal::TERM);
    let status = worker.process.wait(SOON).await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn rows_that_are_kept_no_longer_go_and_the_others_stay() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let job = queued(&ana).await;
    ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
    let db = stack.db().await;
    let (tenant, session, chat) = (uuid(&db, "tenant").await, uuid(&db, "session").await, uuid(&db, "chat").await);
    // More than one batch of old ones, a few young ones; what the cancelled job wrote is young too.
    run(&db, &format!(
        "insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, status, source, sent_at)
         select gen_random_uuid(), '{tenant}', '{session}', '', '{chat}', false, 'x', n::text, 'text', 'received', 'phone',
                now() - make_interval(days => case when n <= 2500 then 181 else 179 end) from generate_series(1, 2503) n;
         insert into audit (tenant, id, at, action) select '{tenant}', gen_random_uuid(), now() - make_interval(days => n), 'x' from unnest(array[401, 399]) n;
         insert into refresh_token (hash, family, tenant, app_user, expires_at)
         select decode(md5(n::text), 'hex'), gen_random_uuid(), '{tenant}', '{tenant}', now() - make_interval(days => n) from unnest(array[2, -1]) n;
         insert into job (id, tenant, session, lane, kind, command_version, command, state, created_by, finished_at, expires_at)
         select gen_random_uuid(), '{tenant}', '{session}', 'write', 'old', 1, '{{}}', 'succeeded', '{tenant}', now() - make_interval(days => n), now()
           from unnest(array[8, 6]) n;
         insert into idempotency (tenant, principal, method, path, key, body_hash, job)
         select tenant, tenant, 'POST', '/', id::text, '', id from job where kind = 'old';
         insert into idempotency (tenant, principal, method, path, key, body_hash, job, created_at)
         select '{tenant}', '{tenant}', 'POST', '/', n::text, '', gen_random_uuid(), now() - make_interval(days => n) from unnest(array[8, 6]) n;
         update message set job = (select id from job where kind = 'old' order by finished_at limit 1) where wa_id = '2503'"
    ))
    .await;
    let tokens = count(&db, "refresh_token").await;
    let _worker = stack.try_worker(QUICK).await.unwrap();
    until_true("old rows to go", SOON, || async {
        let old = "message where sent_at < now() - interval '180 days'";
        count(&db, old).await + count(&db, "audit where at < now() - interval '400 days'").await == 0
            && count(&db, "refresh_token").await == tokens - 1
            && count(&db, "job where kind = 'old'").await == 1
            && count(&db, "idempotency").await == 2
    })
    .await;
    assert_eq!(count(&db, "message where sender = 'x'").await, 3);
    assert_eq!(count(&db, "message where wa_id = '2503' and job is null").await, 1, "a message outlives its job");
    assert_eq!(count(&db, "audit where action = 'x'").await, 1);
    assert_eq!(ana.client.job(&job).await["state"], "cancelled");
}

#[tokio::test]
async fn days_of_the_log_that_nobody_keeps_are_dropped_and_cursors_below_them_expire() {
    let mut stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    for tenant in [&ana, &bea] {
        let job = queued(tenant).await;
        tenant.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
    }
    let db = stack.db().await;
    // Each log gets 5 events of 40 days ago, 3 of 20 days ago, and its own one behind them. Bea keeps hers for 10 days only.
    run(&db,
        "delete from event;
         insert into event (tenant, seq, day, id, type, at, data)
         select tenant, n, (now() at time zone 'UTC')::date - case when n <= 5 then 40 when n <= 8 then 20 else 0 end, gen_random_uuid(), 'job.updated',
                now(), jsonb_build_object('erased', true) from tenant_counter, generate_series(1, 9) n;
         update tenant_counter set seq = 9;
         insert into retention (tenant, event_days) select tenant, 10 from app_user where email = 'admin@bea.example'",
    )
    .await;
    let _worker = stack.try_worker(QUICK).await.unwrap();
    for (tenant, oldest) in [(&ana, 6), (&bea, 9)] {
        until_true("the floor to move", SOON, || async {
            let answer = tenant.client.get("/api/events?after=0").await;
            answer.status == StatusCode::GONE && answer.body["oldest"] == oldest && answer.body["code"] == "cursor_expired"
        })
        .await;
        let page = tenant.client.get("/api/events").await.ok();
        assert_eq!(page["items"][0]["seq"], oldest, "the log begins above its floor");
        assert_eq!(
            tenant.client.get(&format!("/api/events?after={}", oldest - 1)).await.ok()["items"].as_array().unwrap().len(),
            10 - oldest
        );
    }
    let old = "pg_inherits where inhparent = 'event'::regclass and inhrelid::regclass::text < 'event_' || to_char(now() - interval '31 days', 'YYYYMMDD')";
    assert_eq!(count(&db, old).await, 0, "the day itself is gone, not just its rows");
}

#[tokio::test]
async fn a_day_without_a_partition_is_still_written_and_gets_its_place_later() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let db = stack.db().await;
    run(&db, "do $$ begin execute 'drop table event_' || to_char(now() at time zone 'UTC', 'YYYYMMDD'); end $$").await;
    let job = queued(&ana).await;
    ana.client.post(&format!("/api/jobs/{job}/cancel"), json!({})).await.ok();
    assert_eq!(count(&db, "event_default").await, 1);
    let ready = ana.client.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["status"]), (StatusCode::OK, &json!("degraded")));
    let before = ana.client.events(0).await;

    let _worker = stack.try_worker(QUICK).await.unwrap();
    until_true("the API to be ready", SOON, || async { ana.client.get("/readyz").await.body["status"] == "ready" }).await;
    assert_eq!(count(&db, "event_default").await, 0);
    assert_eq!(ana.client.events(0).await, before);
    let ahead = "pg_inherits where inhparent = 'event'::regclass and inhrelid::regclass::text > 'event_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')";
    assert_eq!(count(&db, &format!("{ahead} and inhrelid::regclass::text <> 'event_default'")).await, 7);
}

#[tokio::test]
async fn a_job_whose_time_ran_out_ends_although_no_host_runs() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let (late, waiting) = (queued(&ana).await, queued(&ana).await);
    let db = stack.db().await;
    run(&db, "update job set expires_at = now() - interval '1 second' where position = 1").await;
    let _worker = stack.try_worker(QUICK).await.unwrap();
    let event = ana.client.event("the end of the late job", SOON, |e| e["type"] == "job.updated").await;
    assert_eq!((&event["data"]["job"]["id"], &event["data"]["job"]["error"]["code"]), (&json!(late), &json!("job_expired")));
    assert_eq!(ana.client.job(&late).await["state"], "expired");
    assert_eq!(ana.client.job(&waiting).await["state"], "queued");
    assert_eq!(count(&db, "message where status = 'failed'").await, 1);
    // It is in the tenant's stream too, not only in the log.
    until_true("the event in Redis", SOON, || async {
        let keys: Vec<String> = redis::from_redis_value(stack.redis.command(&["KEYS", "zg:*:ev:*"]).await).unwrap();
        keys.len() == 1
    })
    .await;
}

#[tokio::test]
async fn two_workers_never_begin_one_release_twice_nor_one_task_twice_in_an_interval() {
    let mut stack = Stack::start().await;
    let mut begun = stack.points().arm("worker.task.begun");
    let every = Duration::from_millis(1500);
    let schedule =
        r#"{"lookEveryMs": 50, "heartbeatEveryMs": 1000, "everyMs": {"jobs.expired": 1500, "queue.tidy": 1500, "tokens.expired": 1500}}"#;
    let _workers = (stack.try_worker(schedule).await.unwrap(), stack.try_worker(schedule).await.unwrap());
    let mut last: HashMap<String, (String, Instant)> = HashMap::new();
    let mut repeats = 0;
    while repeats < 12 {
        let arrival = begun.arrived().await;
        let (task, round) = (arrival.ids["task"].as_str().unwrap().to_owned(), arrival.ids["round"].as_str().unwrap().to_owned());
        if let Some((before, at)) = last.insert(task.clone(), (round.clone(), Instant::now())) {
            assert!(round.parse::<u64>().unwrap() > before.parse::<u64>().unwrap(), "{task}: {round} after {before}");
            // The interval counts from the beginning as Postgres saw it, a moment before the point.
            assert!(at.elapsed() > every - Duration::from_millis(300), "{task} again after {:?}", at.elapsed());
            repeats += 1;
        }
        arrival.reply(Word::Go).await;
    }
}

#[tokio::test]
async fn a_task_whose_worker_is_killed_in_the_middle_runs_again() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let job = queued(&ana).await;
    let db = stack.db().await;
    run(&db, "update job set expires_at = now() - interval '1 second'").await;
    let mut begun = stack.points().arm("worker.task.begun");
    // The interval is an hour: only the lapsed claim can bring it back.
    let schedule = r#"{"lookEveryMs": 100, "claimMs": 3000, "heartbeatEveryMs": 1000, "everyMs": {"jobs.expired": 3600000}}"#;
    let mut first = stack.try_worker(schedule).await.unwrap();
    comes_to(&mut begun, "jobs.expired").await.reply(Word::Die).await;
    assert!(!first.process.wait(SOON).await.expect("it dies").success());
    assert_eq!(ana.client.job(&job).await["state"], "queued");
    let _second = stack.try_worker(schedule).await.unwrap();
    let again = comes_to(&mut begun, "jobs.expired").await;
    assert_eq!(again.ids["round"], "2");
    again.reply(Word::Go).await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "expired");
}

#[tokio::test]
async fn tasks_go_on_after_redis_lost_everything_or_was_away() {
    let mut stack = Stack::start().await;
    let worker = stack.try_worker(QUICK).await.unwrap();
    let db = stack.db().await;
    let runs = async || -> i64 {
        sqlx::query_scalar("select begun from background_task where name = 'jobs.expired' and error is null")
            .fetch_one(&db)
            .await
            .unwrap_or(0)
    };
    until_true("a first run", SOON, async || runs().await > 0).await;
    stack.redis.command(&["FLUSHALL"]).await;
    let before = runs().await;
    until_true("two runs after the flush", SOON, async || runs().await > before + 1).await;
    stack.redis.kill().await;
    until_true("the worker to notice", SOON, async || worker.process.log().contains("not taking tasks")).await;
    stack.redis.up().await.unwrap();
    let before = runs().await;
    until_true("two runs after the outage", SOON, async || runs().await > before + 1).await;
}

#[tokio::test]
async fn what_is_old_in_the_streams_of_redis_goes() {
    let mut stack = Stack::start().await;
    for entry in [["XADD", "zg:{7}:firehose", "1000-0", "tenant", "x"], ["XADD", "zg:{7}:firehose", "*", "tenant", "x"]] {
        stack.redis.command(&entry).await;
    }
    let _worker = stack.try_worker(r#"{"lookEveryMs": 100, "everyMs": {"streams.trim": 300}}"#).await.unwrap();
    let left = || async { stack.redis.command(&["XLEN", "zg:{7}:firehose"]).await == redis::Value::Int(1) };
    until_true("the older entry to go", SOON, left).await;
}
