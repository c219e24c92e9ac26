//! A job's states and ends.

use serde::{Deserialize, Serialize};

use crate::{ChatId, ErasedCount, ExportId, MediaId, MessageId, Remainder, Timestamp, UserAction};
use chrono::{DateTime, Utc};

macro_rules! names {
    ($(#[doc = $says:literal])* $name:ident { $($(#[doc = $about:literal])* $variant:ident = $text:literal,)* }) => {
        $(#[doc = $says])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $about])* #[serde(rename = $text)] $variant,)* }
        // By hand: the derive does not see names that come out of a macro, and would publish those of the variants.
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($says),*).trim_ascii()))
                    .enum_values(Some([$($text),*]))
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The stable name, in answers and in Postgres.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// What it means: the comment on it.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),*).trim_ascii(),)* }
            }
            /// The value of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use names;

/// [`names`] that others may add to: an unknown one is carried through as it is, so that no reader sees a hole.
macro_rules! open_names {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $about:literal])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $about])* $variant,)*
            /// A name that this build does not know: a newer service wrote it.
            Other(String),
        }
        impl $name {
            /// Every value that this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The stable name, in answers and in Postgres.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $text,)* Self::Other(name) => name }
            }
            /// The known value of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
            /// The comment on it, line by line; nothing for a name that this build does not know.
            pub const fn comment(&self) -> &'static str {
                match self { $(Self::$variant => concat!($($about, "\n"),*),)* Self::Other(_) => "" }
            }
        }
        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self::from_name(&name).unwrap_or(Self::Other(name))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d).map(Self::from)
            }
        }
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some("Unknown names are to be ignored."))
                    .examples([$($text),*])
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use open_names;

names! {
    /// Where a job is. Only `queued` can be cancelled or expire; `failed` guarantees that WhatsApp did not accept it.
    JobState {
        /// Accepted, never attempted.
        Queued = "queued",
        /// Started at least once, no end yet.
        Running = "running",
        /// Done, with evidence.
        Succeeded = "succeeded",
        /// Certainly not done.
        Failed = "failed",
        /// Withdrawn before it started.
        Cancelled = "cancelled",
        /// Not started before `expiresAt`.
        Expired = "expired",
        /// May or may not have been done; turns `succeeded` if proof arrives.
        Unknown = "unknown",
    }
}

impl JobState {
    /// Whether nothing more is going to happen (a late proof aside).
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

names! {
    /// Where a message is.
    MessageStatus {
        /// Accepted by us.
        Queued = "queued",
        /// Handed to the page.
        Sending = "sending",
        /// WhatsApp's server has it (one tick).
        Sent = "sent",
        /// On the recipient's device (two ticks).
        Delivered = "delivered",
        /// Read (blue ticks).
        Read = "read",
        /// Played (voice).
        Played = "played",
        /// Certainly not sent.
        Failed = "failed",
        /// May or may not have been sent.
        Unknown = "unknown",
        /// Came in.
        Received = "received",
        /// Withdrawn by its sender.
        Revoked = "revoked",
    }
}

impl MessageStatus {
    /// The status that WhatsApp's ack (-1 to 4) of an outgoing message means.
    pub const fn from_ack(ack: i16) -> Self {
        match ack {
            ..0 => Self::Failed,
            0 => Self::Sending,
            1 => Self::Sent,
            2 => Self::Delivered,
            3 => Self::Read,
            4.. => Self::Played,
        }
    }
}

names! {
    /// Why a job did not succeed. Callers switch on these names: they never change.
    FailureCode {
        /// Its time ran out before it started.
        JobExpired = "job_expired",
        /// A caller withdrew it.
        JobCancelled = "job_cancelled",
        /// Started, and no proof either way within the deadlines.
        OutcomeUnknown = "outcome_unknown",
        /// Started by a host that died, with no proof either way.
        HostLost = "host_lost",
        /// Started three times without an end.
        TooManyStarts = "too_many_starts",
        /// No host knows this command.
        HostTooOld = "host_too_old",
        /// The stored command does not decode.
        CommandUndecodable = "command_undecodable",
        /// The chat or number does not exist on WhatsApp.
        ChatNotFound = "chat_not_found",
        /// WhatsApp refused the message.
        Rejected = "rejected",
        /// The page refused the call.
        PageError = "page_error",
        /// The session was logged out before the job started.
        LoggedOut = "logged_out",
        /// WhatsApp restricted the account before the job started.
        Banned = "banned",
        /// Whom it was to write to was erased.
        ContactErased = "contact_erased",
        /// Another account was linked.
        AccountChanged = "account_changed",
        /// The number belongs to another person than when the job was accepted.
        RecipientChanged = "recipient_changed",
        /// The page does not ask to be linked.
        NotLinking = "not_linking",
        /// No account is linked.
        NothingLinked = "nothing_linked",
        /// The session stopped before the job was done.
        SessionEnded = "session_ended",
    }
}

impl FailureCode {
    /// Whether the same request may succeed later without anybody changing anything.
    pub const fn retryable(self) -> bool {
        match self {
            Self::JobExpired | Self::HostTooOld | Self::TooManyStarts | Self::PageError => true,
            Self::NotLinking | Self::NothingLinked | Self::SessionEnded | Self::Banned => false,
            Self::JobCancelled
            | Self::OutcomeUnknown
            | Self::HostLost
            | Self::CommandUndecodable
            | Self::ChatNotFound
            | Self::Rejected
            | Self::LoggedOut
            | Self::ContactErased
            | Self::AccountChanged
            | Self::RecipientChanged => false,
        }
    }
    /// What a person can do about it.
    pub const fn user_action(self) -> Option<UserAction> {
        match self {
            Self::LoggedOut | Self::AccountChanged => Some(UserAction::LinkAgain),
            Self::OutcomeUnknown | Self::HostLost | Self::Banned => Some(UserAction::CheckPhone),
            Self::SessionEnded => Some(UserAction::Start),
            Self::JobExpired
            | Self::JobCancelled
            | Self::NotLinking
            | Self::NothingLinked
            | Self::TooManyStarts
            | Self::HostTooOld
            | Self::CommandUndecodable
            | Self::ChatNotFound
            | Self::Rejected
            | Self::PageError
            | Self::ContactErased
            | Self::RecipientChanged => None,
        }
    }
}

/// What proves that WhatsApp has a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The full WhatsApp key, as the page writes it.
    pub wa_key: String,
    /// WhatsApp's ack: 1 sent, 2 delivered, 3 read, 4 played.
    pub ack: i16,
}

