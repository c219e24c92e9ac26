//! One person is one chat, whatever WhatsApp calls it today.

use contract::EventType;
use serde_json::json;
use store::{
    contacts::{self, NewContact},
    history,
    incoming::{self, Incoming},
};

use crate::support::{LID, OTHER_LID, PHONE, Store};

#[tokio::test]
async fn two_names_that_prove_to_be_one_person_become_one_chat_and_the_older_id_goes_on() {
    let store = Store::start().await;
    let old = store.named(PHONE).await;
    let (job, message) = store.accept(old).await;
    let new = store.observe(&[LID]).await;
    assert_ne!(old, new);
    store.record(&[store.incoming(new, "3A01", 10)]).await;
    store.grant(new).await;
    assert_eq!(store.seen(PHONE).await, None);

    assert_eq!(store.observe(&[LID, PHONE]).await, old);
    for name in [PHONE.to_owned(), LID.to_owned(), old.to_string(), new.to_string()] {
        assert_eq!(store.seen(&name).await, Some(old), "the grant of {name} goes on with the chat");
    }
    let (here, gone) = (old.uuid(), new.uuid());
    assert_eq!(store.count(&format!("select count(*) from message where chat = '{here}'")).await, 2);
    assert_eq!(
        store
            .count(&format!(
                "select (select count(*) from message where chat = '{gone}') + (select count(*) from job where chat = '{gone}')"
            ))
            .await,
        0
    );
    let job = store::jobs::fetch(&store.pool, store.employee(), job).await.expect("answers").expect("the job is seen with its chat");
    assert_eq!((job.chat, job.message.map(|m| m.id)), (Some(old), Some(message)));

    let log = store.log().await;
    let merged: Vec<_> = log.iter().filter(|e| e.kind == EventType::ChatMerged).collect();
    assert_eq!(merged.len(), 1, "{log:?}");
    assert_eq!((merged[0].chat, &merged[0].data["merged"]), (Some(old), &json!(new)));
    // Told again, nothing happens.
    assert_eq!(store.observe(&[PHONE, LID]).await, old);
    assert_eq!(store.log().await.len(), log.len());
}

#[tokio::test]
async fn a_chat_that_was_merged_twice_still_leads_to_the_one_that_goes_on() {
    let store = Store::start().await;
    let first = store.named("12036304@g.us").await;
    let (a, b) = (store.named(PHONE).await, store.observe(&[LID]).await);
    let younger = store.named("5511777770000").await;
    store.sql(&format!("update chat set merged_into = '{}' where id = '{}'", b.uuid(), younger.uuid())).await;
    store.sql(&format!("update chat_alias set chat = '{}' where chat = '{}'", b.uuid(), younger.uuid())).await;
    store.observe(&[LID, PHONE]).await;
    store.grant(a).await;
    for name in [b.to_string(), younger.to_string(), "5511777770000@c.us".to_owned()] {
        assert_eq!(store.seen(&name).await, Some(a), "{name}");
    }
    assert_eq!(store.seen(&first.to_string()).await, None);
}

#[tokio::test]
async fn jobs_that_are_accepted_while_their_chat_is_merged_are_all_in_the_chat_that_goes_on() {
    let store = Store::start().await;
    let into = store.named(PHONE).await;
    let from = store.observe(&[LID]).await;
    let accepting = async {
        let jobs = (0..40).map(|_| store.accept(from));
        let mut done = Vec::new();
        for pair in jobs {
            done.push(pair.await);
        }
        done
    };
    let more = async {
        for _ in 0..40 {
            store.accept(from).await;
        }
    };
    let (done, (), merged) = tokio::join!(accepting, more, store.observe(&[LID, PHONE]));
    assert_eq!((done.len(), merged), (40, into));
    let (here, gone) = (into.uuid(), from.uuid());
    assert_eq!(store.count(&format!("select count(*) from message where chat = '{here}'")).await, 80);
    assert_eq!(store.count(&format!("select count(*) from job where chat = '{here}'")).await, 80);
    assert_eq!(store.count(&format!("select count(*) from job where chat = '{gone}'")).await, 0);
}

