//! Jobs as callers see them, and their withdrawal.

use chrono::{DateTime, Utc};
use contract::{ChatId, Event, JobId, JobState, MessageId, MessageStatus, Principal, SessionId, TenantId};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Result,
    ends::{self, QueuedEnd},
    grants::Viewer,
    lane_jobs,
    snapshot::Snapshot,
};

/// A row of `job` with its message.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// For which session.
    pub session: SessionId,
    /// What it does.
    pub kind: String,
    /// Where it is.
    pub state: JobState,
    /// Whether its session is working: what a queued job waits for.
    pub session_working: bool,
    /// Whether a worker does it, and not its session's host.
    pub background: bool,
    /// How far a worker has come with it.
    pub progress: Option<Value>,
    /// The chat it concerns.
    pub chat: Option<ChatId>,
    /// The message it sends.
    pub message: Option<JobMessage>,
    /// The caller's own reference.
    pub reference: Option<String>,
    /// Who asked for it.
    pub created_by: Principal,
    /// The job whose message it sends again.
    pub resend_of: Option<JobId>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it was first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Until when it may start.
    pub expires_at: DateTime<Utc>,
    /// How often it was started.
    pub attempts: i32,
    /// What the command answered.
    pub result: Option<Value>,
    /// What proves success.
    pub evidence: Option<Value>,
    /// Why it did not succeed.
    pub error: Option<Value>,
}

/// The message of a job, in short.
#[derive(Debug, Clone)]
pub struct JobMessage {
    /// Our id.
    pub id: MessageId,
    /// WhatsApp's id part.
    pub wa_id: String,
    /// Where it is.
    pub status: MessageStatus,
    /// WhatsApp's ack.
    pub ack: Option<i16>,
}

struct Row {
    id: Uuid,
    session: Uuid,
    kind: String,
    state: String,
    session_working: bool,
    background: bool,
    progress: Option<Value>,
    chat: Option<Uuid>,
    reference: Option<String>,
    created_by: Uuid,
    by_key: bool,
    resend_of: Option<Uuid>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    attempts: i32,
    result: Option<Value>,
    evidence: Option<Value>,
    error: Option<Value>,
    message: Option<Uuid>,
    message_wa_id: Option<String>,
    message_status: Option<String>,
    message_ack: Option<i16>,
}

impl Row {
    fn job(self, tenant: TenantId) -> Job {
        let message = self.message.zip(self.message_wa_id).zip(self.message_status);
        Job {
            id: JobId::from_uuid(self.id),
            tenant,
            session: SessionId::from_uuid(self.session),
            kind: self.kind,
            // The tables' checks allow no other names.
            state: JobState::from_name(&self.state).unwrap_or(JobState::Unknown),
            session_working: self.session_working,
            background: self.background,
            progress: self.progress,
            chat: self.chat.map(ChatId::from_uuid),
            message: message.map(|((id, wa_id), status)| JobMessage {
                id: MessageId::from_uuid(id),
                wa_id,
                status: MessageStatus::from_name(&status).unwrap_or(MessageStatus::Unknown),
                ack: self.message_ack,
            }),
            reference: self.reference,
            created_by: Principal::of(self.created_by, self.by_key),
            resend_of: self.resend_of.map(JobId::from_uuid),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            expires_at: self.expires_at,
            attempts: self.attempts,
            result: self.result,
            evidence: self.evidence,
            error: self.error,
        }
    }
}

/// A job that the viewer sees: its chat is granted now; without a chat, it is the viewer's own. An ADMIN sees all.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn fetch(pool: &PgPool, viewer: Viewer, id: JobId) -> Result<Option<Job>> {
    let row = sqlx::query_as!(
        Row,
        r#"select j.id, j.session, j.kind, j.state, s.state = 'working' as "session_working!", j.lane = 'background' as "background!", j.progress,
                  coalesce(jc.merged_into, j.chat) as chat, j.reference,
                  j.created_by, exists (select 1 from api_key k where k.id = j.created_by and k.tenant = $1) as "by_key!", j.resend_of, j.created_at,
                  j.started_at, j.finished_at, j.expires_at, j.attempt as attempts, j.result, j.evidence, j.error,
                  m.id as "message?", m.wa_id as "message_wa_id?", m.status as "message_status?", m.ack as "message_ack?"
             from job j join session s on s.id = j.session and s.deleting_at is null left join chat jc on jc.id = j.chat
                  left join message m on m.id = j.message and m.tenant = j.tenant
            where j.tenant = $1 and j.id = $2
              and ($3::uuid is null or j.chat is null and j.created_by = $3 or exists (
                   select 1 from live_grant g join chat c on c.id = j.chat
                    where g.tenant = $1 and g.holder = $3 and g.session = j.session
                      and (g.chat = coalesce(c.merged_into, c.id) or g.all_chats) and c.account = coalesce(s.account, '')))"#,
        viewer.tenant().uuid(),
        id.uuid(),
        viewer.holder()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| r.job(viewer.tenant())))
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of one session.
    pub session: Option<SessionId>,
    /// In one state.
    pub state: Option<JobState>,
    /// Of one chat, by any of its ids.
    pub chat: Option<ChatId>,
    /// With this reference.
    pub reference: Option<String>,
    /// Accepted before this one.
    pub before: Option<JobId>,
}

