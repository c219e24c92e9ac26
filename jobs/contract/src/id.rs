//! Prefixed ids: `ses_` and 26 Crockford characters outside, a UUIDv7 (`uuid`) in Postgres. Another prefix is another type.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};
use utoipa::openapi::{
    ObjectBuilder, RefOr,
    schema::{Schema, Type},
};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of an encoded UUID: 26 × 5 bits hold 128.
const LENGTH: usize = 26;

/// The text was not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id that starts with {0}_ and 26 characters after it")]
pub struct BadId(pub &'static str);

fn show(prefix: &str, id: Uuid) -> String {
    let n = id.as_u128();
    let mut out = String::with_capacity(prefix.len() + 1 + LENGTH);
    out.push_str(prefix);
    out.push('_');
    out.extend((0..LENGTH).rev().map(|i| ALPHABET[(n >> (5 * i)) as usize & 31] as char));
    out
}

fn read(prefix: &'static str, text: &str) -> Result<Uuid, BadId> {
    let digits = text.strip_prefix(prefix).and_then(|s| s.strip_prefix('_')).filter(|s| s.len() == LENGTH).ok_or(BadId(prefix))?;
    let push = |n: u128, b: u8| {
        let digit = ALPHABET.iter().position(|a| *a == b)? as u128;
        n.checked_mul(32)?.checked_add(digit)
    };
    digits.bytes().try_fold(0u128, push).map(Uuid::from_u128).ok_or(BadId(prefix))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(d: D) -> Result<T, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

/// An OpenAPI string schema with the given pattern.
pub fn string_schema(pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the id starts with, before the underscore.
            pub const PREFIX: &'static str = $prefix;
            /// A fresh id; ids made later sort later (millisecond).
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
            /// The id of a stored row.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }
            /// The form that Postgres keeps.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }
        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&show($prefix, self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                read($prefix, text).map(Self)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                deserialize(d)
            }
        }
        impl utoipa::PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                string_schema(concat!("^", $prefix, "_[0-9a-hjkmnp-tv-z]{26}$"))
            }
        }
        impl utoipa::ToSchema for $name {}
    )*};
}

ids! {
    /// A company. The founding ADMIN's user shares its UUID.
    TenantId = "ten";
    /// A person of a tenant.
    UserId = "usr";
    /// One linked WhatsApp account in one Chromium profile.
    SessionId = "ses";
    /// A command accepted for a session.
    JobId = "job";
    /// A message as we know it; WhatsApp's own id of a message that we send is derived from it.
    MessageId = "msg";
    /// A picture or another file.
    MediaId = "med";
    /// A chat: lasting and opaque, whatever WhatsApp calls the chat today.
    ChatId = "cht";
    /// An event of a tenant's log.
    EventId = "evt";
    /// A grant of a chat to a user or key.
    GrantId = "grt";
    /// A line of the audit log.
    AuditId = "aud";
    /// A machine's API key.
    KeyId = "zgk";
    /// One run of a session host.
    HostId = "hst";
    /// One acquisition of a session by a host: two acquisitions never share it, even where their epochs are equal.
    OwnerId = "own";
    /// A profile directory.
    ProfileId = "prf";
    /// A webhook: an endpoint of a tenant that is told of events.
    WebhookId = "whk";
    /// One event on its way to one webhook.
    DeliveryId = "dlv";
    /// A chat that was written into a file.
    ExportId = "exp";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written_and_only_as_its_own_kind() {
        let id = SessionId::new();
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert_eq!(id.to_string().len(), 30);
        assert_eq!(id.to_string().parse::<JobId>(), Err(BadId("job")));
    }

    #[test]
    fn later_ids_sort_later_as_text_too() {
        let ids: Vec<_> = (0..50).map(|_| JobId::new()).collect();
        let mut text: Vec<_> = ids.iter().map(ToString::to_string).collect();
        text.sort();
        assert_eq!(text, ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_fit_in_128_bits_or_is_not_crockford_is_refused() {
        for text in [
            "ses_zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "ses_",
            "ses_0000000000000000000000000l",
            "SES_00000000000000000000000000",
            "ses_000000000000000000000000000",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
