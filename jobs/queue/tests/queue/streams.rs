//! What streams keep no longer: old entries, and those of tenants that are gone. Nothing that is published is lost by it.

use std::time::Duration;

use contract::TenantId;
use queue::{events, keys, streams};
use redis::streams::StreamRangeReply;

use crate::support::Stores;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn ids(stores: &Stores, key: &str) -> Vec<String> {
    stores.server.ask::<StreamRangeReply>(&["XRANGE", key, "-", "+"]).await.ids.into_iter().map(|entry| entry.id).collect()
}

#[tokio::test]
async fn entries_older_than_a_day_go_and_the_next_publisher_goes_on_where_the_stream_ended() {
    let stores = Stores::start().await;
    let mut log = stores.log(8).await;
    for event in &mut log[..5] {
        event.timestamp -= chrono::TimeDelta::hours(25);
    }
    events::publish(&stores.pool, &stores.redis, stores.tenant, &log).await.unwrap();
    let key = keys::events(stores.tenant);
    assert_eq!(streams::trim(&stores.pool, &stores.redis, DAY).await.unwrap(), 5);
    assert_eq!(ids(&stores, &key).await, ["6-0", "7-0", "8-0"]);
    assert_eq!(streams::trim(&stores.pool, &stores.redis, DAY).await.unwrap(), 0, "nothing is left to do");

    // All of it: what has been published is not published again.
    let firehose = ids(&stores, &keys::firehose(stores.tenant)).await.len();
    assert_eq!(streams::trim(&stores.pool, &stores.redis, Duration::ZERO).await.unwrap(), 3 + firehose as u64);
    assert!(ids(&stores, &key).await.is_empty());
    let next = stores.log(1).await;
    events::publish(&stores.pool, &stores.redis, stores.tenant, &next).await.unwrap();
    assert_eq!((ids(&stores, &key).await, ids(&stores, &keys::firehose(stores.tenant)).await.len()), (vec!["9-0".to_owned()], 1));
}

#[tokio::test]
async fn more_old_entries_than_one_look_holds_go_at_once() {
    let stores = Stores::start().await;
    let mut log = stores.log(1203).await;
    for event in &mut log[..1201] {
        event.timestamp -= chrono::TimeDelta::hours(25);
    }
    for some in log.chunks(400) {
        events::publish(&stores.pool, &stores.redis, stores.tenant, some).await.unwrap();
    }
    assert_eq!(streams::trim(&stores.pool, &stores.redis, DAY).await.unwrap(), 1201);
    assert_eq!(ids(&stores, &keys::events(stores.tenant)).await, ["1202-0", "1203-0"]);
}

#[tokio::test]
async fn the_firehose_keeps_a_day_and_the_stream_of_a_tenant_that_is_gone_goes() {
    let stores = Stores::start().await;
    let (gone, firehose) = (keys::events(TenantId::new()), "zg:{511}:firehose");
    for command in [["XADD", &gone, "1-0", "id", "x"], ["XADD", firehose, "1000-0", "tenant", "x"], ["XADD", firehose, "*", "tenant", "x"]]
    {
        stores.server.ask::<String>(&command).await;
    }
    events::publish(&stores.pool, &stores.redis, stores.tenant, &stores.log(1).await).await.unwrap();
    assert_eq!(streams::trim(&stores.pool, &stores.redis, DAY).await.unwrap(), 2);
    assert_eq!(stores.server.ask::<i64>(&["EXISTS", &gone]).await, 0);
    assert_eq!((ids(&stores, firehose).await.len(), ids(&stores, &keys::events(stores.tenant)).await.len()), (1, 1));
}
