//! A tenant that an operator deletes: nobody gets in any more, its devices are unlinked, and nothing of it is left, whatever was under way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::PathBuf;

use contract::{ProfileId, SessionId, TenantId};
use harness::{
    Stack, Tenant,
    faults::Word,
    receiver::{Receiver, Reply},
    until_true,
};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    OURS, PEER, SOON,
    everything::{keys, objects, tables, told},
};

const THEIRS: &str = "5511777770000";
const QUICK: &str = r#"{"lookEveryMs": 100, "claimMs": 3000, "heartbeatEveryMs": 1000, "everyMs": {"tenants.delete": 200,
    "snapshots.sweep": 300}}"#;

/// What names a tenant, in Postgres and elsewhere.
fn names(tenant: &Tenant) -> [String; 4] {
    let (id, session): (TenantId, SessionId) = (tenant.id.parse().unwrap(), tenant.session.parse().unwrap());
    [id.uuid().to_string(), tenant.id.clone(), session.uuid().to_string(), tenant.session.clone()]
}

/// Tables that belong to tenants and have no row of this one.
async fn tables_without(db: &PgPool, tenant: &Tenant) -> Vec<String> {
    let sql = "select c.table_name::text from information_schema.columns c join pg_class p on p.relname = c.table_name
                where c.table_schema = 'public' and c.column_name = 'tenant' and not p.relispartition order by 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(db).await.unwrap();
    let id = tenant.id.parse::<TenantId>().unwrap().uuid();
    let mut without = Vec::new();
    for table in tables {
        let sql = AssertSqlSafe(format!("select exists (select 1 from {table} where tenant = $1)"));
        if !sqlx::query_scalar::<_, bool>(sql).bind(id).fetch_one(db).await.unwrap() {
            without.push(table);
        }
    }
    without
}

/// Waits for the tenant's end; then nothing names it.
async fn gone(stack: &Stack, tenant: &Tenant, name: &str) {
    until_true("the end of the tenant", SOON, async || stack.api.delete_tenant(&tenant.id, name).is_err()).await;
    let db = stack.db().await;
    // Objects are swept an hour after their rows went.
    stack.postgres.sql("update object_leftover set due_at = now()");
    until_true("the sweep", SOON, async || stack.postgres.sql("select count(*) from object_leftover") == "0").await;
    let (rows, mut entries) = (tables(&db).await, keys(stack).await);
    // Ids of what was carried to a worker: the framework lets go of them by their age.
    entries.retain(|entry| !entry.starts_with("zg:background:"));
    for name in names(tenant) {
        assert_eq!(told(&rows, &name), Vec::<String>::new(), "{name} is still in Postgres");
        assert_eq!(told(&entries, &name), Vec::<String>::new(), "{name} is still in Redis");
    }
}

/// Makes a row of whatever a tenant can have.
async fn settle(stack: &Stack, ana: &Tenant, receiver: &Receiver) {
    receiver.answers(|_| Reply::Status(200));
    ana.client.post("/api/webhooks", json!({"name": "crm", "url": receiver.url("/in")})).await.ok();
    ana.client.post("/api/users", json!({"email": "luis@ana.example", "name": "Luis", "rol": "EMPLEADO"})).await.ok();
    let key = ana.client.post("/api/keys", json!({"name": "crm", "scopes": ["messages:read"], "sessions": [ana.session]})).await.ok();
    let all = json!({"session": "default", "all": true, "access": "read"});
    ana.client.post(&format!("/api/keys/{}/grants", key["id"].as_str().unwrap()), all).await.ok();
    ana.client.patch("/api/retention", json!({"messageDays": 10})).await.ok();
    ana.client.post("/api/sessions", json!({"name": "second"})).await.ok();
    ana.client.post("/api/sessions/second/link-page", json!({})).await.ok();
    let ticket = ana.client.post("/api/events/ticket", json!({})).await.ok()["ticket"].as_str().unwrap().to_owned();
    drop(ana.client.stranger().stream(&format!("/api/events/stream?after=0&ticket={ticket}"), &[]).await.unwrap());
    let sent = ana.client.send_once(PEER, "hello", "first").await.ok();
    ana.client.ended(sent["id"].as_str().unwrap(), SOON).await;
    let id = ana.id.parse::<TenantId>().unwrap().uuid();
    stack.postgres.sql(&format!(
        "insert into usage_limit (tenant, name, value) values ('{id}', 'sendsPerDay', 100);
         insert into object_leftover (object, tenant, due_at) values ('snapshots/was-cut-off', '{id}', now() + interval '1 day');
         insert into chat_member (chat, wa_id, tenant) select id, '1@lid', tenant from chat where tenant = '{id}'"
    ));
    for job in [
        ana.client.post(&format!("/api/chats/{PEER}/exports"), json!({})).await.ok(),
        ana.client.post("/api/privacy/erasures", json!({"contact": "5511333330000"})).await.ok(),
    ] {
        assert_eq!(ana.client.ended(job["id"].as_str().unwrap(), SOON).await["state"], "succeeded");
    }
    receiver.until("a delivery", SOON, |all| !all.is_empty()).await;
}

