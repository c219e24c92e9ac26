//! What was there before the link fills the read model without a word, and ends in one.

use std::time::Duration;

use contract::EventType;
use store::{
    history,
    owned::{self, Account, Linked},
    snapshot::Snapshot,
};

use crate::support::{OURS, PHONE, Store};

const HOUR: i64 = 3600;

async fn complete(store: &Store) -> bool {
    let mut snapshot = Snapshot::open(&store.pool, store.tenant).await.expect("answers");
    history::complete(&mut snapshot, store.tenant, store.session).await.expect("answers")
}

#[tokio::test]
async fn older_messages_are_read_and_not_announced_and_end_in_one_event() {
    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    let old: Vec<_> = (0..150).map(|n| store.incoming(chat, &format!("3A{n:03}"), 2 * HOUR + n)).collect();
    assert!(store.record(&old).await.is_empty());
    assert_eq!(store.record(&[store.incoming(chat, "3B01", 5)]).await.len(), 1, "what came after the link is announced");
    assert!(!complete(&store).await);
    history::reconciled(&store.pool, &store.held, false).await.expect("answers");
    assert!(!complete(&store).await, "the page is read, but the phone may have more");
    let told = history::reconciled(&store.pool, &store.held, true).await.expect("answers").expect("answers");
    assert_eq!(told.len(), 1);
    let data = &told[0].data["history"];
    assert_eq!((&data["chats"], &data["messages"]), (&1.into(), &150.into()));
    assert!(data["from"].as_str() < data["to"].as_str(), "{data}");
    assert!(complete(&store).await);
    // A restart reads all of it again.
    assert!(store.record(&old).await.is_empty());
    assert!(history::reconciled(&store.pool, &store.held, true).await.expect("answers").expect("answers").is_empty());
    assert_eq!(store.kinds().await, ["message", "history.synced"]);
    assert_eq!(store.count("select count(*) from message").await, 151);
}

#[tokio::test]
async fn what_arrived_since_the_scan_is_announced_however_long_the_page_took_to_say_whose_it_is() {
    let store = Store::start().await;
    store.sql("update session set account = null, linked_at = null").await;
    let account = Account { phone: OURS.into(), lid: None, name: None };
    let ago = Duration::from_secs(60);
    assert_eq!(owned::link(&store.pool, &store.held, &account, ago).await.expect("answers"), Linked::Accepted);
    let chat = store.observe(&[PHONE]).await;
    assert!(store.record(&[store.incoming(chat, "3A01", 120)]).await.is_empty(), "that was there before");
    assert_eq!(store.record(&[store.incoming(chat, "3A02", 30)]).await.len(), 1);
    // Told again at every connect, the account was linked when it was.
    assert_eq!(owned::link(&store.pool, &store.held, &account, Duration::ZERO).await.expect("answers"), Linked::Accepted);
    assert_eq!(store.record(&[store.incoming(chat, "3A03", 30)]).await.len(), 1);
}

#[tokio::test]
async fn reads_say_that_they_miss_something_while_the_session_is_away_and_after_a_gap() {
    let store = Store::start().await;
    history::reconciled(&store.pool, &store.held, true).await.expect("answers");
    assert!(complete(&store).await);
    store.sql("update session set state = 'reconnecting', state_at = clock_timestamp()").await;
    assert!(!complete(&store).await);
    store.sql("update session set state = 'working', state_at = clock_timestamp()").await;
    assert!(!complete(&store).await, "connected, and the page not yet read");
    history::reconciled(&store.pool, &store.held, false).await.expect("answers");
    assert!(complete(&store).await);
    store::owned::announce_gap(&store.pool, &store.held).await.expect("answers");
    history::reconciled(&store.pool, &store.held, true).await.expect("answers");
    assert!(!complete(&store).await, "what fell into the gap does not come back by itself");
}

#[tokio::test]
async fn an_event_of_an_unknown_type_is_read_like_any_other() {
    let store = Store::start().await;
    store
        .sql(&format!(
            "with c as (update tenant_counter set seq = seq + 1 where tenant = '{0}' returning seq)
             insert into event (tenant, seq, day, id, type, at, data) select '{0}', seq, current_date, gen_random_uuid(), 'moon.landed', now(), '{{}}' from c",
            store.tenant.uuid()
        ))
        .await;
    history::reconciled(&store.pool, &store.held, true).await.expect("answers");
    assert_eq!(store.kinds().await, ["moon.landed", "history.synced"]);
    assert_eq!(store.log().await[0].kind, EventType::Other("moon.landed".into()));
}

#[tokio::test]
async fn a_link_page_is_spent_by_the_linking_itself_whether_or_not_anybody_looks() {
    let store = Store::start().await;
    store.sql("update session set account = null, linked_at = null, expected_account = '5511000000000'").await;
    store
        .sql(
            "insert into link_page (token_hash, tenant, session, created_by, with_code, allow_new_account, expires_at)
             select 'x', tenant, id, tenant, true, true, now() + interval '10 minutes' from session",
        )
        .await;
    let account = Account { phone: OURS.into(), lid: None, name: None };
    let link = || owned::link(&store.pool, &store.held, &account, Duration::ZERO);
    assert_eq!(link().await.expect("answers"), Linked::WrongAccount);
    assert_eq!(store.count("select count(*) from link_page where used_at is not null").await, 0, "the customer may try again");
    store.sql("update session set expected_account = null").await;
    assert_eq!(link().await.expect("answers"), Linked::Accepted);
    assert_eq!(store.count("select count(*) from link_page where used_at is not null").await, 1);
}

#[tokio::test]
async fn an_employee_loses_the_chats_of_an_account_that_another_one_replaced_and_an_admin_keeps_them() {
    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    store.grant(chat).await;
    let named = store::chats::Named::Id(chat);
    let sees = async |viewer| store::chats::fetch(&store.pool, viewer, &store.session().await, &named).await.expect("answers").is_some();
    assert!(sees(store.employee()).await && sees(store.admin()).await);
    store.sql("update session set allow_new_account = true").await;
    let other = Account { phone: "5511666660000".into(), lid: None, name: None };
    assert_eq!(owned::link(&store.pool, &store.held, &other, Duration::ZERO).await.expect("answers"), Linked::Accepted);
    assert!(!sees(store.employee()).await, "its grant is of the old account's chat");
    assert!(sees(store.admin()).await);
}
