//! What an owner writes down: once, whole, and whatever happened in between.

use std::{sync::Arc, time::Duration};

use contract::{ChatId, Command, HostId, MessageId, OwnerId, Reason, SendText, SessionId, SessionState};
use harness::{proxy::Proxy, until_true};
use store::{
    Held, accept,
    aliases::named,
    incoming::{self, Incoming},
    leases,
    owned::{self, Account, Linked},
    profiles,
};

use crate::support::{SOON, Stores};

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
    let chat = async || named(&stores.pool, stores.tenant, session, &PEER.parse().unwrap()).await.unwrap();
    let first = chat().await;
    assert_eq!(owned::link(&stores.pool, &held, &account(), Duration::ZERO).await.unwrap(), Linked::Accepted);
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
        assert_eq!(owned::link(&stores.pool, &held, &account(), Duration::ZERO).await.unwrap(), Linked::Accepted);
    }
    assert_eq!(chat().await, first);
    assert_eq!(named(&stores.pool, stores.tenant, session, &"7@lid".parse().unwrap()).await.unwrap(), first, "all its names");
    let of = |table: &str| stores.postgres.run(&format!("select chat from {table}"));
    assert_eq!((of("job"), of("message")), (first.uuid().to_string(), first.uuid().to_string()));
    assert_eq!(stores.postgres.run("select distinct account from message union select account from chat_alias"), account().phone);
}

fn message(chat: ChatId, wa_id: &str) -> Incoming {
    Incoming {
        chat,
        from_me: false,
        sender: String::new(),
        sender_lid: None,
        sender_phone: None,
        source: contract::event::MessageSource::Phone,
        wa_id: wa_id.into(),
        kind: "text".into(),
        body: Some("hello".into()),
        ack: 1,
        // Later than the link, whenever that is.
        at: 4_000_000_000,
        reply_to: None,
        announce: true,
        recovered: false,
        row_id: None,
        sender_name: None,
    }
}

/// A pool whose connections can be cut.
async fn by_proxy(stores: &Stores) -> (Proxy, store::PgPool) {
    let url = stores.postgres.url();
    let proxy = Proxy::before(&url).expect("a port is free");
    let pool = store::connect(&proxy.url(&url), 2).await.expect("connects");
    (proxy, pool)
}

