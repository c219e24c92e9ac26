//! Passwords. Checking one costs the same whether or not the user exists.

use std::sync::{Arc, LazyLock};

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

/// What an unknown e-mail address is checked against; nobody knows its password.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash(&super::jwt::encode(&super::jwt::random()?)));

/// Hashes a password (Argon2id, the crate's parameters). `None`: the system has no randomness.
pub fn hash(password: &str) -> Option<String> {
    Argon2::default().hash_password(password.as_bytes()).ok().map(|h| h.to_string())
}

/// Checks passwords, a few at a time: each takes 19 MiB and a core for tens of milliseconds.
#[derive(Clone)]
pub struct Passwords(Arc<Semaphore>);

impl Default for Passwords {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))))
    }
}

/// The shortest password that may be set.
pub const SHORTEST: usize = 8;
/// The longest, in bytes: longer ones cost hashing time and nothing else.
pub const LONGEST: usize = 1024;

/// Whether a password may be set.
///
/// # Errors
/// Why not.
pub fn acceptable(password: &str) -> Result<(), &'static str> {
    if password.chars().count() < SHORTEST {
        return Err("a password needs at least 8 characters");
    }
    if password.len() > LONGEST {
        return Err("a password may have at most 1024 bytes");
    }
    Ok(())
}

impl Passwords {
    /// Hashes a password; `None`: the system has no randomness.
    pub async fn hash(&self, password: String) -> Option<String> {
        let _permit = self.0.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || hash(&password)).await.ok()?
    }

    /// Whether `password` belongs to `hash`. Without a hash the work is done all the same and the answer is no.
    pub async fn matches(&self, password: String, hash: Option<String>) -> bool {
        let Ok(_permit) = self.0.acquire().await else { return false };
        let known = hash.is_some();
        let check = move || {
            let Some(hash) = hash.as_ref().or(NOBODY.as_ref()) else { return false };
            Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(false) && known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_matches() {
        let passwords = Passwords::default();
        let stored = hash("correct horse");
        assert!(passwords.matches("correct horse".into(), stored.clone()).await);
        assert!(!passwords.matches("wrong horse".into(), stored).await);
        assert!(!passwords.matches("correct horse".into(), None).await);
    }
}