/// Why, in a form that callers can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable.
    pub code: FailureCode,
    /// For people; never message text, phone numbers or secrets.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What a person can do.
    pub user_action: Option<UserAction>,
}

impl Failure {
    /// A failure with what its code implies.
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retryable: code.retryable(), user_action: code.user_action() }
    }
}

/// What a job that succeeded answers, by its `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum JobResult {
    /// `sendText`: what was sent.
    #[serde(rename_all = "camelCase")]
    Sent {
        /// Our message.
        message: MessageId,
        /// WhatsApp's id part.
        wa_id: String,
    },
    /// `exportChat`: what was made. Before what has fewer fields: an answer is read as the first that fits.
    #[serde(rename_all = "camelCase")]
    Exported {
        /// The file: `GET /api/exports/{id}/content`.
        export: ExportId,
        /// Of which chat.
        chat: ChatId,
        /// Its bytes.
        size: u64,
        /// Their digest, in hexadecimal digits.
        sha256: String,
        /// How many messages are in it.
        messages: u64,
        /// Until when it is kept.
        expires_at: Timestamp,
    },
    /// `markRead`: what was read.
    Read {
        /// The chat.
        chat: ChatId,
    },
    /// `screenshot`: the picture.
    Picture {
        /// What it is, and where.
        media: Media,
    },
    /// `eraseContact`: what is gone, and what is not.
    Erased {
        /// Up to when what was said is gone.
        until: Timestamp,
        /// What is gone.
        erased: Vec<ErasedCount>,
        /// What is not.
        kept: Vec<Remainder>,
    },
    /// `pairingCode`: what is typed on the phone. Kept with no job: an answer has it only while it counts.
    #[serde(rename_all = "camelCase")]
    Code {
        /// Eight characters.
        code: String,
        /// Until when a phone takes it.
        #[schema(value_type = String, format = DateTime)]
        expires_at: DateTime<Utc>,
    },
}

/// How far a job of a worker has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// Of how much, as far as is known.
    pub total: u64,
}

/// Bytes that a caller may fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Media {
    /// Its id.
    pub id: MediaId,
    /// Of what type.
    pub mime: String,
    /// How many bytes.
    pub size: u64,
    /// Their digest, in hexadecimal digits.
    pub sha256: String,
    /// Whether they are there.
    pub state: MediaState,
}

names! {
    /// Whether media can be fetched.
    MediaState {
        /// They can.
        Ready = "ready",
    }
}

/// What ended a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done. `evidence` where WhatsApp gave some; `result` by kind.
    Succeeded {
        /// Proof, for what is sent.
        evidence: Option<Evidence>,
        /// What the command answers.
        result: Option<JobResult>,
    },
    /// Certainly not done.
    Failed(Failure),
    /// Nobody can know (yet).
    Unknown(Failure),
}

impl Outcome {
    /// The job state it leads to.
    pub const fn state(&self) -> JobState {
        match self {
            Self::Succeeded { .. } => JobState::Succeeded,
            Self::Failed(_) => JobState::Failed,
            Self::Unknown(_) => JobState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_state_in_json_is_its_name_in_postgres() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(JobState::from_name(state.as_str()), Some(*state));
        }
    }
}
