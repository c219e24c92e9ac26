//! Guessing is slowed down where it comes from: by the account and the address together, and by the address alone. Never by the account
//! alone, or a stranger could lock its owner out. Counted in Redis; where that does not answer, everybody is let through, and it is counted.

use std::{net::IpAddr, time::Duration};

use super::{address::bucket, secret::hash_of};
use crate::{
    problem::{Code, Problem},
    state::AppState,
};

/// Wrong passwords for one account from one address, and for how long they count.
const PER_ACCOUNT: (u64, Duration) = (10, Duration::from_secs(15 * 60));
/// Attempts of any kind from one address.
const PER_ADDRESS: (u64, Duration) = (60, Duration::from_secs(60));

/// An attempt that was let through; to be forgiven where it succeeds.
pub struct Attempt(Option<String>);

/// Why one was not.
pub struct TooMany {
    /// What the caller is told.
    pub problem: Problem,
    /// Whether it is the first that was refused: what the audit log tells.
    pub first: bool,
}

/// Counts an attempt on an account.
///
/// # Errors
/// [`TooMany`].
pub async fn login(app: &AppState, from: Option<IpAddr>, account: &str) -> Result<Attempt, TooMany> {
    let Some(from) = from.map(bucket) else {
        open("no_address");
        return Ok(Attempt(None));
    };
    by_address(app, from).await?;
    let name = name(&["login", &from.to_string(), &account.to_lowercase()]);
    judge(app, &name, PER_ACCOUNT).await?;
    Ok(Attempt(Some(name)))
}

/// Counts an attempt of another kind: a link that is used, a password that was forgotten.
///
/// # Errors
/// `rate_limited`.
pub async fn attempt(app: &AppState, from: Option<IpAddr>) -> Result<(), Problem> {
    match from.map(bucket) {
        Some(from) => by_address(app, from).await.map_err(|too_many| too_many.problem),
        None => {
            open("no_address");
            Ok(())
        }
    }
}

impl Attempt {
    /// The password was right.
    pub async fn forgive(self, app: &AppState) {
        if let Some(name) = self.0
            && let Err(why) = queue::throttle::forget(&app.redis, &name).await
        {
            tracing::debug!(cause = %why, "attempts not forgotten");
        }
    }
}

async fn by_address(app: &AppState, from: IpAddr) -> Result<(), TooMany> {
    judge(app, &name(&["address", &from.to_string()]), PER_ADDRESS).await
}

async fn judge(app: &AppState, name: &str, (most, window): (u64, Duration)) -> Result<(), TooMany> {
    match queue::throttle::count(&app.redis, name, window).await {
        Ok((attempts, _)) if attempts <= most => Ok(()),
        Ok((attempts, left)) => {
            let problem = Problem::new(Code::RateLimited, "too many attempts from this address").retry_after(left.as_secs() + 1);
            Err(TooMany { problem, first: attempts == most + 1 })
        }
        Err(why) => {
            tracing::warn!(cause = %why, "attempts not counted");
            open("redis");
            Ok(())
        }
    }
}

fn open(why: &'static str) {
    metrics::counter!("zaguan_throttle_open_total", "why" => why).increment(1);
}

/// Addresses and accounts lie in Redis as a hash only.
fn name(parts: &[&str]) -> String {
    hash_of(&parts.join("\0")).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
