//! What is held open is counted as long as it is held.

use std::time::Duration;

use harness::until_true;
use queue::limits::{Held, Most};
use uuid::Uuid;

use crate::support::{SOON, Stores};

#[tokio::test]
async fn what_is_held_for_long_counts_on_when_what_was_held_for_a_moment_has_run_out() {
    let stores = Stores::start().await;
    let (who, most) = (Uuid::now_v7(), Most { tenant: 2, principal: 2 });
    let count = async |lasts| Held::new(stores.tenant, "streams", who).count(&stores.redis, most, lasts).await.expect("Redis answers");
    assert!(count(Duration::from_secs(60)).await && count(Duration::from_millis(100)).await);
    until_true("the short one to run out", SOON, || count(Duration::from_secs(60))).await;
    assert!(!count(Duration::from_secs(60)).await, "the first one is held still");
}
