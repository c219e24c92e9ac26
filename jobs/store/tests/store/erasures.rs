//! What is there before the moment of an erasure goes, what comes after stays, and what the phone tells again stays away.

use std::time::Duration;

use contract::{ChatId, Jid, JobId, JobState, event::Erased};
use store::{
    contacts::{self, Member, NewContact},
    ends::{self, QueuedEnd},
    erasures::{
        self, Heard, Person, Scope,
        sweep::{self, Erasure},
    },
    incoming::Incoming,
};

use crate::support::{LID, OTHER_LID, PHONE, Store, jids};

const DIGITS: &str = "5511888880000";
const GROUP: &str = "120363041234567890@g.us";

fn bea() -> NewContact {
    NewContact { lid: Some(LID.into()), phone: Some(DIGITS.into()), name: Some("Beatriz".into()), push_name: Some("Bea".into()) }
}

/// Everything in every table.
async fn dump(store: &Store) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("select quote_ident(relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")
            .fetch_all(&store.pool)
            .await
            .expect("answers");
    let mut all = String::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select t::text from only {table} t")))
            .fetch_all(&store.pool)
            .await
            .expect("answers");
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}\n")));
    }
    all
}

impl Store {
    fn scope(&self) -> Scope {
        Scope { tenant: self.tenant, session: None }
    }

    /// What the person's group messages look like.
    fn in_group(&self, group: ChatId, wa_id: &str, ago: i64) -> Incoming {
        let (sender_lid, sender_phone) = (Some(LID.to_owned()), Some(DIGITS.to_owned()));
        Incoming { sender: LID.into(), sender_lid, sender_phone, sender_name: Some("Bea".into()), ..self.incoming(group, wa_id, ago) }
    }

    /// What a host does with messages that it read.
    async fn hear(&self, messages: &[Incoming]) {
        let heard: Vec<Heard> = messages.iter().map(|m| Heard { names: vec![LID.into(), PHONE.into()], at: m.at }).collect();
        erasures::heard(&self.pool, &self.held, &heard).await.expect("answers").expect("ours");
    }

    /// All but the streams and the job around it.
    async fn erase(&self, address: &str) -> Erasure {
        let job = JobId::new();
        let address: Jid = address.parse().expect("an address");
        let person = erasures::find(&self.pool, self.scope(), Person::named(Some(&address), None)).await.expect("answers");
        let until = erasures::begin(&self.pool, self.scope(), job, &person).await.expect("answers");
        erasures::forget_names(&self.pool, self.scope(), job, &person).await.expect("answers");
        let erasure = Erasure { scope: self.scope(), person, until };
        let open = sweep::open_jobs(&self.pool, &erasure).await.expect("answers");
        let late: Vec<JobId> = open.iter().map(|job| job.id).collect();
        for job in open.iter().filter(|job| job.state == JobState::Queued) {
            assert_eq!(ends::end_queued(&self.pool, job, QueuedEnd::ContactErased).await.expect("answers").len(), 1);
        }
        self.sweep(&erasure, &late).await;
        erasure
    }

    async fn sweep(&self, erasure: &Erasure, late: &[JobId]) {
        while sweep::messages(&self.pool, erasure, 3).await.expect("answers") > 0 {}
        while sweep::jobs(&self.pool, erasure, 3).await.expect("answers") > 0 {}
        sweep::keys(&self.pool, erasure).await.expect("answers");
        sweep::requests(&self.pool, erasure).await.expect("answers");
        let (floor, head) = sweep::log_bounds(&self.pool, self.tenant).await.expect("answers");
        sweep::events(&self.pool, erasure, late, (floor, head)).await.expect("answers");
    }

    /// WhatsApp counts whole seconds: the next one is over.
    async fn next_second(&self) -> i64 {
        sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint + 1").fetch_one(&self.pool).await.expect("answers")
    }
}

