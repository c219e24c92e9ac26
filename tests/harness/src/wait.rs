//! Waiting for a predicate, never for time.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// How long [`until`] pauses between two looks; short, because each pause is time that a test loses.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `look` until it answers `Some`, and gives that back.
///
/// # Panics
/// When `within` has passed; the message names `what`, so it should read well after "waited 5s for".
pub async fn until<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {within:?} for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`until`] for a predicate without a value.
///
/// # Panics
/// When `within` has passed.
pub async fn until_true<F: Future<Output = bool>>(what: &str, within: Duration, mut look: impl FnMut() -> F) {
    until(what, within, || {
        let answer = look();
        async move { answer.await.then_some(()) }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "waited 50ms for the moon")]
    async fn a_wait_that_is_never_answered_says_what_it_waited_for() {
        until_true("the moon", Duration::from_millis(50), || async { false }).await;
    }
}
