//! Who asked for something: a person, or a machine by its key.

use std::fmt;

use utoipa::openapi::{RefOr, schema::Schema};
use uuid::Uuid;

use crate::{KeyId, UserId, string_schema};

/// A user or an API key. Written as its id, whose prefix says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A person.
    User(UserId),
    /// A machine.
    Key(KeyId),
}

impl Principal {
    /// The form that Postgres keeps.
    pub const fn uuid(self) -> Uuid {
        match self {
            Self::User(id) => id.uuid(),
            Self::Key(id) => id.uuid(),
        }
    }
    /// The principal of a stored id.
    pub const fn of(id: Uuid, is_key: bool) -> Self {
        if is_key { Self::Key(KeyId::from_uuid(id)) } else { Self::User(UserId::from_uuid(id)) }
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

impl serde::Serialize for Principal {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl utoipa::PartialSchema for Principal {
    fn schema() -> RefOr<Schema> {
        string_schema("^(usr|zgk)_[0-9a-hjkmnp-tv-z]{26}$")
    }
}
impl utoipa::ToSchema for Principal {}