#[tokio::test]
async fn an_erasure_leaves_nothing_of_a_person_in_any_table_and_nothing_of_others_is_missing() {
    let store = Store::start().await;
    let (chat, group, carla) = (store.observe(&[LID, PHONE]).await, store.observe(&[GROUP]).await, store.observe(&["300@lid"]).await);
    contacts::learn(&store.pool, &store.held, &[bea()]).await.expect("answers");
    let members = [LID, "300@lid"].map(|id| Member { wa_id: id.into(), is_admin: false });
    contacts::members(&store.pool, &store.held, group, &members, true).await.expect("answers");
    let (job, _) = store.accept(chat).await;
    store.start_job(job).await;
    let (waiting, _) = store.accept(chat).await;
    let of_carla = Incoming { body: Some("olá".into()), ..store.incoming(carla, "3C01", 50) };
    let hers: Vec<Incoming> = (0..7).map(|n| store.incoming(chat, &format!("3A{n}"), 60 + n)).collect();
    store.record(&hers).await;
    store.record(&[store.in_group(group, "3B01", 40), of_carla]).await;
    let loaded = store::lane_jobs::load(&store.pool, store.tenant, store.session, job).await.expect("answers").expect("it is there");
    let evidence = contract::Evidence { wa_key: format!("true_{LID}_3EB0"), ack: 1 };
    let done = contract::Outcome::Succeeded { evidence: Some(evidence), result: None };
    let before = store::lane_jobs::LaneJob { attempt: 0, ..loaded };
    store::outcomes::record(&store.pool, &store.held, &before, &done).await.expect("answers");
    let secrets = [DIGITS, "100200300400500", "Bea", "hello"];
    let text = dump(&store).await;
    for secret in secrets {
        assert!(text.contains(secret), "the test wrote {secret}");
    }

    let erasure = store.erase(DIGITS).await;
    assert_eq!(erasure.person.names, [LID, PHONE], "all names of the person are found by one");
    let text = dump(&store).await;
    for secret in secrets {
        let left: Vec<&str> = text.lines().filter(|line| line.contains(secret)).collect();
        assert!(left.is_empty(), "{secret} is still in {left:?}");
    }
    assert!(text.contains("olá"), "what others wrote stays");
    assert_eq!(store.count("select count(*) from message").await, 1);
    assert_eq!(store.count("select count(*) from chat_member").await, 1);
    let row =
        format!("select count(*) from job where id = '{}' and state = 'cancelled' and error ->> 'code' = 'contact_erased'", waiting.uuid());
    assert_eq!(store.count(&row).await, 1, "what waited to be sent to the person never is");
    let log = store.log().await;
    let seqs: Vec<i64> = log.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=i64::try_from(log.len()).expect("few")).collect::<Vec<_>>(), "the log has no hole");
    let whole: Vec<_> = log.iter().filter(|e| !Erased::is(&e.data)).map(|e| e.data["message"]["text"].as_str()).collect();
    assert_eq!(whole, [Some("olá")]);
    store.erase(PHONE).await;
    store.erase(LID).await;
    assert_eq!(store.count("select count(*) from message").await, 1, "an erasure may be done again");
}

#[tokio::test]
async fn what_the_phone_tells_again_of_an_erased_person_stays_away_until_something_new_comes() {
    let store = Store::start().await;
    let (chat, group) = (store.observe(&[LID, PHONE]).await, store.observe(&[GROUP]).await);
    store.grant(chat).await;
    contacts::learn(&store.pool, &store.held, &[bea()]).await.expect("answers");
    let (old, in_group) = (store.incoming(chat, "3A01", 60), store.in_group(group, "3B01", 60));
    store.record(&[old.clone(), in_group.clone()]).await;
    store.erase(LID).await;

    // A history sync, a list of chats, of contacts and of members, and a read of the page's rows: all of it again.
    store.hear(&[old.clone(), in_group.clone()]).await;
    assert_eq!(store.observe(&[LID, PHONE]).await, chat, "the chat keeps its id");
    let member = Member { wa_id: LID.into(), is_admin: false };
    contacts::members(&store.pool, &store.held, group, &[member], true).await.expect("answers");
    contacts::learn(&store.pool, &store.held, &[bea()]).await.expect("answers");
    let shown = store::chats::Shown { chat, name: Some("Bea".into()), unread: 0, archived: false };
    store::chats::show(&store.pool, &store.held, &[shown]).await.expect("answers");
    assert!(store.record(&[old.clone(), in_group.clone()]).await.is_empty());
    assert_eq!(store.count("select count(*) from message").await, 0);
    let text = dump(&store).await;
    for secret in [DIGITS, "100200300400500", "Bea", "hello"] {
        assert!(!text.contains(secret), "{secret} came back");
    }

    let at = store.next_second().await;
    let new = Incoming { at, body: Some("sou eu".into()), ..store.incoming(chat, "3A02", 0) };
    store.hear(std::slice::from_ref(&new)).await;
    assert_eq!(store.observe(&[LID, PHONE]).await, chat);
    contacts::learn(&store.pool, &store.held, &[bea()]).await.expect("answers");
    assert_eq!(store.record(&[new, old]).await.len(), 1, "what is new is recorded and told, what is old is not");
    assert_eq!(store.seen(PHONE).await, Some(chat), "the person has its names, and the chat its grants");
    assert_eq!(store.count("select count(*) from contact where name = 'Beatriz'").await, 1);
    assert_eq!(store.count("select count(*) from message").await, 1);
}

