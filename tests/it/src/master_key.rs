//! The master key is changed while everything runs: nothing is lost with the old one.

use contract::{TenantId, WebhookId};
use harness::{Stack, until};
use secrecy::ExposeSecret;
use serde_json::json;
use service::{
    Environment,
    seal::{MasterKeys, Purpose, Sealer},
};

use crate::SOON;

fn sealer(key: &str) -> Sealer {
    MasterKeys { master_key: key.into(), master_key_previous: None }.sealer(Environment::Development).expect("a key")
}

#[tokio::test]
async fn what_lies_sealed_opens_after_the_master_key_was_changed_and_the_old_one_is_gone() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    let made = ana
        .client
        .post("/api/webhooks", json!({"name": "crm", "url": "http://127.0.0.1:8099/x", "headers": {"x-ours": "mine"}}))
        .await
        .ok();
    let (tenant, webhook): (TenantId, WebhookId) = (ana.id.parse().unwrap(), made["id"].as_str().unwrap().parse().unwrap());
    let (db, old) = (stack.db().await, sealer(stack.master_key()));
    let of = *tenant.uuid().as_bytes();
    store::sealed::keep_data_key(&db, tenant, &old.new_data_key(&of).unwrap()).await.unwrap();
    let (key, mut sealing) = {
        let kept = store::sealed::data_key(&db, tenant).await.unwrap().unwrap();
        old.with_data_key(&of, &kept.sealed).unwrap().stream(Purpose::Snapshot, &[1; 16]).unwrap()
    };
    let mut sealed = Vec::new();
    sealing.write(b"a profile", &mut sealed).unwrap();
    sealing.finish(&mut sealed).unwrap();
    // One that was sealed under a key that nobody has any more is told, and left.
    let other = stack.tenant("ben").await;
    let other: TenantId = other.id.parse().unwrap();
    let lost = sealer(&harness::random_key()).new_data_key(other.uuid().as_bytes()).unwrap();
    store::sealed::keep_data_key(&db, other, &lost).await.unwrap();

    stack.change_master_key(true);
    let worker = stack.try_worker(r#"{"lookEveryMs": 100, "everyMs": {"keys.rewrap": 500}}"#).await.unwrap();
    let number = async |name: &str| {
        let text = reqwest::get(worker.url("/metrics")).await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    until("all to be sealed anew", SOON, async || (number("zaguan_sealed_anew").await == Some(0.0)).then_some(())).await;
    assert_eq!(number("zaguan_sealed_under_no_known_key").await, Some(1.0));

    let new = sealer(stack.master_key());
    let hook = store::sealed::webhooks(&db, None, 10).await.unwrap().remove(0);
    let owner = webhook.uuid();
    assert!(new.open(Purpose::WebhookSecret, owner.as_bytes(), &hook.secret).is_ok());
    let headers = new.open(Purpose::WebhookHeaders, owner.as_bytes(), hook.headers.as_ref().unwrap()).unwrap();
    assert!(String::from_utf8_lossy(headers.expose_secret()).contains("mine"));
    let kept = store::sealed::data_key(&db, tenant).await.unwrap().unwrap();
    let mut opening = new.with_data_key(&of, &kept.sealed).unwrap().open_stream(Purpose::Snapshot, &[1; 16], &key).unwrap();
    let mut plain = Vec::new();
    opening.write(&sealed, &mut plain).unwrap();
    opening.finish(&mut plain).unwrap();
    assert_eq!(plain, b"a profile", "an object that was sealed before opens after");
    assert_eq!(store::sealed::data_key(&db, other).await.unwrap().unwrap().sealed, lost);
}
