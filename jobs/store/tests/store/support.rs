//! A Postgres of a test's own, with a tenant, an EMPLEADO and a linked session in it.

use std::time::Duration;

use contract::{ChatId, Command, Event, HostId, Jid, JobId, MessageId, OwnerId, Principal, SendText, SessionId, TenantId, UserId};
use harness::{Folder, User, postgres::Postgres};
use store::{
    Held, PgPool,
    accept::{Accepted, NewJob, NewMessage},
    grants::Viewer,
    incoming::Incoming,
    lane_jobs::{self, LaneJob, Start},
    leases::{self, Claimable},
    sessions::{Named, Session},
};

pub const OURS: &str = "5511999990000";
pub const PHONE: &str = "5511888880000@c.us";
pub const LID: &str = "100200300400500@lid";
pub const OTHER_LID: &str = "600700800900100@lid";

pub struct Store {
    pub pool: PgPool,
    pub tenant: TenantId,
    pub session: SessionId,
    pub employee: UserId,
    pub held: Held,
    now: i64,
    postgres: Postgres,
    _folder: Folder,
}

pub fn jids(names: &[&str]) -> Vec<Jid> {
    names.iter().map(|n| n.parse().expect("an address")).collect()
}

impl Store {
    pub async fn start() -> Self {
        let user = User::find().expect("there is one");
        let folder = Folder::new(user).expect("a folder can be made");
        let postgres = Postgres::start(user, &folder, folder.path()).await.expect("postgres starts");
        let pool = store::connect(&postgres.url(), 30).await.expect("connects");
        store::MIGRATIONS.run(&pool).await.expect("migrates");
        let (tenant, session, employee) = (TenantId::new(), SessionId::new(), UserId::new());
        for statement in [
            format!("insert into tenant (id, name) values ('{}', 'a')", tenant.uuid()),
            format!("insert into tenant_counter (tenant) values ('{}')", tenant.uuid()),
            format!(
                "insert into app_user (id, tenant, email, name, rol) values ('{0}', '{0}', 'a@a.example', 'a', 'ADMIN'), ('{1}', '{0}', 'e@a.example', 'e', 'EMPLEADO')",
                tenant.uuid(),
                employee.uuid()
            ),
            format!(
                "insert into session (id, tenant, name, is_default, wanted, state, account, linked_at)
                 values ('{}', '{}', 'default', true, 'running', 'working', '{OURS}', now() - interval '1 hour')",
                session.uuid(),
                tenant.uuid()
            ),
            format!("insert into lane_position (session, tenant) values ('{}', '{}')", session.uuid(), tenant.uuid()),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("the rows are made");
        }
        let claim = Claimable { tenant, session, epoch: 0, owned: false, has_work: false };
        let held = leases::bump(&pool, &claim, OwnerId::new(), HostId::new()).await.expect("answers").expect("the session is free");
        let now = sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint").fetch_one(&pool).await.expect("answers");
        Self { pool, tenant, session, employee, held, now, postgres, _folder: folder }
    }

    /// A connection of its own.
    pub async fn alone(&self) -> PgPool {
        store::connect(&self.postgres.url(), 1).await.expect("connects")
    }

    /// Another owner takes over: the one before is stale.
    pub async fn take_over(&self) -> Held {
        let claim = Claimable { tenant: self.tenant, session: self.session, epoch: self.held.epoch(), owned: true, has_work: false };
        leases::bump(&self.pool, &claim, OwnerId::new(), HostId::new()).await.expect("answers").expect("the epoch moves")
    }