#[tokio::test]
async fn an_erased_number_that_somebody_writes_to_leads_to_the_same_chat() {
    let store = Store::start().await;
    let chat = store.observe(&[LID, PHONE]).await;
    store.record(&[store.incoming(chat, "3A01", 60)]).await;
    store.erase(PHONE).await;
    assert_eq!(store.named(DIGITS).await, chat);
    let found = store::chats::fetch(&store.pool, store.admin(), &store.session().await, &store::chats::Named::Id(chat)).await;
    assert_eq!(found.expect("answers").expect("it is there").0.wa_id, PHONE);
    // The host looks whom a job is for: the same person, though nothing is written down of its other name.
    assert_eq!(store.observe(&[LID, PHONE]).await, chat);
    assert!(!dump(&store).await.contains("100200300400500"));
}

#[tokio::test]
async fn a_number_that_goes_to_another_person_after_an_erasure_does_not_lead_to_the_old_chat_and_its_grants() {
    for (told_before, written_to_since) in [(&[LID, PHONE][..], false), (&[LID, PHONE], true), (&[PHONE], false)] {
        let store = Store::start().await;
        let old = store.observe(told_before).await;
        contacts::learn(&store.pool, &store.held, &[bea()]).await.expect("answers");
        store.grant(old).await;
        store.record(&[store.incoming(old, "3A01", 60)]).await;
        store.erase(PHONE).await;
        if written_to_since {
            assert_eq!(store.named(DIGITS).await, old);
        }
        // A host that looks whom a job is for tells nobody's message before.
        let new = store.observe(&[OTHER_LID, PHONE]).await;
        assert_ne!(new, old, "a LID is a person");
        let at = store.next_second().await;
        let heard = Heard { names: vec![OTHER_LID.into(), PHONE.into()], at };
        assert_eq!(erasures::heard(&store.pool, &store.held, &[heard]).await.expect("answers"), Some(false), "it is somebody else");
        assert_eq!(store.observe(&[OTHER_LID, PHONE]).await, new);
        assert_eq!(store.named(DIGITS).await, new);
        assert_eq!(store.seen(PHONE).await, None, "nobody was granted the chat of the other person");
        let message = Incoming { at, ..store.incoming(new, "3A02", 0) };
        let long_ago = store.incoming(new, "3A03", 90);
        assert_eq!(store.record(&[message, long_ago]).await.len(), 2, "what the other person writes and wrote is recorded");

        assert_eq!(store.observe(&[LID, "5511777770000@c.us"]).await, old, "the person is known by its LID");
        let dumped = dump(&store).await;
        assert!(!dumped.contains(LID) && !dumped.contains("5511777770000"), "nothing was heard of the person itself: {dumped}");
        let heard = Heard { names: vec![LID.into(), "5511777770000@c.us".into()], at };
        assert_eq!(erasures::heard(&store.pool, &store.held, &[heard]).await.expect("answers"), Some(true));
        assert_eq!(store.observe(&[LID, "5511777770000@c.us"]).await, old);
        assert_eq!(store.seen(LID).await, Some(old));
    }
}

