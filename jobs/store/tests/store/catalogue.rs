//! Where a statement builds the body of an event itself, it builds what the type says.

use contract::Fact;
use store::{history, owned};

use crate::support::{PHONE, Store};

#[tokio::test]
async fn the_bodies_that_sql_builds_are_those_of_their_types_with_or_without_something_to_tell() {
    let store = Store::start().await;
    history::reconciled(&store.pool, &store.held, true).await.expect("answers");
    owned::announce_gap(&store.pool, &store.held).await.expect("answers");
    // `log` reads each body as its type and compares.
    let facts: Vec<_> = store.log().await.iter().filter_map(|event| event.fact().expect("its type")).collect();
    let [Fact::HistorySynced(empty), Fact::SessionGap(gap)] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((empty.history.messages, empty.history.from), (0, None));
    assert!(gap.gap.from.0 <= gap.gap.to.0, "{gap:?}");

    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    store.record(&[store.incoming(chat, "3A01", 7200), store.incoming(chat, "3A02", 7100)]).await;
    history::reconciled(&store.pool, &store.held, true).await.expect("answers");
    let facts: Vec<_> = store.log().await.iter().filter_map(|event| event.fact().expect("its type")).collect();
    let [Fact::HistorySynced(full)] = &facts[..] else { panic!("{facts:?}") };
    let (from, to) = (full.history.from.expect("a first"), full.history.to.expect("a last"));
    assert_eq!((full.history.messages, (to.0 - from.0).num_seconds()), (2, 100));
}
