//! Jobs that a worker does: one at a time does each, and no session's order knows of them.

use std::time::Duration;

use contract::{Command, EraseContact, Failure, FailureCode, JobId, Outcome, Progress};
use store::{
    accept::{Accepted, NewJob},
    background_jobs::{self, Claim},
    jobs::{self, Cancel},
    lane_jobs,
};

use crate::support::{PHONE, Store};

const LASTS: Duration = Duration::from_secs(60);

impl Store {
    async fn ask(&self) -> JobId {
        let command = Command::EraseContact(EraseContact { address: Some(PHONE.parse().expect("an address")), ..Default::default() });
        let job = NewJob {
            id: JobId::new(),
            tenant: self.tenant,
            session: self.session,
            command,
            chat: None,
            message: None,
            resend_of: None,
            reference: None,
            created_by: self.tenant.uuid(),
            expires_in: LASTS,
            queue_when_down: false,
        };
        assert_eq!(store::accept::accept(&self.pool, &job, None).await.expect("accepts"), Accepted::New { position: 0 });
        job.id
    }

    async fn handed_out(&self) -> Vec<Claim> {
        background_jobs::hand_out(&self.pool, LASTS, 10).await.expect("answers")
    }
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureCode::PageError, "of this test"))
}

#[tokio::test]
async fn a_job_is_taken_up_once_and_one_whose_claim_lapsed_writes_nothing_any_more() {
    let store = Store::start().await;
    let (first, second) = (store.ask().await, store.ask().await);
    let claims = store.handed_out().await;
    assert_eq!(claims.iter().map(Claim::job).collect::<Vec<_>>(), [first], "one of a tenant at a time");
    assert!(store.handed_out().await.is_empty());
    let begun = background_jobs::begin(&store.pool, &claims[0], LASTS).await.expect("answers").expect("it is free");
    assert!(background_jobs::begin(&store.pool, &claims[0], LASTS).await.expect("answers").is_none(), "delivered twice");
    let half = Progress { done: 1, total: 2 };
    assert!(background_jobs::note(&store.pool, &begun.claim, half, Some(&serde_json::json!(7))).await.expect("answers"));
    // Its worker dies.
    store.sql("update job set claimed_until = clock_timestamp() - interval '1 second' where claim is not null").await;
    let again = store.handed_out().await;
    assert_eq!(again[0].job(), first, "what was begun is gone on with first");
    let next = background_jobs::begin(&store.pool, &again[0], LASTS).await.expect("answers").expect("it is free");
    assert_eq!((next.memory.clone(), next.job.attempt), (Some(7.into()), 2));
    assert!(!background_jobs::keep(&store.pool, &begun.claim, LASTS).await.expect("answers"));
    assert!(!background_jobs::note(&store.pool, &begun.claim, half, None).await.expect("answers"));
    assert!(background_jobs::finish(&store.pool, &begun, &failed().into()).await.expect("answers").is_empty());
    let told = background_jobs::finish(&store.pool, &next, &failed().into()).await.expect("answers");
    assert_eq!(told[0].data["job"]["id"], first.to_string());
    assert!(background_jobs::finish(&store.pool, &next, &failed().into()).await.expect("answers").is_empty(), "it ends once");
    assert_eq!(store.kinds().await, ["job.updated"]);
    assert_eq!(store.handed_out().await[0].job(), second);
}

#[tokio::test]
async fn a_job_of_a_worker_is_withdrawn_while_it_waits_and_not_once_it_was_begun() {
    let store = Store::start().await;
    let id = store.ask().await;
    let job = jobs::fetch(&store.pool, store.admin(), id).await.expect("answers").expect("it is there");
    assert!(job.background);
    assert!(matches!(jobs::cancel(&store.pool, &job).await.expect("answers"), Cancel::Cancelled(_)));
    assert!(store.handed_out().await.is_empty());
    let id = store.ask().await;
    let claim = store.handed_out().await.remove(0);
    background_jobs::begin(&store.pool, &claim, LASTS).await.expect("answers").expect("it is free");
    let job = jobs::fetch(&store.pool, store.admin(), id).await.expect("answers").expect("it is there");
    assert!(matches!(jobs::cancel(&store.pool, &job).await.expect("answers"), Cancel::Running));
}

#[tokio::test]
async fn no_order_of_a_session_and_no_end_of_its_account_knows_of_a_job_that_a_worker_does() {
    let store = Store::start().await;
    store.ask().await;
    assert!(lane_jobs::sessions_with_work(&store.pool).await.expect("answers").is_empty());
    assert!(lane_jobs::unfinished(&store.pool, store.tenant, store.session).await.expect("answers").is_empty());
    assert_eq!(store.count("select n from lane_position").await, 0);
    // The next message is the first, however small the limit is.
    store.sql("update usage_limit set value = 1 where name = 'queuedJobsPerSession'").await;
    let chat = store.observe(&[PHONE]).await;
    let (first, _) = store.accept(chat).await;
    store.start_job(first).await;
    store.sql("update session set owner = null, state = 'logged_out', state_at = clock_timestamp() - interval '1 day'").await;
    let doomed = store::ends::doomed(&store.pool, None, Duration::ZERO, 10).await.expect("answers");
    assert_eq!(doomed.iter().map(|(job, _)| job.id).collect::<Vec<_>>(), [first]);
    store.sql(&format!("update job set state = 'failed', finished_at = clock_timestamp() where id = '{}'", first.uuid())).await;
    store.sql("update session set state = 'working'").await;
    let claimable = store::leases::claimable(&store.pool, &[], &[], i32::MAX).await.expect("answers");
    assert_eq!(claimable.iter().map(|c| c.has_work).collect::<Vec<_>>(), [false], "no host hurries for it");
}