#[tokio::test]
async fn an_erased_number_remembers_whose_it_was_by_what_is_told_beside_it_later() {
    let store = Store::start().await;
    let old = store.observe(&[PHONE]).await;
    store.erase(PHONE).await;
    assert_eq!(store.observe(&[LID, PHONE]).await, old, "nothing tells that it is another person");
    assert_ne!(store.observe(&[OTHER_LID, PHONE]).await, old);
    assert_eq!(store.observe(&[LID]).await, old);
    assert!(!dump(&store).await.contains(LID));
}

#[tokio::test]
async fn a_number_that_nobody_has_met_can_be_erased_and_what_the_phone_tells_later_stays_away() {
    let store = Store::start().await;
    store.erase(PHONE).await;
    let chat = store.observe(&[PHONE]).await;
    assert!(store.record(&[store.incoming(chat, "3A01", 60)]).await.is_empty());
    assert!(!dump(&store).await.contains(DIGITS));
    assert_eq!(store.observe(&[PHONE]).await, chat, "one chat, however often it is told");
}

#[tokio::test]
async fn a_number_that_nobody_has_met_stays_away_under_its_hidden_id_too() {
    let store = Store::start().await;
    store.erase(PHONE).await;
    let chat = store.observe(&[LID, PHONE]).await;
    assert!(store.record(&[store.incoming(chat, "3A01", 60)]).await.is_empty());
    assert_eq!(store.count("select count(*) from message").await, 0);
    let dumped = dump(&store).await;
    assert!(!dumped.contains(DIGITS) && !dumped.contains(LID), "{dumped}");
}

#[tokio::test]
async fn one_of_five_thousand_chats_is_found_before_a_statement_may_take_no_longer() {
    let store = Store::start().await;
    let chat = store.observe(&[LID, PHONE]).await;
    for statement in [
        "insert into chat (id, tenant, session, account, kind, wa_id)
         select gen_random_uuid(), c.tenant, c.session, c.account, 'private', n || '@lid' from chat c, generate_series(1, 5000) n",
        "insert into chat_alias (session, account, alias, chat)
         select c.session, c.account, a.alias, c.id from chat c, unnest(array[c.wa_id, '9000000' || c.wa_id]) a (alias) where c.lid is null",
    ] {
        sqlx::query(statement).execute(&store.pool).await.expect("it runs");
    }
    let person = erasures::find(&store.pool, store.scope(), Person::named(Some(&jids(&[PHONE])[0]), None)).await.expect("in time");
    assert_eq!(person.chats, [chat.uuid()]);
    assert_eq!(person.names.len(), 2);
}

#[tokio::test]
async fn a_job_that_ended_just_after_the_moment_tells_nothing_that_stays() {
    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    let (id, _) = store.accept(chat).await;
    let loaded = store.start_job(id).await;
    let person = erasures::find(&store.pool, store.scope(), Person::named(None, Some(chat))).await.expect("answers");
    let until = erasures::begin(&store.pool, store.scope(), JobId::new(), &person).await.expect("answers");
    // Before anybody asked which jobs were open.
    let evidence = contract::Evidence { wa_key: format!("true_{PHONE}_3EB0"), ack: 1 };
    let done = contract::Outcome::Succeeded { evidence: Some(evidence), result: None };
    store::outcomes::record(&store.pool, &store.held, &loaded, &done).await.expect("answers");
    let erasure = Erasure { scope: store.scope(), person, until };
    let late: Vec<JobId> = sweep::open_jobs(&store.pool, &erasure).await.expect("answers").iter().map(|job| job.id).collect();
    store.sweep(&erasure, &late).await;
    assert!(store.log().await.iter().all(|e| Erased::is(&e.data)));
}

