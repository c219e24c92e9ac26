//! What is told of jobs.

use serde::{Deserialize, Serialize};

use super::{
    catalogue::{CHAT, JOB, MESSAGE, USER},
    fact::Example,
};
use crate::{ChatId, Evidence, Failure, JobId, JobResult, JobState, MessageId, Principal, UserId};

/// The body of `job.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobBody {
    /// The job as it ended.
    pub job: JobFact,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobFact {
    /// Which.
    pub id: JobId,
    /// Of which kind, as `GET /api/jobs/{id}` says.
    pub kind: String,
    /// Its end.
    pub state: JobState,
    /// The chat it concerned.
    #[schema(required)]
    pub chat: Option<ChatId>,
    /// The message it sent.
    #[schema(required)]
    pub message: Option<MessageRef>,
    /// The caller's own word for it.
    #[schema(required)]
    pub reference: Option<String>,
    /// The user or key that asked for it.
    pub created_by: Principal,
    /// The job whose message it sent again.
    #[schema(required)]
    pub resend_of: Option<JobId>,
    /// How often it was started.
    pub attempts: i32,
    /// What proves that WhatsApp has the message.
    #[schema(required)]
    pub evidence: Option<Evidence>,
    /// What it answered, by kind; null where a proof came later.
    #[schema(required)]
    pub result: Option<JobResult>,
    /// Why it did not succeed.
    #[schema(required)]
    pub error: Option<Failure>,
}

/// A message by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MessageRef {
    /// Ours.
    pub id: MessageId,
}

/// The body of `job.lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobLostBody {
    /// The job that is gone.
    pub job: JobRef,
}

/// A job by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobRef {
    /// As it was answered with 202.
    pub id: JobId,
}

impl Example for JobLostBody {
    fn example() -> Self {
        Self { job: JobRef { id: JobId::from_uuid(JOB) } }
    }
}

impl Example for JobBody {
    fn example() -> Self {
        let message = MessageId::from_uuid(MESSAGE);
        let wa_id = crate::wa_id_of(message);
        Self {
            job: JobFact {
                id: JobId::from_uuid(JOB),
                kind: "sendText".into(),
                state: JobState::Succeeded,
                chat: Some(ChatId::from_uuid(CHAT)),
                message: Some(MessageRef { id: message }),
                reference: Some("order-1043".into()),
                created_by: Principal::User(UserId::from_uuid(USER)),
                resend_of: None,
                attempts: 1,
                evidence: Some(Evidence { wa_key: format!("true_120984357612345@lid_{wa_id}"), ack: 1 }),
                result: Some(JobResult::Sent { message, wa_id }),
                error: None,
            },
        }
    }
}
