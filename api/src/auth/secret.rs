//! What callers hold and we do not: 256 random bits behind a prefix that says what they are for. We keep a hash.

use contract::KeyId;
use ring::digest::{SHA256, digest};
use store::links::Purpose;

use super::jwt;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Buys the next pair of tokens.
    Refresh,
    /// Accepts an invitation.
    Invitation,
    /// Sets a new password.
    PasswordReset,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Refresh => "zgr_",
            Self::Invitation => "zgi_",
            Self::PasswordReset => "zgp_",
        }
    }
}

/// A secret as the caller holds it.
pub struct Secret(String);

impl Secret {
    /// A fresh one; `None` where the system has no randomness.
    pub fn random(kind: Kind) -> Option<Self> {
        jwt::random().map(|secret| Self::of(kind, &secret))
    }
    /// The one with these bytes.
    pub fn of(kind: Kind, secret: &[u8; 32]) -> Self {
        Self(format!("{}{}", kind.prefix(), jwt::encode(secret)))
    }
    /// What is stored.
    pub fn hash(&self) -> store::tokens::Hash {
        hash_of(&self.0)
    }
    /// What the caller gets.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Where a one-time link leads. What follows `#` is sent to nobody by browsers.
pub fn link_url(public_url: &str, purpose: Purpose, secret: Secret) -> String {
    let page = match purpose {
        Purpose::Invitation => "invitation",
        Purpose::PasswordReset => "password-reset",
    };
    format!("{public_url}/{page}#{}", secret.into_text())
}

/// What is stored of a secret that was presented.
pub fn hash_of(text: &str) -> store::tokens::Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// An API key: `zgk_<id>_<secret>`.
pub struct ApiKey;

impl ApiKey {
    /// A fresh one: its id, its text, and what is stored.
    pub fn random() -> Option<(KeyId, String, store::tokens::Hash)> {
        let id = KeyId::new();
        let secret = jwt::encode(&jwt::random()?);
        let hash = hash_of(&secret);
        Some((id, format!("{id}_{secret}"), hash))
    }

    /// Whether the text is meant as a key.
    pub fn looks_like(text: &str) -> bool {
        text.strip_prefix(KeyId::PREFIX).is_some_and(|rest| rest.starts_with('_'))
    }

    /// The id and what is stored of the secret. `None`: no key looks like this.
    pub fn read(text: &str) -> Option<(KeyId, store::tokens::Hash)> {
        // The secret's alphabet has `_` too: the id ends where all ids end.
        let (id, secret) = text.split_at_checked(KeyId::PREFIX.len() + 27)?;
        Some((id.parse().ok()?, hash_of(secret.strip_prefix('_')?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_only_whole() {
        for _ in 0..50 {
            let (id, text, hash) = ApiKey::random().unwrap();
            assert!(ApiKey::looks_like(&text));
            assert_eq!(ApiKey::read(&text), Some((id, hash)));
            assert_ne!(ApiKey::read(&text[..text.len() - 1]).unwrap().1, hash);
            assert_eq!(ApiKey::read(&text[..30]), None);
        }
        assert_eq!(ApiKey::read("zgk_"), None);
        assert_eq!(ApiKey::read("zgk_ñ000000000000000000000000000000000000"), None);
    }
}
