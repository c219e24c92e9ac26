//! What a session can be told to do.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ChatId, ExportId, Jid, MessageId, SessionId};

/// Where a command waits: in one of a session's three queues, or, in none of them, for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Lane {
    /// Strictly one at a time, in position order, only while the session is working.
    Write,
    /// Up to four at once, unordered, only while the session is working.
    Query,
    /// One at a time, in any state, beside the others.
    Control,
    /// For a worker: no position, nothing in Redis, whatever the session does.
    Background,
}

impl Lane {
    /// Those that a session's host takes from.
    pub const ALL: [Self; 3] = [Self::Write, Self::Query, Self::Control];

    /// The name in Postgres and in Redis keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Query => "query",
            Self::Control => "control",
            Self::Background => "background",
        }
    }
    /// The lane of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Background]).find(|l| l.as_str() == name)
    }
    /// How many of its jobs run at once.
    pub const fn width(self) -> usize {
        match self {
            Self::Query => 4,
            Self::Write | Self::Control | Self::Background => 1,
        }
    }
}

/// When a second attempt is allowed (`Once` in the design).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// Carries our message id: a later attempt looks for it and never hands it to another document.
    ById,
    /// Sets an end state, so it may simply be repeated.
    Set,
    /// Neither: a second attempt ends `unknown`.
    Never,
}

/// A typed job payload. Stored with [`Command::VERSION`]; a host that does not know the version hands the session on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "args", rename_all = "camelCase")]
pub enum Command {
    /// Send a text message.
    SendText(SendText),
    /// Mark a chat as read.
    MarkRead(MarkRead),
    /// Ask the page for a code that the phone's owner types in to link it.
    PairingCode(PairingCode),
    /// Close the browser and start another one on the same profile.
    Restart,
    /// Unlink this device from the account.
    Logout,
    /// A picture of the page.
    Screenshot,
    /// Remove what is kept of a person.
    EraseContact(EraseContact),
    /// Write a chat into a file.
    ExportChat(ExportChat),
}

/// Arguments of [`Command::SendText`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendText {
    /// Our message, from which WhatsApp's id is derived.
    pub message: MessageId,
    /// The address as known at acceptance.
    pub to: Jid,
    /// The text, as it will be shown.
    pub text: String,
}

/// Arguments of [`Command::MarkRead`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarkRead {
    /// The chat.
    pub to: Jid,
}

/// Arguments of [`Command::PairingCode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PairingCode {
    /// Digits, with country code.
    pub phone: String,
}

/// Arguments of [`Command::EraseContact`]. Once it is done, what is stored of it names nobody any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EraseContact {
    /// In one session only.
    pub session: Option<SessionId>,
    /// The person, by an address.
    pub address: Option<Jid>,
    /// The person, by the private chat with it.
    pub chat: Option<ChatId>,
}

/// Arguments of [`Command::ExportChat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportChat {
    /// What it will be, however often it is begun.
    pub export: ExportId,
    /// Which.
    pub chat: ChatId,
    /// Whoever asked for it does not see messages from before; none: all.
    pub since: Option<DateTime<Utc>>,
}

/// Why a stored command cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A newer service wrote it.
    #[error("command version {0} is not known here")]
    UnknownVersion(i16),
    /// The version is known and the content is not what it promises.
    #[error("the command does not decode")]
    Undecodable(#[source] serde_json::Error),
}

impl Command {
    /// The version this build writes and reads.
    pub const VERSION: i16 = 1;

    /// The lane it waits in.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::SendText(_) | Self::MarkRead(_) => Lane::Write,
            Self::PairingCode(_) | Self::Restart | Self::Logout | Self::Screenshot => Lane::Control,
            Self::EraseContact(_) | Self::ExportChat(_) => Lane::Background,
        }
    }
    /// When it may be attempted again.
    pub const fn retry_class(&self) -> RetryClass {
        match self {
            Self::SendText(_) => RetryClass::ById,
            Self::MarkRead(_)
            | Self::PairingCode(_)
            | Self::Restart
            | Self::Logout
            | Self::Screenshot
            | Self::EraseContact(_)
            | Self::ExportChat(_) => RetryClass::Set,
        }
    }
    /// The name callers see as `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SendText(_) => "sendText",
            Self::MarkRead(_) => "markRead",
            Self::PairingCode(_) => "pairingCode",
            Self::Restart => "restart",
            Self::Logout => "logout",
            Self::Screenshot => "screenshot",
            Self::EraseContact(_) => "eraseContact",
            Self::ExportChat(_) => "exportChat",
        }
    }
    /// The stored form.
    pub fn encode(&self) -> Value {
        // A derive over strings, ids and enums: there is no map with foreign keys and no number that JSON lacks.
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
    /// Reads the stored form.
    ///
    /// # Errors
    /// [`CommandError`] says whether another host may know it.
    pub fn decode(version: i16, stored: Value) -> Result<Self, CommandError> {
        if version != Self::VERSION {
            return Err(CommandError::UnknownVersion(version));
        }
        serde_json::from_value(stored).map_err(CommandError::Undecodable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_is_called_is_how_it_is_stored_and_control_waits_for_no_message() {
        let control =
            [Command::PairingCode(PairingCode { phone: "5511999990000".into() }), Command::Restart, Command::Logout, Command::Screenshot];
        for command in control {
            assert_eq!(command.encode()["kind"], command.kind());
            assert_eq!(command.lane(), Lane::Control);
            assert_eq!(Command::decode(Command::VERSION, command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn what_a_worker_does_waits_in_no_queue_of_a_session() {
        let jobs = [
            Command::EraseContact(EraseContact::default()),
            Command::ExportChat(ExportChat { export: ExportId::new(), chat: ChatId::new(), since: None }),
        ];
        for command in jobs {
            assert_eq!(command.encode()["kind"], command.kind());
            assert_eq!(Command::decode(Command::VERSION, command.encode()).unwrap(), command);
            assert!(!Lane::ALL.contains(&command.lane()));
            assert_eq!(Lane::from_name(command.lane().as_str()), Some(command.lane()));
        }
    }

    #[test]
    fn a_stored_command_reads_back_and_a_newer_one_is_told_from_a_broken_one() {
        let command =
            Command::SendText(SendText { message: MessageId::new(), to: "5511999990000".parse().unwrap(), text: "olá \u{1F600}".into() });
        assert_eq!(Command::decode(1, command.encode()).unwrap(), command);
        assert!(matches!(Command::decode(2, command.encode()), Err(CommandError::UnknownVersion(2))));
        assert!(matches!(Command::decode(1, serde_json::json!({"kind": "sendText"})), Err(CommandError::Undecodable(_))));
    }
}
