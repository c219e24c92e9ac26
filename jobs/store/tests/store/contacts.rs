//! People: a LID is a person, a number is lent to one.

use store::{
    contacts::{self, Contact, Member, NewContact},
    grants::Viewer,
    snapshot::Snapshot,
};

use crate::support::{LID, OTHER_LID, PHONE, Store};

const DIGITS: &str = "5511888880000";

fn person(lid: Option<&str>, phone: Option<&str>, name: Option<&str>) -> NewContact {
    NewContact { lid: lid.map(Into::into), phone: phone.map(Into::into), name: name.map(Into::into), push_name: None }
}

async fn learn(store: &Store, people: &[NewContact]) {
    assert!(contacts::learn(&store.pool, &store.held, people).await.expect("answers"));
}

async fn list(store: &Store, viewer: Viewer) -> Vec<Contact> {
    let mut snapshot = Snapshot::open(&store.pool, store.tenant).await.expect("answers");
    contacts::list(&mut snapshot, viewer, &store.session().await, None, 200).await.expect("answers")
}

#[tokio::test]
async fn a_person_known_by_the_number_is_the_same_when_the_lid_is_learned() {
    let store = Store::start().await;
    learn(&store, &[person(None, Some(DIGITS), Some("Bea"))]).await;
    learn(&store, &[person(Some(LID), Some(DIGITS), None)]).await;
    learn(&store, &[person(None, Some(DIGITS), None)]).await;
    let all = list(&store, store.admin()).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].wa_id.as_str(), all[0].phone.as_deref(), all[0].name.as_deref()), (LID, Some(DIGITS), Some("Bea")));
    for address in [PHONE, LID] {
        let found =
            contacts::fetch(&store.pool, store.admin(), &store.session().await, &address.parse().expect("answers")).await.expect("answers");
        assert_eq!(found.expect("known by both").wa_id, LID);
    }
}

#[tokio::test]
async fn a_number_that_moves_is_taken_from_whoever_had_it() {
    let store = Store::start().await;
    learn(&store, &[person(Some(LID), Some(DIGITS), Some("Bea"))]).await;
    learn(&store, &[person(Some(OTHER_LID), Some(DIGITS), Some("Cid"))]).await;
    let by_number =
        contacts::fetch(&store.pool, store.admin(), &store.session().await, &PHONE.parse().expect("answers")).await.expect("answers");
    assert_eq!(by_number.expect("answers").name.as_deref(), Some("Cid"));
    let bea = list(&store, store.admin()).await.into_iter().find(|c| c.wa_id == LID).expect("answers");
    assert_eq!((bea.phone, bea.name.as_deref()), (None, Some("Bea")));
}

#[tokio::test]
async fn an_employee_sees_the_people_of_granted_chats_and_the_members_of_granted_groups() {
    let store = Store::start().await;
    learn(
        &store,
        &[
            person(Some(LID), Some(DIGITS), Some("Bea")),
            person(Some(OTHER_LID), None, Some("Cid")),
            person(None, Some("5511777770000"), Some("Dan")),
        ],
    )
    .await;
    let group = store.observe(&["12036304@g.us"]).await;
    contacts::members(&store.pool, &store.held, group, &[Member { wa_id: OTHER_LID.into(), is_admin: true }], true).await.expect("answers");
    let names = |all: Vec<Contact>| all.into_iter().filter_map(|c| c.name).collect::<Vec<_>>();
    let seen = async |store: &Store| names(list(store, store.employee()).await);
    assert!(seen(&store).await.is_empty());
    store.grant(store.observe(&[PHONE, LID]).await).await;
    assert_eq!(seen(&store).await, ["Bea"]);
    store.grant(group).await;
    let mut both = seen(&store).await;
    both.sort();
    assert_eq!(both, ["Bea", "Cid"]);
    assert_eq!(list(&store, store.admin()).await.len(), 3);
    contacts::members(&store.pool, &store.held, group, &[], true).await.expect("answers");
    assert_eq!(seen(&store).await, ["Bea"], "who left the group is not shown any more");
    let hidden = contacts::fetch(&store.pool, store.employee(), &store.session().await, &"5511777770000".parse().expect("answers"))
        .await
        .expect("answers");
    assert!(hidden.is_none());
}
