//! Which hosts ask for which sessions: an idle fleet costs nothing but its heartbeats, and one session that cannot be claimed holds up no other.

use std::{collections::BTreeMap, time::Duration};

use contract::HostId;
use harness::{Settings, Stack, until_true};
use serde_json::json;
use sqlx::Connection;

use crate::SOON;

async fn calls(stack: &Stack) -> BTreeMap<String, i64> {
    let redis::Value::BulkString(info) = stack.redis.command(&["INFO", "commandstats"]).await else { panic!("INFO is text") };
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    String::from_utf8_lossy(&info).lines().filter_map(calls).collect()
}

#[tokio::test]
async fn two_idle_hosts_ask_redis_for_none_of_the_sessions_that_a_third_one_holds() {
    let mut stack = Stack::start().await;
    let (_a, _b) = (stack.host().await, stack.host().await);
    let ana = stack.tenant("ana").await;
    let third = HostId::new();
    stack.redis.command(&["ZADD", "zg:hosts", "100000000000000", &third.to_string()]).await;
    stack.postgres.sql("update usage_limit set value = 1000");
    stack.postgres.sql(&format!(
        "insert into session (id, tenant, name, wanted, state, epoch, owner, host)
         select gen_random_uuid(), s.tenant, 's' || n, 'running', 'working', 1, gen_random_uuid(), '{}'
           from generate_series(1, 200) n, session s",
        third.uuid()
    ));
    let before = calls(&stack).await;
    let beats = |now: &BTreeMap<String, i64>| now.get("zadd").unwrap_or(&0) - before.get("zadd").unwrap_or(&0);
    until_true("ten rounds of both", SOON, || async { beats(&calls(&stack).await) >= 20 }).await;
    let after = calls(&stack).await;
    let grown = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    // A heartbeat is one record and one script; with a claim came a SET and a GET each.
    assert!((grown("set") - beats(&after)).abs() <= 2, "{} SETs in {} heartbeats", grown("set"), beats(&after));
    assert_eq!(grown("get"), 0);
    assert_eq!(ana.client.state().await, "stopped");
}

#[tokio::test]
async fn a_session_whose_claim_fails_keeps_no_other_waiting() {
    let mut stack = Stack::start().await;
    stack.tenant("ana").await;
    // Alive and unwanted: whoever claims one stops it, and needs no browser for that.
    let (stuck, next) = ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
    stack.postgres.sql(&format!(
        "insert into session (id, tenant, name, wanted, state) select i::uuid, s.tenant, right(i, 1), 'stopped', 'working'
           from unnest(array['{stuck}', '{next}']) i, session s"
    ));
    let mut other = sqlx::PgConnection::connect(&stack.postgres.url()).await.unwrap();
    let mut open = other.begin().await.unwrap();
    sqlx::query("select 1 from session where name = '1' for update").execute(&mut *open).await.unwrap();
    let _host = stack.host().await;
    let state = |id: &str| stack.postgres.sql(&format!("select state from session where id = '{id}'"));
    until_true("the one behind it", SOON, || async { state(next) == "stopped" }).await;
    assert_eq!(state(stuck), "working");
    open.rollback().await.unwrap();
    until_true("its turn", Duration::from_secs(20), || async { state(stuck) == "stopped" }).await;
}

#[tokio::test]
async fn what_a_dead_owner_holds_is_asked_for_again_when_its_lease_ends_and_not_at_the_next_look_only() {
    // No second heartbeat comes within this test, and no look with it.
    let mut stack =
        Stack::with(Settings::timed(&json!({"heartbeatEveryMs": 300_000, "hostStaleMs": 700_000}))).await.expect("a stack starts");
    stack.tenant("ana").await;
    let (dead, id) = (HostId::new(), "00000000-0000-0000-0000-000000000001");
    stack.postgres.sql(&format!(
        "insert into session (id, tenant, name, wanted, state, epoch, owner, host)
         select '{id}', s.tenant, '1', 'stopped', 'working', 1, gen_random_uuid(), '{}' from session s",
        dead.uuid()
    ));
    let session = contract::SessionId::from_uuid(id.parse().unwrap());
    let tenant = contract::TenantId::from_uuid(stack.postgres.sql("select id from tenant").parse().unwrap());
    stack.redis.command(&["SET", &queue::keys::lease(tenant, session), "1:its-owner", "PX", "4000"]).await;
    let _host = stack.host().await;
    let sql = |what: &str| stack.postgres.sql(&format!("select {what} from session where id = '{id}'"));
    until_true("its turn", SOON, || async { sql("state") == "stopped" }).await;
    assert_eq!(sql("epoch"), "2");
}
