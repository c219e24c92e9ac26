//! A tenant has one default session, and a session one link page, whatever happens at once.

use std::time::Duration;

use contract::{Principal, SessionId, UserId};
use harness::until;
use sqlx::{Postgres, Transaction};
use store::{
    link_pages::{self, Terms},
    sessions::{self, Change},
};

use crate::support::Store;

const SOON: Duration = Duration::from_secs(10);

/// Holds a session's row until it is dropped.
async fn held(store: &Store) -> Transaction<'static, Postgres> {
    let mut lock = store.pool.begin().await.expect("begins");
    sqlx::query("select 1 from session where id = $1 for update").bind(store.session.uuid()).execute(&mut *lock).await.expect("is free");
    lock
}

async fn waiting(store: &Store, n: i64) {
    until("the statements to wait for the lock", SOON, || async {
        (store.count("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").await == n).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_deleted_while_it_becomes_the_default_leaves_the_old_default() {
    let store = Store::start().await;
    let other = SessionId::new();
    store.sql(&format!("insert into session (id, tenant, name) values ('{}', '{}', 'ventas')", other.uuid(), store.tenant.uuid())).await;
    let change = Change { make_default: true, ..Change::default() };
    let lock = held(&store).await;
    let (changed, ()) = tokio::join!(sessions::change(&store.pool, store.tenant, other, &change), async {
        waiting(&store, 1).await;
        store.sql(&format!("update session set deleting_at = clock_timestamp() where id = '{}'", other.uuid())).await;
        lock.rollback().await.expect("lets go");
    });
    assert!(changed.expect("answers").is_none(), "it is not there any more");
    assert_eq!(store.session().await.id, store.session);
    let again = sessions::change(&store.pool, store.tenant, other, &change).await.expect("answers");
    assert!(again.is_none());
    assert_eq!(store.session().await.id, store.session);
}

#[tokio::test]
async fn of_link_pages_that_are_opened_at_once_one_stays() {
    let store = Store::start().await;
    let maker = UserId::from_uuid(store.tenant.uuid());
    let terms = Terms { with_code: true, allow_new_account: false };
    let lasts = Duration::from_secs(600);
    let open = async |token: &str| {
        let of = (store.tenant, store.session);
        let opened = link_pages::open(&store.pool, of, token.as_bytes(), (Principal::User(maker), maker), terms, lasts, None).await;
        assert!(opened.expect("answers").is_some());
    };
    let shown = async || {
        let mut shown = Vec::new();
        for token in ["one", "two", "three"] {
            if let Some(page) = link_pages::fetch(&store.pool, token.as_bytes()).await.expect("answers") {
                assert!(!page.used);
                shown.push(token);
            }
        }
        shown
    };
    // Each row names the session, and waits for it at the end of its statement.
    let lock = held(&store).await;
    let ((), (), ()) = tokio::join!(open("one"), open("two"), async {
        waiting(&store, 2).await;
        lock.rollback().await.expect("lets go");
    });
    assert_eq!(store.count("select count(*) from link_page").await, 1);
    assert_eq!(shown().await.len(), 1, "the other's token shows nothing");

    // What was done on the page before counts for it alone.
    store.sql("update link_page set codes = 5, used_at = clock_timestamp()").await;
    open("three").await;
    assert_eq!(shown().await, ["three"]);
    assert!(link_pages::take_code(&store.pool, store.tenant, b"three").await.expect("answers"));
}
