//! Erasure through every store and transport, and for how long tenants keep things.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::time::Duration;

use contract::{ChatId, HostId, OwnerId, TenantId, event::MessageSource};
use harness::{
    Stack, Tenant,
    faults::Word,
    receiver::{Receiver, Reply},
    until, until_true,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use store::{
    Held,
    contacts::{self, Member, NewContact},
    incoming::Incoming,
    leases::{self, Claimable},
};

use crate::everything::{keys, tables, told};

const SOON: Duration = Duration::from_secs(30);
const QUICK: &str = r#"{"lookEveryMs": 100, "claimMs": 3000, "heartbeatEveryMs": 1000}"#;
const DIGITS: &str = "5511888880000";
const LID: &str = "120984357612345@lid";
const GROUP: &str = "120363041234567890@g.us";
/// What must be nowhere any more: the person's addresses and name, and what was said.
const SECRETS: [&str; 6] = [DIGITS, "120984357612345", "Beatriz", "pão de queijo", "segredo nosso", "pedido-77"];

/// What a host writes, without one.
struct Pretend {
    pool: PgPool,
    redis: queue::Redis,
    held: Held,
}

impl Pretend {
    async fn of(stack: &Stack, tenant: &Tenant) -> Self {
        let redis = queue::Redis::connect(&stack.redis.url()).await.unwrap().with_firehose_bodies(true);
        let pool = stack.db().await;
        let (session, id) = (tenant.session.parse().unwrap(), tenant.id.parse().unwrap());
        let sql = "update session set account = '5511999990000', linked_at = now() - interval '1 hour', state = 'working', wanted = 'running' where id = $1";
        sqlx::query(sql).bind(contract::SessionId::uuid(session)).execute(&pool).await.unwrap();
        let claim = Claimable { tenant: id, session, epoch: 0, owned: false, has_work: false };
        let held = leases::bump(&pool, &claim, OwnerId::new(), HostId::new()).await.unwrap().unwrap();
        Self { pool, redis, held }
    }

    async fn observe(&self, names: &[&str]) -> ChatId {
        let names: Vec<_> = names.iter().map(|n| n.parse().unwrap()).collect();
        store::aliases::observe(&self.pool, &self.held, &names, Some("Beatriz")).await.unwrap().unwrap().chat
    }

    async fn record(&self, chat: ChatId, wa_id: &str, text: &str, group: bool) {
        let now = store::snapshot::now(&self.pool).await.unwrap().timestamp();
        let message = Incoming {
            chat,
            from_me: false,
            sender: if group { LID.into() } else { String::new() },
            sender_lid: Some(LID.into()),
            sender_phone: Some(DIGITS.into()),
            wa_id: wa_id.into(),
            kind: "text".into(),
            body: Some(text.into()),
            ack: 0,
            at: now - 5,
            reply_to: None,
            source: MessageSource::Phone,
            announce: true,
            recovered: false,
            row_id: None,
            sender_name: Some("Beatriz".into()),
        };
        let events = store::incoming::record(&self.pool, &self.held, &[message], None).await.unwrap().unwrap();
        queue::events::publish(&self.pool, &self.redis, self.held.tenant(), &events).await.unwrap();
    }
}

fn count(job: &Value, store: &str) -> u64 {
    let erased = job["result"]["erased"].as_array().unwrap();
    erased.iter().find(|e| e["store"] == store).unwrap()["count"].as_u64().unwrap()
}

#[tokio::test]
async fn nothing_of_an_erased_person_is_left_in_any_store_or_told_by_any_transport() {
    let mut stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let receiver = Receiver::start().await;
    // A receiver that repeats what it is told.
    receiver.answers(|got| Reply::Full(200, Vec::new(), got.body["data"]["message"]["text"].to_string().into_bytes()));
    let hook = ana.client.post("/api/webhooks", json!({"name": "crm", "url": receiver.url("/in")})).await.ok();
    let hook = format!("/api/webhooks/{}", hook["id"].as_str().unwrap());
    let host = Pretend::of(&stack, &ana).await;
    let (chat, group) = (host.observe(&[LID, &format!("{DIGITS}@c.us")]).await, host.observe(&[GROUP]).await);
    let person = NewContact { lid: Some(LID.into()), phone: Some(DIGITS.into()), name: Some("Beatriz".into()), push_name: None };
    contacts::learn(&host.pool, &host.held, &[person]).await.unwrap();
    contacts::members(&host.pool, &host.held, group, &[Member { wa_id: LID.into(), is_admin: false }], true).await.unwrap();
    sqlx::query("update chat set name = 'Turma' where id = $1").bind(group.uuid()).execute(&host.pool).await.unwrap();
    host.record(chat, "3A01", "tem pão de queijo?", false).await;
    host.record(group, "3A02", "segredo nosso", true).await;
    let body = json!({"type": "text", "text": "pão de queijo: acabou", "reference": "pedido-77"});
    let path = format!("/api/chats/{DIGITS}/messages");
    let sent = ana.client.ask(Method::POST, &path, &[("idempotency-key", "once")], Some(body)).await.ok();
    let worker = stack.teller(r#"{"leaseMs": 2000, "lookEveryMs": 200}"#).await;
    receiver.until("both messages", SOON, |all| all.iter().filter(|g| g.body["type"] == "message").count() == 2).await;
    until_true("both to be settled", SOON, async || {
        let page = ana.client.get(&format!("{hook}/deliveries?type=message&state=delivered")).await.ok();
        page["items"].as_array().unwrap().len() == 2
    })
    .await;
    for exported in [DIGITS.to_owned(), group.to_string()] {
        let path = format!("/api/chats/{exported}/exports");
        let job = ana.client.ask(Method::POST, &path, &[("idempotency-key", "once")], None).await.ok();
        let job = ana.client.ended(job["id"].as_str().unwrap(), SOON).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"].as_array().unwrap().len(), 2);
    drop(worker);
    let (rows, entries) = (tables(&host.pool).await, keys(&stack).await);
    for secret in SECRETS {
        assert!(!told(&rows, secret).is_empty(), "the test wrote {secret}");
    }
    assert!(told(&entries, "segredo nosso").len() >= 2, "in the tenant's stream and in the firehose");

    // Killed where the rows are gone and the streams are not; another one goes on.
    let mut at_streams = stack.points().arm_once("worker.erase.streams");
    let mut first = stack.try_worker(QUICK).await.unwrap();
    let asked = ana.client.post("/api/privacy/erasures", json!({"contact": format!("+{DIGITS}")})).await;
    assert_eq!((asked.status, &asked.body["kind"]), (StatusCode::ACCEPTED, &json!("eraseContact")), "{}", asked.body);
    let job = asked.body["id"].as_str().unwrap().to_owned();
    at_streams.arrived().await.reply(Word::Die).await;
    first.process.wait(SOON).await.expect("it dies");
    let half = ana.client.job(&job).await;
    assert_eq!((&half["state"], &half["waitingFor"]), (&json!("running"), &json!("worker")));
    assert!(half["progress"]["done"].as_u64() > Some(0), "{half}");
    let _second = stack.try_worker(QUICK).await.unwrap();
    let ended = ana.client.ended(&job, SOON).await;
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("succeeded"), &json!(2)), "{ended}");

    let (rows, entries) = (tables(&host.pool).await, keys(&stack).await);
    for secret in SECRETS {
        assert_eq!(told(&rows, secret), Vec::<String>::new(), "{secret} is still in Postgres");
        assert_eq!(told(&entries, secret), Vec::<String>::new(), "{secret} is still in Redis");
    }
    assert_eq!(
        ["queuedJobs", "messages", "jobs", "idempotencyKeys", "contacts", "memberships"].map(|s| count(&ended, s)),
        [1, 3, 1, 1, 1, 1]
    );
    assert!(count(&ended, "webhookDeliveries") >= 2 && count(&ended, "chats") == 1, "{ended}");
    assert!(count(&ended, "streamEntries") >= 4 && count(&ended, "exports") == 2, "{ended}");
    assert_eq!(ana.client.get("/api/exports").await.ok()["items"], json!([]));
    assert!(ended["result"]["kept"].as_array().unwrap().iter().any(|k| k["what"] == "phone" && k["why"].is_string()));
    assert_eq!(ana.client.job(sent["id"].as_str().unwrap()).await["error"]["code"], "contact_erased");

    // Each way to read the log tells the tombstone, under the same id and seq.
    let log = ana.client.events(0).await;
    let erased: Vec<&Value> = log.iter().filter(|e| e["data"] == json!({"erased": true})).collect();
    assert_eq!(erased.iter().filter(|e| e["type"] == "message").count(), 2);
    let mut stream = ana.client.stream("/api/events/stream?after=0", &[]).await.unwrap();
    for event in &log {
        assert_eq!(stream.event(SOON).await, *event);
    }
    let notice = log.iter().find(|e| e["type"] == "contact.erased").unwrap();
    assert_eq!((&notice["data"]["erasure"]["job"], &notice["data"]["erasure"]["chats"]), (&json!(job), &json!([chat])));
    let page = ana.client.get(&format!("{hook}/deliveries?type=message&state=delivered")).await.ok();
    for delivery in page["items"].as_array().unwrap() {
        let before = receiver.got().len();
        ana.client.post(&format!("{hook}/deliveries/{}/redeliver", delivery["id"].as_str().unwrap()), json!({})).await.ok();
        let got = receiver.until("the event again", SOON, |all| {
            all[before..].iter().any(|g| g.header("webhook-id") == delivery["event"].as_str().unwrap())
        });
        let again = got.await[before..].iter().find(|g| g.body["id"] == delivery["event"]).unwrap().body.clone();
        assert_eq!(again["data"], json!({"erased": true}));
    }

    // Who did it is written down, and whom it was about is not; nobody else's tenant is touched.
    let audit = ana.client.get("/api/audit?action=contact.erased").await.ok();
    assert_eq!(audit["items"][0]["detail"]["job"], json!(job));
    assert!(ana.client.get(&format!("/api/chats/{DIGITS}")).await.status == StatusCode::NOT_FOUND);
    assert_eq!(ana.client.get(&format!("/api/chats/{chat}")).await.ok()["name"], Value::Null);
    assert_eq!(ana.client.get(&format!("/api/chats/{group}")).await.ok()["name"], "Turma");
    assert!(bea.client.events(0).await.iter().all(|e| e["type"] != "contact.erased"));
}

#[tokio::test]
async fn what_is_told_while_its_person_is_erased_leaves_no_answer_and_what_waited_behind_it_is_told_as_erased() {
    let mut stack = Stack::start().await;
    let (ana, receiver) = (stack.tenant("ana").await, Receiver::start().await);
    receiver.answers(|got| Reply::Full(200, Vec::new(), got.body["data"]["message"]["text"].to_string().into_bytes()));
    let hook = json!({"name": "crm", "url": receiver.url("/in"), "types": ["message"], "orderedBy": "chat"});
    ana.client.post("/api/webhooks", hook).await.ok();
    let host = Pretend::of(&stack, &ana).await;
    let chat = host.observe(&[LID, &format!("{DIGITS}@c.us")]).await;
    let mut at_answer = stack.points().arm_once("webhook.after_response");
    host.record(chat, "3A01", "tem pão de queijo?", false).await;
    host.record(chat, "3A02", "segredo nosso", false).await;
    let _worker = stack.try_worker(QUICK).await.unwrap();
    let answered = at_answer.arrived().await;
    let asked = ana.client.post("/api/privacy/erasures", json!({"contact": DIGITS})).await.ok();
    let ended = ana.client.ended(asked["id"].as_str().unwrap(), SOON).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");

    answered.reply(Word::Go).await;
    let got = receiver.until("both messages", SOON, |all| all.len() == 2).await;
    assert_eq!(got[1].body["data"], json!({"erased": true}), "it had been read before");
    let settled = "select count(*) from webhook_delivery where state = 'delivered' and type = 'message'";
    until_true("both to be settled", SOON, async || sqlx::query_scalar::<_, i64>(settled).fetch_one(&host.pool).await.unwrap() == 2).await;
    let rows = tables(&host.pool).await;
    for secret in SECRETS {
        assert_eq!(told(&rows, secret), Vec::<String>::new(), "{secret} is in Postgres");
    }
}

#[tokio::test]
async fn an_erasure_is_asked_for_by_an_admin_for_a_person_and_once_a_key() {
    let stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let ask = async |body: Value| ana.client.post("/api/privacy/erasures", body).await;
    for (body, field) in [
        (json!({"contact": GROUP}), "contact"),
        (json!({"contact": "abc"}), "contact"),
        (json!({"contact": DIGITS, "session": "Not A Name"}), "session"),
    ] {
        let answer = ask(body.clone()).await;
        assert_eq!((answer.status, &answer.body["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{body}: {}", answer.body);
    }
    assert_eq!(ask(json!({"contact": DIGITS, "session": "nobodys"})).await.status, StatusCode::NOT_FOUND);
    let host = Pretend::of(&stack, &bea).await;
    let theirs = host.observe(&[LID]).await;
    assert_eq!(ask(json!({"contact": theirs})).await.status, StatusCode::NOT_FOUND, "another tenant's chat");
    let group = host.observe(&[GROUP]).await;
    assert_eq!(bea.client.post("/api/privacy/erasures", json!({"contact": group})).await.body["field"], "contact");

    let body = json!({"contact": DIGITS});
    let once = async || {
        let key = [("idempotency-key", "k1")];
        ana.client.ask(Method::POST, "/api/privacy/erasures", &key, Some(body.clone())).await
    };
    let (first, again) = (once().await, once().await);
    assert_eq!((first.status, again.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.body["id"], again.body["id"]);
    assert_eq!((&first.body["waitingFor"], &first.body["progress"]), (&json!("worker"), &Value::Null), "no session is needed");
    let id = first.body["id"].as_str().unwrap();
    assert_eq!(ana.client.post(&format!("/api/jobs/{id}/cancel"), json!({})).await.ok()["state"], "cancelled");
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_in_the_middle_is_begun_again_and_ends_once() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let mut begun = stack.points().arm("worker.job.begun");
    let mut first = stack.try_worker(QUICK).await.unwrap();
    let job = ana.client.post("/api/privacy/erasures", json!({"contact": DIGITS})).await.ok()["id"].as_str().unwrap().to_owned();
    begun.arrived().await.reply(Word::Die).await;
    first.process.wait(SOON).await.expect("it dies");
    assert_eq!(ana.client.job(&job).await["state"], "running");
    let _others = (stack.try_worker(QUICK).await.unwrap(), stack.try_worker(QUICK).await.unwrap());
    let again = begun.arrived().await;
    assert_eq!(again.ids["job"], job);
    again.reply(Word::Go).await;
    drop(begun);
    let ended = ana.client.ended(&job, SOON).await;
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("succeeded"), &json!(2)));
    let ends =
        ana.client.events(0).await.into_iter().filter(|e| e["type"] == "job.updated" && e["data"]["job"]["id"] == json!(job)).count();
    assert_eq!(ends, 1);
}

#[tokio::test]
async fn a_tenant_keeps_things_for_a_shorter_time_than_the_operator_and_never_for_longer() {
    let mut stack = Stack::start().await;
    let (ana, bea) = (stack.tenant("ana").await, stack.tenant("bea").await);
    let limits = json!({"eventDays": 30, "messageDays": 180, "deliveryDays": 7, "auditDays": 400});
    let fresh = ana.client.get("/api/retention").await.ok();
    assert_eq!(fresh, json!({"eventDays": null, "messageDays": null, "deliveryDays": null, "auditDays": null, "limits": limits}));
    let patch = async |body: Value| ana.client.patch("/api/retention", body).await;
    for (body, field) in [(json!({"deliveryDays": 8}), "deliveryDays"), (json!({"eventDays": 0}), "eventDays")] {
        let refused = patch(body.clone()).await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("invalid_body")), "{body}");
        assert_eq!(refused.body["field"], field);
    }
    patch(json!({"messageDays": 10, "deliveryDays": 3})).await.ok();
    let changed = patch(json!({"messageDays": null})).await.ok();
    assert_eq!((&changed["messageDays"], &changed["deliveryDays"]), (&Value::Null, &json!(3)), "what is left out stays, null goes");
    let audit = ana.client.get("/api/audit?action=retention.changed").await.ok();
    assert_eq!(audit["items"][1]["detail"], json!({"messageDays": 10, "deliveryDays": 3}));

    // Deliveries of 2, 5 and 8 days ago, and one that has waited for 8.
    let db = stack.db().await;
    for tenant in [&ana, &bea] {
        sqlx::raw_sql(AssertSqlSafe(format!(
            "insert into webhook (id, tenant, created_by, name, url, secret, cursor_seq, state)
             values ('{0}', '{0}', '{0}', 'x', 'https://x.example', '', 1000000, 'paused');
             insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state, finished_at, created_at)
             select gen_random_uuid(), '{0}', '{0}', gen_random_uuid(), 1, 'message', 'live', 'delivered', now() - make_interval(days => n), now()
               from unnest(array[2, 5, 8]) n;
             insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state, created_at)
             values (gen_random_uuid(), '{0}', '{0}', gen_random_uuid(), 1, 'message', 'live', 'waiting', now() - interval '8 days')",
            tenant.id.parse::<TenantId>().unwrap().uuid()
        )))
        .execute(&db)
        .await
        .unwrap();
    }
    let _worker = stack.try_worker(r#"{"lookEveryMs": 100, "everyMs": {"rows.retention": 300}}"#).await.unwrap();
    for (tenant, left) in [(&ana, 2_i64), (&bea, 3)] {
        until("old deliveries to go", SOON, || async {
            let sql = "select count(*) from webhook_delivery where tenant = $1";
            let id = tenant.id.parse::<TenantId>().unwrap().uuid();
            let now: i64 = sqlx::query_scalar(sql).bind(id).fetch_one(&db).await.unwrap();
            (now == left).then_some(())
        })
        .await;
    }
    let waiting: i64 = sqlx::query_scalar("select count(*) from webhook_delivery where state = 'waiting'").fetch_one(&db).await.unwrap();
    assert_eq!(waiting, 2, "what waits to be told is not old");
}