    pub async fn sql(&self, statement: &str) {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&self.pool).await.expect("the statement runs");
    }

    pub async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned())).fetch_one(&self.pool).await.expect("the query runs")
    }

    pub async fn named(&self, name: &str) -> ChatId {
        let name = name.parse().expect("an address");
        store::aliases::named(&self.pool, self.tenant, self.session, &name).await.expect("answers")
    }

    /// What the page tells of one person. The events are left to [`Store::log`].
    pub async fn observe(&self, names: &[&str]) -> ChatId {
        store::aliases::observe(&self.pool, &self.held, &jids(names), None).await.expect("answers").expect("ours").chat
    }

    /// The log. Whatever wrote an event, its body is what its type says: read as that and written again it is the same.
    pub async fn log(&self) -> Vec<Event> {
        let log = store::counters::after(&self.pool, self.tenant, 0, 1000).await.expect("answers");
        for event in &log {
            if let Some(fact) = event.fact().unwrap_or_else(|why| panic!("{why}: {event:?}")) {
                assert_eq!(fact.data(), event.data, "a body of {:?} has more or less than its type says", event.kind);
            }
        }
        log
    }

    pub async fn kinds(&self) -> Vec<String> {
        self.log().await.iter().map(|e| e.kind.as_str().to_owned()).collect()
    }

    pub async fn session(&self) -> Session {
        store::sessions::fetch(&self.pool, self.tenant, &Named::Default).await.expect("answers").expect("it is there")
    }

    pub fn employee(&self) -> Viewer {
        Viewer::granted(self.tenant, Principal::User(self.employee))
    }

    pub fn admin(&self) -> Viewer {
        Viewer::all(self.tenant)
    }

    pub async fn grant(&self, chat: ChatId) {
        self.sql(&format!(
            "insert into access_grant (id, tenant, app_user, session, chat, access, created_by)
             values (gen_random_uuid(), '{0}', '{1}', '{2}', '{3}', 'write', '{0}')",
            self.tenant.uuid(),
            self.employee.uuid(),
            self.session.uuid(),
            chat.uuid()
        ))
        .await;
    }

    /// Whether the employee sees a chat by this id or address, and which.
    pub async fn seen(&self, name: &str) -> Option<ChatId> {
        let named = match name.parse() {
            Ok(id) => store::chats::Named::Id(id),
            Err(_) => store::chats::Named::Address(name.parse().expect("an address")),
        };
        let found = store::chats::fetch(&self.pool, self.employee(), &self.session().await, &named).await.expect("answers");
        found.map(|(chat, _)| chat.id)
    }

    pub fn new_job(&self, chat: ChatId, message: MessageId, resend_of: Option<JobId>) -> NewJob {
        let to = PHONE.parse().expect("an address");
        NewJob {
            id: JobId::new(),
            tenant: self.tenant,
            session: self.session,
            command: Command::SendText(SendText { message, to, text: "hi".into() }),
            chat: Some(chat),
            message: Some(NewMessage { id: message, kind: "text", body: "hi".into(), account: OURS.into() }),
            resend_of,
            reference: None,
            created_by: self.tenant.uuid(),
            expires_in: Duration::from_secs(600),
            queue_when_down: false,
        }
    }

    pub async fn accept(&self, chat: ChatId) -> (JobId, MessageId) {
        let message = MessageId::new();
        (self.accept_again(chat, message, None).await, message)
    }

    pub async fn accept_again(&self, chat: ChatId, message: MessageId, resend_of: Option<JobId>) -> JobId {
        let job = self.new_job(chat, message, resend_of);
        let accepted = store::accept::accept(&self.pool, &job, None).await.expect("accepts");
        assert!(matches!(accepted, Accepted::New { .. }));
        job.id
    }

    /// Starts a job; answers it as it was before.
    pub async fn start_job(&self, job: JobId) -> LaneJob {
        let loaded = lane_jobs::load(&self.pool, self.tenant, self.session, job).await.expect("answers").expect("it is there");
        let started = lane_jobs::start(&self.pool, &self.held, job, loaded.attempt, Some("true_x_y")).await.expect("answers");
        assert!(matches!(started, Start::Started { .. }), "{started:?}");
        loaded
    }

    pub async fn record(&self, messages: &[Incoming]) -> Vec<Event> {
        store::incoming::record(&self.pool, &self.held, messages, None).await.expect("answers").expect("ours")
    }

    /// A message that came in, `ago` seconds ago.
    pub fn incoming(&self, chat: ChatId, wa_id: &str, ago: i64) -> Incoming {
        Incoming {
            chat,
            from_me: false,
            sender: String::new(),
            sender_lid: None,
            sender_phone: None,
            wa_id: wa_id.into(),
            kind: "text".into(),
            body: Some("hello".into()),
            ack: 0,
            at: self.now - ago,
            reply_to: None,
            source: contract::event::MessageSource::Phone,
            announce: true,
            recovered: false,
            row_id: None,
            sender_name: None,
        }
    }
}
