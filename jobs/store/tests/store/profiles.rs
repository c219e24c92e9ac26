//! Which profile may be used: rows decide, under the epoch of whoever asks.

use contract::{OwnerId, ProfileId, TenantId};
use store::{
    Held,
    leases::{self, Claimable},
    owned,
    profiles::{self, Refused, Snapshot, SnapshotId, Source, Uploaded},
    sealed,
};

use crate::support::{OURS, Store};

/// Begins in a directory, and answers which.
async fn begin(store: &Store, held: &Held, source: Source<'_>) -> ProfileId {
    let profile = ProfileId::new();
    assert!(profiles::begin(&store.pool, held, profile, 150, source).await.expect("answers"));
    profile
}

async fn data_key(store: &Store) -> sealed::DataKey {
    sealed::keep_data_key(&store.pool, store.tenant, b"sealed").await.expect("answers");
    sealed::data_key(&store.pool, store.tenant).await.expect("answers").expect("it was kept")
}

/// Takes a snapshot of the directory; `None` where it does not count.
async fn take(store: &Store, held: &Held, profile: ProfileId, object: &str) -> Option<SnapshotId> {
    let key = data_key(store).await;
    let uploaded =
        Uploaded { profile, object, digest: b"digest", size: 7, data_key: key.id, object_key: b"key", browser_major: 150, marker: "word" };
    if !profiles::begin_upload(&store.pool, held, object).await.expect("answers") {
        return None;
    }
    profiles::add(&store.pool, held, &uploaded).await.expect("answers")
}

async fn usable(store: &Store, held: &Held) -> Vec<Snapshot> {
    profiles::snapshots(&store.pool, held).await.expect("answers").expect("ours")
}

async fn text(store: &Store, query: &str) -> String {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select coalesce(({query})::text, 'null')")))
        .fetch_one(&store.pool)
        .await
        .expect("answers")
}