/// The jobs that the viewer sees, newest first.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn list(snapshot: &mut Snapshot, viewer: Viewer, filter: &Filter, limit: i64) -> Result<Vec<Job>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select j.id, j.session, j.kind, j.state, s.state = 'working' as "session_working!", j.lane = 'background' as "background!", j.progress,
                  coalesce(jc.merged_into, j.chat) as chat, j.reference,
                  j.created_by, exists (select 1 from api_key k where k.id = j.created_by and k.tenant = $1) as "by_key!", j.resend_of, j.created_at,
                  j.started_at, j.finished_at, j.expires_at, j.attempt as attempts, j.result, j.evidence, j.error,
                  m.id as "message?", m.wa_id as "message_wa_id?", m.status as "message_status?", m.ack as "message_ack?"
             from job j join session s on s.id = j.session and s.deleting_at is null left join chat jc on jc.id = j.chat
                  left join message m on m.id = j.message and m.tenant = j.tenant
            where j.tenant = $1 and ($2::uuid is null or j.session = $2) and ($3::text is null or j.state = $3)
              and ($4::uuid is null or j.chat in (select $4::uuid union select coalesce(n.merged_into, n.id) from chat n where n.id = $4))
              and ($5::uuid is null or j.id < $5) and ($8::text is null or j.reference = $8)
              and ($6::uuid is null or j.chat is null and j.created_by = $6 or exists (
                   select 1 from live_grant g join chat c on c.id = j.chat
                    where g.tenant = $1 and g.holder = $6 and g.session = j.session
                      and (g.chat = coalesce(c.merged_into, c.id) or g.all_chats) and c.account = coalesce(s.account, '')))
            order by j.id desc limit $7"#,
        viewer.tenant().uuid(),
        filter.session.map(SessionId::uuid),
        filter.state.map(JobState::as_str),
        filter.chat.map(ChatId::uuid),
        filter.before.map(JobId::uuid),
        viewer.holder(),
        limit,
        filter.reference
    )
    .fetch_all(snapshot.connection())
    .await?;
    Ok(rows.into_iter().map(|r| r.job(viewer.tenant())).collect())
}

/// What became of a withdrawal.
#[derive(Debug)]
pub enum Cancel {
    /// It will not start; the events say so.
    Cancelled(Vec<Event>),
    /// It has been started: too late.
    Running,
    /// It has ended.
    Finished,
    /// The tenant has no such job.
    NotFound,
}

/// Withdraws a queued job ([`ends::end_queued`]). A start that runs at the same moment either sees it cancelled or makes this see it running.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn cancel(pool: &PgPool, job: &Job) -> Result<Cancel> {
    let Some(row) = lane_jobs::load(pool, job.tenant, job.session, job.id).await? else { return Ok(Cancel::NotFound) };
    let events = ends::end_queued(pool, &row, QueuedEnd::Cancelled).await?;
    if events.is_empty() { not_cancelled(pool, job).await } else { Ok(Cancel::Cancelled(events)) }
}

async fn not_cancelled(pool: &PgPool, job: &Job) -> Result<Cancel> {
    let state = sqlx::query_scalar!("select state from job where tenant = $1 and id = $2", job.tenant.uuid(), job.id.uuid())
        .fetch_optional(pool)
        .await?;
    Ok(match state.as_deref().and_then(JobState::from_name) {
        Some(JobState::Queued | JobState::Running) => Cancel::Running,
        Some(JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired | JobState::Unknown) => Cancel::Finished,
        None => Cancel::NotFound,
    })
}