#[tokio::test]
async fn a_chat_that_merged_is_no_new_one_where_one_of_the_two_was_none() {
    let store = Store::start().await;
    let new_chats = || store.count("select new_chats::bigint from lane_position");
    let (into, from) = (store.named(PHONE).await, store.observe(&[LID]).await);
    store.record(&[store.incoming(from, "3A01", 10)]).await;
    store.observe(&[LID, PHONE]).await;
    for named in [from, into] {
        store.accept(named).await;
        assert_eq!(new_chats().await, 0, "they wrote first, under the other name");
    }
    // Merged, and what was written is still to be moved.
    let (into, from) = (store.named("5511777770000").await, store.observe(&[OTHER_LID]).await);
    store.accept(from).await;
    assert_eq!(new_chats().await, 1);
    store.sql(&format!("update chat set merged_into = '{}' where id = '{}'", into.uuid(), from.uuid())).await;
    for named in [from, into] {
        store.accept(named).await;
        assert_eq!(new_chats().await, 1, "it was counted when it was new");
    }
}

#[tokio::test]
async fn a_message_that_both_chats_had_is_there_once_after_they_merged() {
    let store = Store::start().await;
    let (into, from) = (store.named(PHONE).await, store.observe(&[LID]).await);
    store.record(&[store.incoming(into, "3A01", 10)]).await;
    store.record(&[store.incoming(from, "3A01", 10), store.incoming(from, "3A02", 9)]).await;
    store.observe(&[LID, PHONE]).await;
    assert_eq!(store.count(&format!("select count(*) from message where chat = '{}'", into.uuid())).await, 2);
    // And what the page tells again under either name is not new.
    assert!(store.record(&[store.incoming(from, "3A01", 10), store.incoming(into, "3A02", 9)]).await.is_empty());
    assert_eq!(store.count("select count(*) from message").await, 2);
}

#[tokio::test]
async fn an_owner_that_died_half_way_through_a_merge_leaves_it_to_the_next() {
    let store = Store::start().await;
    let (into, from) = (store.named(PHONE).await, store.observe(&[LID]).await);
    store.record(&[store.incoming(from, "3A01", 10)]).await;
    store.observe(&[LID, PHONE]).await;
    // As it was between the two statements.
    store.sql(&format!("update message set chat = '{}'", from.uuid())).await;
    store::aliases::finish_merges(&store.pool, &store.held).await.expect("answers");
    assert_eq!(store.count(&format!("select count(*) from message where chat = '{}'", into.uuid())).await, 1);
}

#[tokio::test]
async fn a_number_that_moves_to_another_person_opens_a_new_chat_without_grants() {
    let store = Store::start().await;
    let old = store.observe(&[PHONE, LID]).await;
    store.grant(old).await;
    let new = store.observe(&[PHONE, OTHER_LID]).await;
    assert_ne!(old, new);
    assert_eq!(store.seen(PHONE).await, None, "the number leads to the new chat, which nobody was granted");
    assert_eq!(store.seen(LID).await, Some(old));
    let session = store.session().await;
    let named = store::chats::Named::Id(old);
    let (chat, _) = store::chats::fetch(&store.pool, store.admin(), &session, &named).await.expect("answers").expect("answers");
    assert_eq!((chat.wa_id.as_str(), chat.phone), (LID, None), "what is sent to the old chat no longer goes to the number");
    let changed: Vec<_> = store.log().await.into_iter().filter(|e| e.kind == EventType::ChatIdentityChanged).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].chat, &changed[0].data["movedTo"]), (Some(old), &json!(new)));
    assert_eq!(store.observe(&[OTHER_LID, PHONE]).await, new);
}

#[tokio::test]
async fn a_person_who_changes_the_number_keeps_the_chat() {
    let store = Store::start().await;
    let chat = store.observe(&[LID, PHONE]).await;
    assert_eq!(store.observe(&[LID, "5511777770000"]).await, chat);
    assert_eq!(store.named("5511777770000").await, chat);
    assert!(store.log().await.is_empty());
}

#[tokio::test]
async fn an_owner_that_is_not_one_any_more_proves_nothing() {
    let store = Store::start().await;
    let old = store.named(PHONE).await;
    let new = store.observe(&[LID]).await;
    let _next = store.take_over().await;
    let names = crate::support::jids(&[LID, PHONE]);
    assert!(store::aliases::observe(&store.pool, &store.held, &names, None).await.expect("answers").is_none());
    assert_eq!((store.named(PHONE).await, store.named(LID).await), (old, new));
    assert!(store.log().await.is_empty());
    assert!(history::reconciled(&store.pool, &store.held, true).await.expect("answers").is_none());
    assert!(incoming::record(&store.pool, &store.held, &[store.incoming(old, "3A01", 1)], None).await.expect("answers").is_none());
}