/// Runs `statement` so that its connection is lost while it waits for the tenant's counter, and again beside it. Answers the events of the log.
async fn repeated_beside_itself<F: Future<Output = ()> + Send + 'static>(
    stores: &Arc<Stores>,
    statement: impl Fn(store::PgPool) -> F,
) -> String {
    let (proxy, pool) = by_proxy(stores).await;
    let tasks = tokio_util::task::TaskTracker::new();
    let counter = stores.postgres.lock("select 1 from tenant_counter for update");
    let first = tasks.spawn(statement(pool));
    until_true("the first try waits", SOON, || async { stores.postgres.waiting() == 1 }).await;
    proxy.cut();
    let _ = first.await;
    let second = tasks.spawn(statement(stores.pool.clone()));
    until_true("the second try waits", SOON, || async { stores.postgres.waiting() == 2 }).await;
    drop(counter);
    second.await.expect("the second try is told what became of it");
    stores.postgres.run("select seq || ' ' || type from event order by seq")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_recorded_again_beside_its_unfinished_first_try_is_one_event() {
    let stores = Stores::start().await;
    let (session, held) = owned_session(&stores).await;
    owned::link(&stores.pool, &held, &account(), Duration::ZERO).await.unwrap();
    let chat = named(&stores.pool, stores.tenant, session, &PEER.parse().unwrap()).await.unwrap();
    let log = repeated_beside_itself(&stores, |pool| async move {
        let rows = [message(chat, "3A01"), message(chat, "3A02")];
        // The first one is not told what became of it.
        if let Ok(events) = incoming::record(&pool, &held, &rows, None).await {
            assert!(events.is_some(), "still ours");
        }
    });
    assert_eq!(log.await, "1 message\n2 message");
    let again = incoming::record(&stores.pool, &held, &[message(chat, "3A02"), message(chat, "3A03")], None).await.unwrap();
    assert_eq!(again.expect("still ours").len(), 1, "what is new is told");
    assert_eq!(stores.postgres.run("select unread from chat"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_row_that_is_recorded_before_an_earlier_one_hides_it_from_nobody() {
    let stores = Stores::start().await;
    let (session, held) = owned_session(&stores).await;
    owned::link(&stores.pool, &held, &account(), Duration::ZERO).await.unwrap();
    let chat = named(&stores.pool, stores.tenant, session, &PEER.parse().unwrap()).await.unwrap();
    let row = |wa_id: &str, row_id| Incoming { row_id, ..message(chat, wa_id) };
    // As the page told it: the eleventh row, and the owner died before it heard of the tenth.
    let told = incoming::record(&stores.pool, &held, &[row("3A11", None)], None).await.unwrap().expect("still ours");
    assert_eq!(told.len(), 1);
    let mark = || stores.postgres.run("select profile_row_id from session");
    assert_eq!(mark(), "0", "what the page tells moves no mark");
    // As the next owner reads it.
    let rows = [row("3A10", Some(10)), row("3A11", Some(11))];
    let told = incoming::record(&stores.pool, &held, &rows, Some(11)).await.unwrap().expect("still ours");
    assert_eq!(told.len(), 1, "the tenth alone");
    assert_eq!(stores.postgres.run("select string_agg(wa_id, ' ' order by announced_seq) from message"), "3A11 3A10");
    assert_eq!(mark(), "11");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_written_again_beside_its_unfinished_first_try_is_one_event() {
    let stores = Stores::start().await;
    let (_, held) = owned_session(&stores).await;
    let state = (SessionState::LoggedOut, Some(Reason::DeviceRemoved));
    let log = repeated_beside_itself(&stores, |pool| async move {
        if let Ok(events) = owned::set_state(&pool, &held, state, None, false).await {
            assert!(events.is_some(), "still ours");
        }
    });
    assert_eq!(log.await, "1 session.status");
    let stopped = owned::set_state(&stores.pool, &held, (SessionState::Stopped, None), None, false).await.unwrap();
    assert!(stopped.is_some_and(|told| told.is_empty()), "still ours, and not wished for");
    assert_eq!(stores.postgres.run("select state from session"), "logged_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_on_a_connection_that_falls_silent_is_given_up_and_repeated_as_one_event() {
    let stores = Stores::start().await;
    let (session, held) = owned_session(&stores).await;
    owned::link(&stores.pool, &held, &account(), Duration::ZERO).await.unwrap();
    let chat = named(&stores.pool, stores.tenant, session, &PEER.parse().unwrap()).await.unwrap();
    let url = stores.postgres.url();
    let proxy = Proxy::before(&url).unwrap();
    // One connection: it is of use again only if the silent one has left the pool.
    let pool = store::connect(&proxy.url(&url), 1).await.unwrap();
    let mut silent = proxy.hold_answer("3A0511");
    let rows = [message(chat, "3A0511")];
    let given_up = store::within(incoming::record(&pool, &held, &rows, None)).await;
    assert!(given_up.unwrap_err().outcome_unclear());
    silent.arrived().await;
    let events = store::within(incoming::record(&pool, &held, &rows, None)).await.unwrap();
    assert!(events.expect("still ours").len() <= 1);
    assert_eq!(stores.postgres.run("select seq || ' ' || type from event order by seq"), "1 message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_answer_was_lost_is_the_same_start_when_it_is_said_again() {
    use store::lane_jobs::{Start, start};
    let stores = Stores::start().await;
    let (session, held) = owned_session(&stores).await;
    let (job, _) = stores.accept(session).await;
    let (proxy, pool) = by_proxy(&stores).await;
    let cut = proxy.hold_answer(job.uuid().as_bytes());
    let (lost, ()) = tokio::join!(start(&pool, &held, job, 0, Some("true_x_y")), cut.cut());
    assert!(lost.unwrap_err().outcome_unclear());
    for _ in 0..2 {
        assert_eq!(start(&pool, &held, job, 0, Some("true_x_y")).await.unwrap(), Start::Started { attempt: 1 });
    }
    assert_eq!(start(&pool, &held, job, 1, None).await.unwrap(), Start::Started { attempt: 2 }, "another attempt");
    assert_eq!(start(&pool, &held, job, 0, None).await.unwrap(), Start::Overtaken, "the first is over");
    let claim = store::leases::Claimable { tenant: stores.tenant, session, epoch: held.epoch(), owned: true, has_work: true };
    let next = leases::bump(&stores.pool, &claim, OwnerId::new(), HostId::new()).await.unwrap().unwrap();
    assert_eq!(start(&pool, &held, job, 2, None).await.unwrap(), Start::Fenced);
    assert_eq!(start(&pool, &next, job, 2, None).await.unwrap(), Start::Started { attempt: 3 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_begins_when_the_session_last_worked_and_a_known_account_in_an_empty_directory_owes_one() {
    let stores = Stores::start().await;
    let (_, held) = owned_session(&stores).await;
    let pool = &stores.pool;
    let link = async || owned::link(pool, &held, &account(), Duration::ZERO).await.unwrap();
    let state = async |state| owned::set_state(pool, &held, (state, None), None, true).await.unwrap();
    let owed = async || owned::announce_owed_gap(pool, &held).await.unwrap();
    // The first link of all owes nothing, whatever its directory.
    assert!(profiles::begin(pool, &held, contract::ProfileId::new(), 1, profiles::Source::Empty).await.unwrap());
    assert_eq!(link().await, Linked::Accepted);
    assert!(owed().await.is_none());

    stores.postgres.run("update session set state = 'working', state_at = now() - interval '3 hours'");
    let since = stores.postgres.run("select state_at from session");
    let lost = owned::announce_gap(pool, &held).await.unwrap().expect("ours").remove(0);
    let same = |gap: &contract::Event, at: &str| {
        let from = gap.data["gap"]["from"].as_str().unwrap();
        stores.postgres.run(&format!("select '{from}'::timestamptz = date_trunc('milliseconds', '{at}'::timestamptz)")) == "t"
    };
    assert!(same(&lost, &since), "it was left without a word: all that is known is since when it worked");

    state(SessionState::LoggedOut).await;
    let until = stores.postgres.run("select worked_until from session");
    state(SessionState::Starting).await;
    assert!(profiles::begin(pool, &held, contract::ProfileId::new(), 1, profiles::Source::Empty).await.unwrap());
    assert!(owed().await.is_some_and(|gap| same(&gap[0], &until)), "a link in an empty directory");
    assert!(owed().await.is_none(), "told once");

    // A host that died said nothing: the gap begins when it last read, not when another one noticed.
    stores
        .postgres
        .run("update session set state = 'working', state_at = now() - interval '2 hours', reconciled_at = now() - interval '1 hour'");
    let read = stores.postgres.run("select reconciled_at from session");
    owned::set_state(pool, &held, (SessionState::Reconnecting, Some(contract::Reason::HostChanged)), None, false).await.unwrap();
    state(SessionState::LoggedOut).await;
    assert!(profiles::begin(pool, &held, contract::ProfileId::new(), 1, profiles::Source::Empty).await.unwrap());
    assert_eq!(link().await, Linked::Accepted);
    assert!(owed().await.is_some_and(|gap| same(&gap[0], &read)));

    // Another account has missed nothing.
    assert!(profiles::begin(pool, &held, contract::ProfileId::new(), 1, profiles::Source::Empty).await.unwrap());
    stores.postgres.run("update session set allow_new_account = true");
    let other = Account { phone: "5511777770000".into(), ..account() };
    assert_eq!(owned::link(pool, &held, &other, Duration::ZERO).await.unwrap(), Linked::Accepted);
    assert!(owed().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_host_lost_and_does_not_take_again_is_asked_for_by_the_others() {
    let stores = Stores::start().await;
    let (session, _) = owned_session(&stores).await;
    let (host, other) = (HostId::new(), HostId::new());
    stores.postgres.run(&format!("update session set state = 'working', host = '{}'", host.uuid()));
    let asked = async || leases::claimable(&stores.pool, &[host], &[], i32::MAX).await.unwrap();
    leases::disown(&stores.pool, other, &[session]).await.unwrap();
    assert!(asked().await.is_empty(), "it may run there");
    leases::disown(&stores.pool, host, &[session]).await.unwrap();
    assert!(matches!(asked().await.as_slice(), [claim] if claim.session == session && claim.owned), "and nobody released it");
}
