//! WhatsApp's addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

/// Where an address lives. Names as WhatsApp Web writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// A phone number: `c.us` (`s.whatsapp.net` on the wire).
    Phone,
    /// A person's opaque id: `lid`.
    Lid,
    /// A group: `g.us`.
    Group,
    /// A channel: `newsletter`.
    Channel,
}

/// What kind of chat an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    /// One person.
    Private,
    /// A group.
    Group,
    /// A channel.
    Channel,
}

impl ChatKind {
    /// The name in Postgres and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Group => "group",
            Self::Channel => "channel",
        }
    }
}

impl Server {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "c.us",
            Self::Lid => "lid",
            Self::Group => "g.us",
            Self::Channel => "newsletter",
        }
    }
}

/// A WhatsApp address in one canonical spelling. Reads `+5511999990000`, `5511999990000`, `…@c.us`, `…@s.whatsapp.net`, `…@lid`,
/// `…@g.us`, `…@newsletter`; writes `5511999990000@c.us`. Device suffixes, other digits than ASCII, upper case and white space are refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jid {
    user: String,
    server: Server,
}

/// The text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a phone number (7 to 15 digits) or an address like 5511999990000@c.us, …@lid, …@g.us or …@newsletter")]
pub struct BadJid;

impl Jid {
    /// The part before the `@`.
    pub fn user(&self) -> &str {
        &self.user
    }
    /// Where it lives.
    pub fn server(&self) -> Server {
        self.server
    }
    /// The phone number, where the address is one.
    pub fn phone(&self) -> Option<&str> {
        (self.server == Server::Phone).then_some(self.user.as_str())
    }
    /// What kind of chat it names.
    pub fn kind(&self) -> ChatKind {
        match self.server {
            Server::Phone | Server::Lid => ChatKind::Private,
            Server::Group => ChatKind::Group,
            Server::Channel => ChatKind::Channel,
        }
    }
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for Jid {
    type Err = BadJid;
    fn from_str(text: &str) -> Result<Self, BadJid> {
        let (user, server) = match text.split_once('@') {
            None => (text.strip_prefix('+').unwrap_or(text), Server::Phone),
            Some((user, "c.us" | "s.whatsapp.net")) => (user, Server::Phone),
            Some((user, "lid")) => (user, Server::Lid),
            Some((user, "g.us")) => (user, Server::Group),
            Some((user, "newsletter")) => (user, Server::Channel),
            Some(_) => return Err(BadJid),
        };
        let fits = match server {
            Server::Phone => digits(user, 7..=15),
            Server::Lid => digits(user, 1..=20),
            // Old groups are named `<creator's phone>-<time>`.
            Server::Group => user.split_once('-').map_or_else(|| digits(user, 5..=25), |(a, b)| digits(a, 5..=20) && digits(b, 5..=20)),
            Server::Channel => digits(user, 5..=25),
        };
        if fits { Ok(Self { user: user.to_owned(), server }) } else { Err(BadJid) }
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.server.as_str())
    }
}

impl fmt::Debug for Jid {
    /// Addresses are personal data: a stray `{:?}` in a log must not print one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jid(…@{})", self.server.as_str())
    }
}

impl serde::Serialize for Jid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::id::deserialize(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_phone_number_is_one_address() {
        for text in ["+5511999990000", "5511999990000", "5511999990000@c.us", "5511999990000@s.whatsapp.net"] {
            assert_eq!(text.parse::<Jid>().unwrap().to_string(), "5511999990000@c.us");
        }
        assert_eq!("120363000000000001@g.us".parse::<Jid>().unwrap().kind(), ChatKind::Group);
        assert_eq!("5511999990000-1600000000@g.us".parse::<Jid>().unwrap().kind(), ChatKind::Group);
        assert_eq!("10000000001@lid".parse::<Jid>().unwrap().phone(), None);
    }

    #[test]
    fn device_suffixes_foreign_digits_and_tricks_are_refused() {
        for text in [
            "",
            "123",
            "5511999990000:5@c.us",
            "5511999990000@C.US",
            "٥٥١١٩٩٩٩٩٠٠٠٠",
            "5511999990000@evil",
            "a/../b",
            "5511999990000%40c.us",
            "++5511999990000",
            "5511 999990000",
            "5511999990000@c.us@c.us",
            "0@lid\0",
        ] {
            assert!(text.parse::<Jid>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_never_prints_itself_into_a_log() {
        assert!(!format!("{:?}", "5511999990000".parse::<Jid>().unwrap()).contains("5511"));
    }
}
