//! Who acts, and what a key may be used for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{RefOr, schema::Schema};
use uuid::Uuid;

use crate::{BadId, KeyId, UserId, id, job::names, string_schema};

names! {
    /// What an API key may be used for. An operation names the one it needs.
    Scope {
        /// See sessions.
        SessionsRead = "sessions:read",
        /// Create, start, stop, restart and log out sessions.
        SessionsControl = "sessions:control",
        /// See what links a phone: QR, pairing code, link page.
        SessionsLink = "sessions:link",
        /// See chats.
        ChatsRead = "chats:read",
        /// Change chats: read, archive, pin, typing.
        ChatsWrite = "chats:write",
        /// See messages and jobs.
        MessagesRead = "messages:read",
        /// Send, edit, revoke, react; withdraw jobs.
        MessagesSend = "messages:send",
        /// See contacts.
        ContactsRead = "contacts:read",
        /// Administer groups.
        GroupsWrite = "groups:write",
        /// Upload and download.
        Media = "media",
        /// Administer webhooks.
        Webhooks = "webhooks",
        /// Follow events.
        EventsRead = "events:read",
        /// Read the audit log.
        AuditRead = "audit:read",
        /// Export data.
        Export = "export",
    }
}

names! {
    /// What an audit row tells of.
    AuditAction {
        /// A user was invited.
        UserInvited = "user.invited",
        /// An invitation was made anew; the older link is void.
        UserReinvited = "user.reinvited",
        /// An invitation was accepted.
        UserJoined = "user.joined",
        /// Name, role, state or what a user may do was changed.
        UserChanged = "user.changed",
        /// A user changed its own password.
        PasswordChanged = "password.changed",
        /// Somebody who cannot log in asked for a new password.
        PasswordForgotten = "password.forgotten",
        /// A link to set a new password was made.
        PasswordLinkMade = "password.link_made",
        /// Such a link was used.
        PasswordReset = "password.reset",
        /// Wrong passwords for an account; at most one row in ten minutes.
        LoginFailed = "login.failed",
        /// Attempts on an account from one address were stopped for a while.
        LoginThrottled = "login.throttled",
        /// A refresh token that had been used before ended its login.
        LoginRevoked = "login.revoked",
        /// Somebody was granted a chat, or all of a session.
        GrantCreated = "grant.created",
        /// A grant was taken back.
        GrantDeleted = "grant.deleted",
        /// A key was made.
        KeyCreated = "key.created",
        /// A key was revoked.
        KeyRevoked = "key.revoked",
        /// A webhook was made.
        WebhookCreated = "webhook.created",
        /// A webhook was changed, paused or made active again.
        WebhookChanged = "webhook.changed",
        /// A webhook was deleted.
        WebhookDeleted = "webhook.deleted",
        /// A webhook got a new secret.
        WebhookSecretRotated = "webhook.secret_rotated",
        /// A webhook was told to begin again from an earlier event.
        WebhookReplayed = "webhook.replayed",
        /// One delivery, or all dead ones, of a webhook were asked for again.
        WebhookRedelivered = "webhook.redelivered",
        /// The export of a chat was asked for.
        ExportCreated = "export.created",
        /// An export was downloaded.
        ExportDownloaded = "export.downloaded",
        /// An export was deleted before its time.
        ExportDeleted = "export.deleted",
        /// A person's data was asked to be erased; `detail.job` says by which job.
        ContactErased = "contact.erased",
        /// For how long the tenant keeps things was changed.
        RetentionChanged = "retention.changed",
        /// A session was created, changed, deleted, started, stopped or linked; `detail.operation` says which.
        SessionControlled = "session.controlled",
    }
}

/// Whether more than reading is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AccessKind {
    /// See.
    Read,
    /// Send, reply, react, edit and revoke own messages, mark read, typing.
    Write,
}

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum History {
    /// All messages.
    #[default]
    All,
    /// Those from the moment of the grant on.
    FromNow,
}

/// A user or a key: whoever a request counts as, in idempotency, jobs, messages and the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A person.
    User(UserId),
    /// A machine.
    Key(KeyId),
}

impl Principal {
    /// The form that Postgres keeps. Those of users and keys never meet.
    pub const fn uuid(self) -> Uuid {
        match self {
            Self::User(id) => id.uuid(),
            Self::Key(id) => id.uuid(),
        }
    }
    /// The principal of a stored row; `by_key`: whether a key has this id.
    pub const fn of(id: Uuid, by_key: bool) -> Self {
        if by_key { Self::Key(KeyId::from_uuid(id)) } else { Self::User(UserId::from_uuid(id)) }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Key(id) => id.fmt(f),
        }
    }
}
impl FromStr for Principal {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.parse().map(Self::Key).or_else(|_| text.parse().map(Self::User))
    }
}
impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        id::deserialize(d)
    }
}
impl utoipa::PartialSchema for Principal {
    fn schema() -> RefOr<Schema> {
        string_schema("^(usr|zgk)_[0-9a-hjkmnp-tv-z]{26}$")
    }
}
impl utoipa::ToSchema for Principal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_back_as_the_kind_it_was() {
        for principal in [Principal::User(UserId::new()), Principal::Key(KeyId::new())] {
            assert_eq!(principal.to_string().parse(), Ok(principal));
            assert_eq!(Principal::of(principal.uuid(), matches!(principal, Principal::Key(_))), principal);
        }
        assert!("ses_00000000000000000000000000".parse::<Principal>().is_err());
    }
}
