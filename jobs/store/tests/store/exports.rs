//! Exports: found and taken away by any id of their chats, and made of one moment or not at all.

use std::time::Duration;

use contract::{ChatId, Command, ExportChat, ExportId, JobId, SessionId, TenantId};
use store::{
    PgPool,
    accept::NewJob,
    background_jobs::{self, Claim},
    exports::{
        self,
        making::{self, Made, Recorded},
    },
};
use uuid::Uuid;

use crate::support::{LID, PHONE, Store};

const LASTS: Duration = Duration::from_secs(600);

/// An export that is being made.
async fn claimed(store: &Store, chat: ChatId) -> (Claim, ExportId) {
    let export = ExportId::new();
    let job = NewJob {
        id: JobId::new(),
        tenant: store.tenant,
        session: store.session,
        command: Command::ExportChat(ExportChat { export, chat, since: None }),
        chat: None,
        message: None,
        resend_of: None,
        reference: None,
        created_by: store.tenant.uuid(),
        expires_in: LASTS,
        queue_when_down: false,
    };
    store::accept::accept(&store.pool, &job, None).await.expect("accepts");
    let handed = background_jobs::hand_out(&store.pool, LASTS, 10).await.expect("answers");
    let begun = background_jobs::begin(&store.pool, &handed[0], LASTS).await.expect("answers").expect("nobody else has it");
    (begun.claim, export)
}

fn file(id: ExportId) -> Made {
    Made { id, since: None, object: format!("exports/{}", Uuid::now_v7()), key: vec![1], size: 1, sha256: vec![2], messages: 1 }
}

async fn begun(store: &Store, chat: ChatId) -> making::Begun {
    making::begin(&store.pool, store.tenant, chat, None).await.expect("answers").expect("it is there")
}

async fn removed(pool: &PgPool, tenant: TenantId, chat: ChatId) -> Vec<String> {
    exports::remove_of_person(pool, tenant, None, &[chat.uuid()]).await.expect("answers")
}

async fn record(store: &Store, claim: &Claim, begun: &making::Begun, made: &Made) -> Recorded {
    making::record(&store.pool, claim, begun, made, LASTS).await.expect("answers")
}

#[tokio::test]
async fn what_is_erased_is_in_no_export_that_is_there_and_in_none_that_is_being_made() {
    let store = Store::start().await;
    let (chat, other) = (store.named(PHONE).await, store.named("5511777770000@c.us").await);
    let (claim, of_other) = claimed(&store, other).await;
    let at = begun(&store, other).await;
    assert!(matches!(record(&store, &claim, &at, &file(of_other)).await, Recorded::Done(_)));
    assert_eq!(
        making::of_job(&store.pool, store.tenant, claim.job()).await.unwrap().unwrap().id,
        of_other,
        "whoever begins again finds it"
    );
    store.sql("update job set state = 'succeeded', claimed_until = null").await;

    let (claim, export) = claimed(&store, chat).await;
    let at = begun(&store, chat).await;
    assert!(removed(&store.pool, store.tenant, chat).await.is_empty());
    assert!(matches!(record(&store, &claim, &at, &file(export)).await, Recorded::Lost), "what was read before the erasure is not kept");
    let handed = background_jobs::hand_out(&store.pool, LASTS, 10).await.unwrap();
    let again = background_jobs::begin(&store.pool, &handed[0], LASTS).await.unwrap().unwrap();
    let at = begun(&store, chat).await;
    let made = file(export);
    assert!(matches!(record(&store, &again.claim, &at, &made).await, Recorded::Done(_)), "it begins again with what is left");

    assert!(removed(&store.pool, TenantId::new(), chat).await.is_empty(), "another tenant's are out of reach");
    let elsewhere = exports::remove_of_person(&store.pool, store.tenant, Some(SessionId::new()), &[chat.uuid()]).await.unwrap();
    assert!(elsewhere.is_empty(), "another session's stay");
    assert_eq!(removed(&store.pool, store.tenant, chat).await, [made.object]);
    assert!(exports::fetch(&store.pool, store.admin(), export).await.unwrap().is_none());
    assert!(exports::fetch(&store.pool, store.admin(), of_other).await.unwrap().is_some());
    store.sql("update chat set kind = 'group'").await;
    assert_eq!(removed(&store.pool, store.tenant, chat).await.len(), 1, "of a group nobody knows who wrote in it");
}

#[tokio::test]
async fn chats_that_are_merged_while_one_is_exported_are_exported_again_and_found_by_either_id() {
    let store = Store::start().await;
    let (older, newer) = (store.named(PHONE).await, store.named(LID).await);
    let (claim, export) = claimed(&store, newer).await;
    let at = begun(&store, newer).await;
    assert_eq!(store.observe(&[PHONE, LID]).await, older, "the older one goes on");
    assert!(matches!(record(&store, &claim, &at, &file(export)).await, Recorded::Moved));
    let at = begun(&store, newer).await;
    assert_eq!(at.chat.id, older);
    assert!(matches!(record(&store, &claim, &at, &file(export)).await, Recorded::Done(_)));
    assert_eq!(exports::fetch(&store.pool, store.admin(), export).await.unwrap().unwrap().chat, older);
    assert_eq!(removed(&store.pool, store.tenant, newer).await.len(), 1);
}