#[tokio::test]
async fn a_senders_two_spellings_are_one_sender() {
    let store = Store::start().await;
    let group = store.observe(&["12036304@g.us"]).await;
    let by_phone = Incoming { sender: PHONE.into(), ..store.incoming(group, "3A01", 10) };
    let by_lid = Incoming {
        sender: LID.into(),
        sender_lid: Some(LID.into()),
        sender_phone: Some("5511888880000".into()),
        ..store.incoming(group, "3A01", 10)
    };
    assert_eq!(store.record(&[by_phone]).await.len(), 1);
    assert!(store.record(&[by_lid]).await.is_empty(), "told again under the other spelling");
    assert_eq!(store.count("select count(*) from message").await, 1);
}

#[tokio::test]
async fn a_sender_told_under_one_name_is_known_by_the_other_from_the_contacts() {
    let store = Store::start().await;
    let group = store.observe(&["12036304@g.us"]).await;
    let digits = Some("5511888880000".to_owned());
    let by_phone = |id| Incoming { sender: PHONE.into(), sender_phone: digits.clone(), ..store.incoming(group, id, 10) };
    let by_lid = |id| Incoming { sender: LID.into(), sender_lid: Some(LID.into()), ..store.incoming(group, id, 10) };
    assert_eq!(store.record(&[by_phone("3A01")]).await.len(), 1);
    assert_eq!(store.record(&[by_lid("3A02")]).await.len(), 1);
    let person = NewContact { lid: Some(LID.into()), phone: digits.clone(), name: None, push_name: None };
    assert!(contacts::learn(&store.pool, &store.held, &[person]).await.expect("answers"));

    assert!(store.record(&[by_lid("3A01"), by_phone("3A02")]).await.is_empty(), "each told again under the other name");
    let told = store.record(&[by_phone("3A03"), by_lid("3A03")]).await;
    assert_eq!(told.len(), 1, "one message, told twice in one batch");
    let sender = &told[0].data["message"]["sender"];
    assert_eq!((&sender["waId"], &sender["lid"], &sender["phone"]), (&json!(LID), &json!(LID), &json!(digits)));
    // Somebody else's message of the same id is another message.
    let other = Incoming { sender: OTHER_LID.into(), sender_lid: Some(OTHER_LID.into()), ..store.incoming(group, "3A01", 10) };
    assert_eq!(store.record(&[other]).await.len(), 1);
    assert_eq!(store.count("select count(*) from message").await, 4);
}

/// Any order of what the page tells and callers ask leads to one chat a person, and every id that was ever answered leads to one that goes on.
#[tokio::test]
async fn whatever_the_order_names_that_were_last_told_together_lead_to_one_chat_and_other_people_to_others() {
    let store = Store::start().await;
    let lids = ["1001@lid", "1002@lid", "1003@lid"];
    let phones = ["5511000000001@c.us", "5511000000002@c.us", "5511000000003@c.us", "5511000000004@c.us"];
    let mut holder: std::collections::HashMap<&str, &str> = std::collections::HashMap::new();
    let mut answered = std::collections::HashSet::new();
    let mut random: u64 = 0x2545_F491_4F6C_DD1D;
    let mut next = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % n as u64).expect("small")
    };
    for step in 0..150 {
        let (lid, phone) = (lids[next(lids.len())], phones[next(phones.len())]);
        let chat = match next(4) {
            0 => store.named(phone).await,
            1 => store.observe(&[lid]).await,
            2 => store.observe(&[phone]).await,
            _ => {
                let chat = store.observe(&[lid, phone]).await;
                assert_eq!((store.named(lid).await, store.named(phone).await), (chat, chat), "step {step}");
                holder.insert(phone, lid);
                chat
            }
        };
        answered.insert(chat);
        for (phone, lid) in &holder {
            assert_eq!(store.named(phone).await, store.named(lid).await, "step {step}: {phone} was last told with {lid}");
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert_ne!(store.named(lids[a]).await, store.named(lids[b]).await, "step {step}: two people");
        }
    }
    answered.extend([store.named(lids[0]).await, store.named(phones[0]).await]);
    for chat in answered {
        let goes_on = store::aliases::survivor(&store.pool, store.tenant, chat).await.expect("answers").expect("it leads somewhere");
        assert_eq!(store.count(&format!("select count(*) from chat where id = '{}' and merged_into is null", goes_on.uuid())).await, 1);
    }
    let seqs: Vec<i64> = store.log().await.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=i64::try_from(seqs.len()).expect("few")).collect::<Vec<_>>());
}
