//! What an owner writes down: once, whole, and whatever happened in between.

use std::sync::Arc;

use contract::{ChatId, Command, HostId, MessageId, OwnerId, SendText, SessionId};
use store::{
    Held, accept,
    aliases::resolve,
    leases,
    owned::{self, Account, Linked},
};

use crate::support::Stores;

const PEER: &str = "5511888880000";

/// A session of which this process is the owner.
async fn owned_session(stores: &Arc<Stores>) -> (SessionId, Held) {
    let session = stores.session();
    let claim = stores.claimable(session).await;
    let held = leases::bump(&stores.pool, &claim, OwnerId::new(), HostId::new()).await.expect("bumps").expect("nobody else claims it");
    (session, held)
}

fn account() -> Account {
    Account { phone: "5511999990000".into(), lid: None, name: None }
}

#[tokio::test]
async fn a_chat_made_by_a_request_that_straddles_the_first_link_becomes_one_with_the_accounts() {
    let stores = Stores::start().await;
    let (session, held) = owned_session(&stores).await;
    let chat = async || resolve(&stores.pool, stores.tenant, session, &[PEER.parse().unwrap()], None).await.unwrap();
    let first = chat().await;
    assert_eq!(owned::link(&stores.pool, &held, &account()).await.unwrap(), Linked::Accepted);
    assert_eq!(chat().await, first, "the account has taken it over");

    // A statement that began before the link commits after it.
    let late = ChatId::new();
    stores.postgres.run(&format!(
        "insert into chat (id, tenant, session, account, kind, wa_id) values ('{0}', '{1}', '{2}', '', 'private', '{PEER}@c.us');
         insert into chat_alias values ('{2}', '', '{PEER}@c.us', '{0}'), ('{2}', '', '7@lid', '{0}')",
        late.uuid(),
        stores.tenant.uuid(),
        session.uuid()
    ));
    let id = MessageId::new();
    let command = Command::SendText(SendText { message: id, to: PEER.parse().unwrap(), text: "hello".into() });
    let message = accept::NewMessage { id, kind: "text", body: "hello".into(), account: String::new() };
    let job = accept::NewJob { command, chat: Some(late), message: Some(message), ..stores.job(session) };
    accept::accept(&stores.pool, &job, None).await.unwrap();

    for _ in 0..2 {
        assert_eq!(owned::link(&stores.pool, &held, &account()).await.unwrap(), Linked::Accepted);
    }
    assert_eq!(chat().await, first);
    assert_eq!(resolve(&stores.pool, stores.tenant, session, &["7@lid".parse().unwrap()], None).await.unwrap(), first, "all its names");
    let of = |table: &str| stores.postgres.run(&format!("select chat from {table}"));
    assert_eq!((of("job"), of("message")), (first.uuid().to_string(), first.uuid().to_string()));
    assert_eq!(stores.postgres.run("select distinct account from message union select account from chat_alias"), account().phone);
}
