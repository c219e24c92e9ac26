//! Acks only grow, and none is told before the message that it belongs to.

use contract::{Evidence, Failure, FailureCode, JobId, JobState, Outcome, wa_id_of};
use serde_json::json;
use store::{
    outcomes::{self, Recorded},
    receipts::{self, Receipt},
};

use crate::support::{PHONE, Store};

fn succeeded(ack: i16) -> Outcome {
    Outcome::Succeeded { evidence: Some(Evidence { wa_key: "true_x_y".into(), ack }), result: None }
}

fn unknown() -> Outcome {
    Outcome::Unknown(Failure::new(FailureCode::OutcomeUnknown, "no proof"))
}

async fn state(store: &Store, job: JobId) -> JobState {
    store::jobs::fetch(&store.pool, store.admin(), job).await.expect("answers").expect("answers").state
}

#[tokio::test]
async fn a_second_tick_that_overtakes_the_outcome_is_told_with_the_message() {
    let store = Store::start().await;
    let chat = store.named(PHONE).await;
    let (job, message) = store.accept(chat).await;
    let started = store.start_job(job).await;
    let receipt = |ack| vec![Receipt { wa_id: wa_id_of(message), ack }];
    assert!(
        receipts::record(&store.pool, &store.held, &receipt(2)).await.expect("answers").expect("answers").is_empty(),
        "nothing to tell yet"
    );
    assert!(matches!(outcomes::record(&store.pool, &store.held, &started, &succeeded(1)).await.expect("answers"), Recorded::Written(_)));
    let log = store.log().await;
    assert_eq!(store.kinds().await, ["message", "job.updated"]);
    assert_eq!((&log[0].data["message"]["ack"], &log[0].data["message"]["status"]), (&2.into(), &"delivered".into()));
    assert_eq!(log[1].data["job"]["evidence"]["ack"], 2);
    assert_eq!(store.count(&format!("select (evidence ->> 'ack')::bigint from job where id = '{}'", job.uuid())).await, 2);
    receipts::record(&store.pool, &store.held, &receipt(3)).await.expect("answers").expect("answers");
    // An older one that comes later says nothing.
    receipts::record(&store.pool, &store.held, &receipt(2)).await.expect("answers").expect("answers");
    assert_eq!(store.kinds().await, ["message", "job.updated", "message.ack"]);
    assert_eq!(store.log().await[2].data["message"]["ack"], 3);
    let seqs: Vec<i64> = store.log().await.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [1, 2, 3], "no number was spent on nothing");
}

#[tokio::test]
async fn a_late_receipt_announces_the_message_that_nobody_announced_and_turns_its_jobs() {
    let store = Store::start().await;
    let chat = store.named(PHONE).await;
    let (job, message) = store.accept(chat).await;
    let started = store.start_job(job).await;
    outcomes::record(&store.pool, &store.held, &started, &unknown()).await.expect("answers");
    assert_eq!(store.kinds().await, ["job.updated"]);
    let receipt = [Receipt { wa_id: wa_id_of(message), ack: 2 }];
    receipts::record(&store.pool, &store.held, &receipt).await.expect("answers").expect("answers");
    assert_eq!(store.kinds().await, ["job.updated", "message", "job.updated"]);
    let told = &store.log().await[1].data["message"];
    assert_eq!((&told["id"], &told["ack"], &told["status"]), (&json!(message), &2.into(), &"delivered".into()));
    let listed = "select count(*) from chat c join message m on m.chat = c.id where c.last_message_at = m.sent_at and m.announced_seq = 2";
    assert_eq!(store.count(listed).await, 1, "the chat is listed from here on");
    assert_eq!(state(&store, job).await, JobState::Succeeded);
    receipts::record(&store.pool, &store.held, &[Receipt { ack: 3, ..receipt[0].clone() }]).await.expect("answers").expect("answers");
    assert_eq!(store.kinds().await.last().expect("answers"), "message.ack");
}

#[tokio::test]
async fn a_proof_turns_an_unknown_job_and_its_resend_and_leaves_a_failed_one() {
    let store = Store::start().await;
    let chat = store.named(PHONE).await;
    let (first, message) = store.accept(chat).await;
    let started = store.start_job(first).await;
    outcomes::record(&store.pool, &store.held, &started, &unknown()).await.expect("answers");
    let second = store.accept_again(chat, message, Some(first)).await;
    let started = store.start_job(second).await;
    assert_eq!(started.other_keys, ["true_x_y"], "the look-up knows where the first attempt was");
    outcomes::record(&store.pool, &store.held, &started, &succeeded(1)).await.expect("answers");
    assert_eq!((state(&store, first).await, state(&store, second).await), (JobState::Succeeded, JobState::Succeeded));
    assert_eq!(store.kinds().await, ["job.updated", "message", "job.updated", "job.updated"]);
    assert_eq!(store.count("select count(*) from message").await, 1);

    let (failed, message) = store.accept(chat).await;
    let started = store.start_job(failed).await;
    let refused = Outcome::Failed(Failure::new(FailureCode::PageError, "refused"));
    outcomes::record(&store.pool, &store.held, &started, &refused).await.expect("answers");
    let again = store.accept_again(chat, message, Some(failed)).await;
    let started = store.start_job(again).await;
    outcomes::record(&store.pool, &store.held, &started, &succeeded(1)).await.expect("answers");
    assert_eq!((state(&store, failed).await, state(&store, again).await), (JobState::Failed, JobState::Succeeded));
}

#[tokio::test]
async fn a_resend_that_is_withdrawn_leaves_the_message_as_unknown_as_it_was() {
    let store = Store::start().await;
    let chat = store.named(PHONE).await;
    let (first, message) = store.accept(chat).await;
    let started = store.start_job(first).await;
    outcomes::record(&store.pool, &store.held, &started, &unknown()).await.expect("answers");
    let second = store.accept_again(chat, message, Some(first)).await;
    let job = store::jobs::fetch(&store.pool, store.admin(), second).await.expect("answers").expect("answers");
    assert!(matches!(store::jobs::cancel(&store.pool, &job).await.expect("answers"), store::jobs::Cancel::Cancelled(_)));
    assert_eq!(store.count(&format!("select count(*) from message where id = '{}' and status = 'unknown'", message.uuid())).await, 1);
}
