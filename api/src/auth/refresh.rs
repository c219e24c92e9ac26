//! Refresh tokens: opaque, 256 random bits, stored as a hash.

use ring::digest::{SHA256, digest};

use super::jwt;

const PREFIX: &str = "zgr_";

/// A refresh token as the caller holds it.
pub struct RefreshToken(String);

impl RefreshToken {
    /// A fresh one; `None` where the system has no randomness.
    pub fn random() -> Option<Self> {
        jwt::random().map(|secret| Self::from_secret(&secret))
    }
    /// The one with this secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", jwt::encode(secret)))
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

/// What is stored of a token that was presented.
pub fn hash_of(token: &str) -> store::tokens::Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}