#[tokio::test]
async fn what_is_recorded_at_the_moment_of_an_erasure_is_before_or_after_and_never_half() {
    let store = std::sync::Arc::new(Store::start().await);
    let chat = store.observe(&[PHONE]).await;
    let at = store.next_second().await + 3600;
    // Newer than the erasure by WhatsApp's clock, so that only the order of statements decides.
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..12 {
        let store = store.clone();
        writers.spawn(async move {
            for m in 0..8 {
                let message = Incoming { at, ..store.incoming(chat, &format!("3A{n}X{m}"), 0) };
                store.record(&[message]).await;
            }
        });
    }
    while store.count("select count(*) from message").await < 20 {
        tokio::task::yield_now().await;
    }
    let erasure = store.erase(PHONE).await;
    writers.join_all().await;
    store.sweep(&erasure, &[]).await;
    let log = store.log().await;
    let (erased, whole): (Vec<_>, Vec<_>) = log.iter().partition(|e| Erased::is(&e.data));
    assert_eq!(erased.len() + whole.len(), 96);
    assert!(erased.len() >= 20, "{}", erased.len());
    assert!(erased.iter().map(|e| e.seq).max() < whole.iter().map(|e| e.seq).min(), "one moment parts the log");
    let rows = store.count("select count(*) from message where announced_seq is not null").await;
    assert_eq!(rows, i64::try_from(whole.len()).expect("few"), "a message is there if and only if its event is");
}

#[tokio::test]
async fn a_started_job_that_ends_after_the_moment_tells_nothing_that_stays() {
    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    let (id, _) = store.accept(chat).await;
    let loaded = store.start_job(id).await;
    let job = JobId::new();
    let person = Person::named(Some(&jids(&[PHONE])[0]), Some(chat));
    let person = erasures::find(&store.pool, store.scope(), person).await.expect("answers");
    let until = erasures::begin(&store.pool, store.scope(), job, &person).await.expect("answers");
    let erasure = Erasure { scope: store.scope(), person, until };
    let open = sweep::open_jobs(&store.pool, &erasure).await.expect("answers");
    assert_eq!(open.iter().map(|j| (j.id, j.state)).collect::<Vec<_>>(), [(id, JobState::Running)]);
    // Its message is told now, with its text: the log is swept after.
    let evidence = contract::Evidence { wa_key: format!("true_{PHONE}_3EB0"), ack: 1 };
    let done = contract::Outcome::Succeeded { evidence: Some(evidence), result: None };
    store::outcomes::record(&store.pool, &store.held, &loaded, &done).await.expect("answers");
    store.sweep(&erasure, &[id]).await;
    assert!(store.log().await.iter().all(|e| Erased::is(&e.data)));
    // One whose outcome never comes ends without one.
    let (other, _) = store.accept(chat).await;
    let running = store.start_job(other).await;
    let ended = ends::end_queued(&store.pool, &running, QueuedEnd::ErasedMeanwhile).await.expect("answers");
    assert_eq!(ended[0].data["job"]["state"], "unknown");
    assert_eq!(ended[0].data["job"]["error"]["code"], "contact_erased");
    let refused = contract::Outcome::Failed(contract::Failure::new(contract::FailureCode::PageError, "late"));
    let late = store::outcomes::record(&store.pool, &store.held, &running, &refused).await.expect("answers");
    assert!(!matches!(late, store::outcomes::Recorded::Written(_)), "{late:?}");
}

#[tokio::test]
async fn one_session_can_be_erased_alone_and_no_other_tenant_is_touched() {
    let store = Store::start().await;
    let chat = store.observe(&[PHONE]).await;
    store.record(&[store.incoming(chat, "3A01", 60)]).await;
    let elsewhere = Scope { tenant: contract::TenantId::new(), session: None };
    let other = Scope { tenant: store.tenant, session: Some(contract::SessionId::new()) };
    for scope in [elsewhere, other] {
        let person = Person::named(Some(&jids(&[PHONE])[0]), None);
        let person = erasures::find(&store.pool, scope, person).await.expect("answers");
        assert!(person.chats.is_empty(), "{person:?}");
        let erasure = Erasure { scope, person, until: store::snapshot::now(&store.pool).await.expect("answers") + Duration::from_secs(60) };
        store.sweep(&erasure, &[]).await;
    }
    assert_eq!(store.count("select count(*) from message").await, 1);
    assert!(store.log().await.iter().all(|e| !Erased::is(&e.data)));
}