#[tokio::test]
async fn a_tenant_that_is_deleted_in_the_middle_of_a_send_is_unlinked_leaves_nothing_behind_and_disturbs_no_other() {
    let mut stack = Stack::start().await;
    let host = stack.host().await;
    let (ana, bea, receiver) = (stack.tenant("ana").await, stack.tenant("bea").await, Receiver::start().await);
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    bea.link(&stack.sim, THEIRS).await;
    let mut worker = stack.try_worker(QUICK).await.unwrap();
    let db = stack.db().await;
    // A stop and a start leave a snapshot.
    ana.client.post("/api/whatsapp/stop", json!({})).await.ok();
    until_true("a snapshot", SOON, async || stack.postgres.sql("select count(*) from profile_snapshot") == "1").await;
    ana.client.post("/api/whatsapp/init", json!({})).await.ok();
    ana.client.until_state("working", SOON).await;
    settle(&stack, &ana, &receiver).await;
    assert_eq!(tables_without(&db, &ana).await, Vec::<String>::new(), "the tenant has something of everything");

    let profile = format!("select profile from session where id = '{}'", names(&ana)[2]);
    let profile = ProfileId::from_uuid(stack.postgres.sql(&profile).parse().unwrap());
    let directory = host.data.join("profiles").join(profile.to_string());
    assert!(directory.exists());

    let bystander = bea.id.parse::<TenantId>().unwrap().uuid().to_string();
    let theirs = told(&tables(&db).await, &bystander).len();
    let mut started = stack.points().arm_once("host.after_start");
    let sent = ana.client.send_once(PEER, "the last", "k").await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    let held = started.arrived().await;
    let mut stream = ana.client.stream("/api/events/stream", &[]).await.unwrap();
    for (id, name) in [(&ana.id, "bea"), (&bea.id, "ana")] {
        let why = stack.api.delete_tenant(id, name).unwrap_err().to_string();
        assert!(why.contains("--name"), "{why}");
    }
    let mut rows_gone = stack.points().arm_once("worker.tenant.rows_gone");
    let marked = stack.api.delete_tenant(&ana.id, "ana").unwrap();
    assert_eq!(marked, json!({"tenant": ana.id, "state": "deleting", "sessionsLeft": 2}));
    assert_eq!(stack.postgres.sql("select string_agg(state, ' ') from webhook"), "disabled", "its webhooks are told no more");
    stream.rest(SOON).await;
    until_true("the end of its rights", SOON, async || ana.client.get("/api/whatsapp/status").await.status == StatusCode::UNAUTHORIZED)
        .await;
    assert_eq!(ana.client.try_login("admin@ana.example", &ana.password).await.status, StatusCode::UNAUTHORIZED);
    let untold = "select count(*) from session s join tenant t on t.id = s.tenant where t.state = 'deleting' and s.deleting_at is null";
    until_true("its sessions to be told", SOON, async || stack.postgres.sql(untold) == "0").await;
    held.reply(Word::Go).await;

    // The worker dies where the rows are gone and Redis still knows; another goes on.
    rows_gone.arrived().await.reply(Word::Die).await;
    worker.process.wait(SOON).await.expect("it dies");
    assert!(stack.sim.devices(OURS).await.is_empty(), "unlinked before its data went");
    let texts = stack.sim.texts(PEER, OURS).await;
    assert!(texts.starts_with(&["hello".into()]) && texts.len() <= 2, "what had been started is sent once, or not: {texts:?}");
    let _another = stack.try_worker(QUICK).await.unwrap();
    gone(&stack, &ana, "ana").await;
    let exports = objects(&stack).into_iter().filter(|path| path.starts_with(stack.objects().join("exports")));
    assert_eq!(exports.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "no export of hers is left");
    assert!(!directory.exists(), "nor is its profile on the host's disk");

    assert!(told(&tables(&db).await, &bystander).len() >= theirs, "no row of another went");
    let job = bea.client.accepted(PEER, "still here").await;
    assert_eq!(bea.client.ended(&job, SOON).await["state"], "succeeded");
    assert_eq!(bea.client.state().await, "working");
}

#[tokio::test]
async fn a_suspended_tenant_that_is_deleted_while_its_profile_is_on_its_way_is_unlinked_and_keeps_no_object() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    ana.link(&stack.sim, OURS).await;
    let _worker = stack.try_worker(QUICK).await.unwrap();
    let mut uploading = stack.points().arm_once("snapshot.uploading");
    stack.postgres.sql("update tenant set state = 'suspended'");
    let held = uploading.arrived().await;
    stack.api.delete_tenant(&ana.id, "ana").unwrap();
    until_true("its logout", SOON, async || stack.postgres.sql("select count(*) from job where kind = 'logout'") == "1").await;
    held.reply(Word::Go).await;
    gone(&stack, &ana, "ana").await;
    assert!(stack.sim.devices(OURS).await.is_empty());
    assert_eq!(objects(&stack), Vec::<PathBuf>::new());
}