async fn gap(store: &Store, held: &Held) -> Option<String> {
    let events = owned::announce_owed_gap(&store.pool, held).await.expect("answers")?;
    Some(events[0].data["gap"]["from"].as_str().expect("a time").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_owner_closed_cleanly_goes_on_without_a_gap_and_anything_else_announces_one_from_the_snapshot_on() {
    let store = Store::start().await;
    let first = begin(&store, &store.held, Source::Empty).await;
    owned::announce_owed_gap(&store.pool, &store.held).await.unwrap();
    store.sql("update session set profile_row_id = 41").await;
    let one = take(&store, &store.held, first, "a/1").await.expect("ours");
    assert_eq!(one, SnapshotId { epoch: store.held.epoch(), n: 1 });

    // A clean hand-over: the next owner has another disk.
    let next = store.take_over().await;
    let snapshots = usable(&store, &next).await;
    assert_eq!((snapshots.len(), snapshots[0].id, snapshots[0].opened), (1, one, false));
    let owned = owned::load(&store.pool, &next).await.unwrap().unwrap();
    assert!(!owned.changed && owned.marker.as_deref() == Some("word"));
    let second = begin(&store, &next, Source::Restored { snapshot: &snapshots[0], whole: !owned.changed }).await;
    assert_eq!(text(&store, "select profile_row_id from session").await, "41", "the mark is the snapshot's");
    assert_eq!(gap(&store, &next).await, None);
    assert_ne!(first, second);

    // It works, records, and dies without a word: whoever has not its disk goes on from the snapshot.
    store.sql("update session set profile_row_id = 1041").await;
    let claim = Claimable { tenant: store.tenant, session: store.session, epoch: next.epoch(), owned: true, has_work: false };
    let third = leases::bump(&store.pool, &claim, OwnerId::new(), contract::HostId::new()).await.unwrap().unwrap();
    let snapshots = usable(&store, &third).await;
    let owned = owned::load(&store.pool, &third).await.unwrap().unwrap();
    begin(&store, &third, Source::Restored { snapshot: &snapshots[0], whole: !owned.changed }).await;
    assert_eq!(text(&store, "select profile_row_id from session").await, "41");
    let since =
        text(&store, "select to_char(taken_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from profile_snapshot").await;
    assert_eq!(gap(&store, &third).await, Some(since));
    assert_eq!(gap(&store, &third).await, None, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_owner_makes_nothing_count_and_a_lost_answer_counts_once() {
    let store = Store::start().await;
    let profile = begin(&store, &store.held, Source::Empty).await;
    let key = data_key(&store).await;
    let uploaded =
        Uploaded { profile, object: "a/1", digest: b"d", size: 1, data_key: key.id, object_key: b"k", browser_major: 150, marker: "word" };
    assert!(profiles::begin_upload(&store.pool, &store.held, "a/1").await.unwrap());
    let added = profiles::add(&store.pool, &store.held, &uploaded).await.unwrap();
    assert!(added.is_some());
    assert_eq!(profiles::add(&store.pool, &store.held, &uploaded).await.unwrap(), added, "said again");
    assert_eq!(store.count("select count(*) from profile_snapshot").await, 1);
    assert_eq!(store.count("select count(*) from object_leftover").await, 0);

    // The lease is lost in the middle of an upload.
    assert!(profiles::begin_upload(&store.pool, &store.held, "a/2").await.unwrap());
    let next = store.take_over().await;
    assert_eq!(profiles::add(&store.pool, &store.held, &Uploaded { object: "a/2", ..uploaded.clone() }).await.unwrap(), None);
    assert!(!profiles::begin_upload(&store.pool, &store.held, "a/3").await.unwrap());
    assert!(!profiles::begin(&store.pool, &store.held, ProfileId::new(), 150, Source::Empty).await.unwrap());
    assert!(profiles::snapshots(&store.pool, &store.held).await.unwrap().is_none());
    assert_eq!(usable(&store, &next).await.len(), 1, "the older one is what there is");
    assert_eq!(profiles::leftovers(&store.pool, 10).await.unwrap(), [], "not before its day is over");
    store.sql("update object_leftover set due_at = now()").await;
    assert_eq!(profiles::leftovers(&store.pool, 10).await.unwrap(), [(store.tenant, "a/2".to_owned())]);
    profiles::swept(&store.pool, TenantId::new(), "a/2").await.unwrap();
    assert_eq!(profiles::leftovers(&store.pool, 10).await.unwrap().len(), 1, "another tenant's word is none");
    // An upload that outlived its day does not come back from the dead.
    profiles::swept(&store.pool, store.tenant, "a/2").await.unwrap();
    begin(&store, &next, Source::Kept).await;
    let late = Uploaded { object: "a/2", ..uploaded };
    assert_eq!(profiles::add(&store.pool, &next, &late).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_comes_after_the_next_browser_was_started_does_not_count() {
    let store = Store::start().await;
    let profile = begin(&store, &store.held, Source::Empty).await;
    let key = data_key(&store).await;
    let uploaded =
        Uploaded { profile, object: "a/1", digest: b"d", size: 1, data_key: key.id, object_key: b"k", browser_major: 150, marker: "word" };
    assert!(profiles::begin_upload(&store.pool, &store.held, "a/1").await.unwrap());
    // Its time was over, and the session went on in the same directory; the statement comes all the same.
    assert!(profiles::begin(&store.pool, &store.held, profile, 150, Source::Kept).await.unwrap());
    assert_eq!(profiles::add(&store.pool, &store.held, &uploaded).await.unwrap(), None);
    assert!(owned::load(&store.pool, &store.held).await.unwrap().unwrap().changed, "what the browser did since is in no snapshot");
    assert_eq!(store.count("select count(*) from object_leftover").await, 1, "it is swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_generations_stay_and_older_ones_go_only_once_a_newer_one_was_worked_in() {
    let store = Store::start().await;
    let profile = begin(&store, &store.held, Source::Empty).await;
    let mut taken = Vec::new();
    for n in 1..=4 {
        taken.push(take(&store, &store.held, profile, &format!("a/{n}")).await.unwrap());
    }
    let ids = async || usable(&store, &store.held).await.iter().map(|s| s.id.n).collect::<Vec<_>>();
    assert_eq!(ids().await, [4, 3, 2, 1], "none was opened yet");
    profiles::opened(&store.pool, &store.held, taken[1]).await.unwrap();
    assert_eq!(ids().await, [4, 3, 2], "only what is older than the one that is known to be good");
    assert!(profiles::refuse(&store.pool, &store.held, taken[3], Refused::Erased).await.unwrap());
    assert_eq!(ids().await, [3, 2]);
    profiles::opened(&store.pool, &store.held, taken[2]).await.unwrap();
    assert_eq!(ids().await, [3, 2], "a refused one does not count as a generation");
    let fifth = take(&store, &store.held, profile, "a/5").await.unwrap();
    profiles::opened(&store.pool, &store.held, fifth).await.unwrap();
    assert_eq!(ids().await, [5, 3]);
    assert_eq!(store.count("select count(*) from object_leftover").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_snapshot_is_never_taken_for_the_whole_after_the_newest_was_refused() {
    let store = Store::start().await;
    let profile = begin(&store, &store.held, Source::Empty).await;
    take(&store, &store.held, profile, "a/1").await.unwrap();
    let newest = take(&store, &store.held, profile, "a/2").await.unwrap();
    assert!(!owned::load(&store.pool, &store.held).await.unwrap().unwrap().changed);
    // Who refuses it may die before it goes on from the older one.
    assert!(profiles::refuse(&store.pool, &store.held, newest, Refused::Corrupt).await.unwrap());
    assert!(owned::load(&store.pool, &store.held).await.unwrap().unwrap().changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_another_account_are_not_used_and_go_with_the_link_and_with_the_session() {
    let store = Store::start().await;
    let profile = begin(&store, &store.held, Source::Empty).await;
    take(&store, &store.held, profile, "a/1").await.unwrap();
    store.sql("update session set account = '5511000000000'").await;
    assert!(usable(&store, &store.held).await.is_empty());
    store.sql(&format!("update session set account = '{OURS}'")).await;
    profiles::forget(&store.pool, &store.held).await.unwrap();
    assert_eq!(store.count("select count(*) from profile_snapshot").await, 0);
    let owned = owned::load(&store.pool, &store.held).await.unwrap().unwrap();
    assert!(owned.profile.is_none() && owned.marker.is_none());

    let profile = begin(&store, &store.held, Source::Empty).await;
    take(&store, &store.held, profile, "a/2").await.unwrap();
    store.sql("update session set deleting_at = now(), state = 'stopped', owner = null").await;
    while !store::deletion::remove(&store.pool, store.tenant, store.session).await.unwrap() {}
    assert_eq!(store.count("select count(*) from session").await, 0);
    assert_eq!(text(&store, "select string_agg(object, ' ' order by object) from object_leftover").await, "a/1 a/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_browser_does_not_claim_what_a_newer_one_has_written() {
    let store = Store::start().await;
    begin(&store, &store.held, Source::Empty).await;
    leases::release(&store.pool, &store.held).await.unwrap();
    let claimable = async |major| leases::claimable(&store.pool, &[], &[], major).await.unwrap().len();
    assert_eq!((claimable(149).await, claimable(150).await, claimable(151).await), (0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_one_data_key_and_a_key_that_was_sealed_anew_meanwhile_stays() {
    let store = Store::start().await;
    let key = data_key(&store).await;
    sealed::keep_data_key(&store.pool, store.tenant, b"another").await.unwrap();
    assert_eq!(sealed::data_key(&store.pool, store.tenant).await.unwrap(), Some(key));
    assert!(sealed::replace_data_key(&store.pool, store.tenant, b"sealed", b"anew").await.unwrap());
    assert!(!sealed::replace_data_key(&store.pool, store.tenant, b"sealed", b"late").await.unwrap());
    assert_eq!(sealed::data_keys(&store.pool, None, 10).await.unwrap(), [(store.tenant, b"anew".to_vec())]);
    assert!(sealed::data_keys(&store.pool, Some(store.tenant), 10).await.unwrap().is_empty());
}
