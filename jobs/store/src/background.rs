//! Tasks of the worker: who may run one, and when. A task is released by a single UPDATE on its row, begun by another, and a claim that
//! nobody renews lapses, so that it runs once an interval whatever dies or is delivered twice.

use std::time::Duration;

use sqlx::PgPool;

use crate::Result;

/// A release of a task: it is run at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which task.
    pub task: String,
    /// Which of its releases.
    pub round: i64,
}

/// Makes the rows of tasks that have none yet; those are due at once.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn ensure(pool: &PgPool, tasks: &[String]) -> Result<()> {
    sqlx::query!("insert into background_task (name) select unnest($1::text[]) on conflict do nothing", tasks).execute(pool).await?;
    Ok(())
}

/// Releases those of `tasks` that are due. A release that nobody begins within `claim` is followed by another.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn release(pool: &PgPool, tasks: &[String], claim: Duration) -> Result<Vec<Release>> {
    let rows = sqlx::query!(
        "update background_task set released = released + 1, due_at = clock_timestamp() + make_interval(secs => $2)
          where name = any($1) and due_at <= clock_timestamp()
         returning name, released",
        tasks,
        claim.as_secs_f64()
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|r| Release { task: r.name, round: r.released }).collect())
}

/// Begins to run a release. `false`: it was begun before, or a later one has been made.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn begin(pool: &PgPool, release: &Release, claim: Duration) -> Result<bool> {
    let begun = sqlx::query!(
        "update background_task set begun = $2, began_at = clock_timestamp(), due_at = clock_timestamp() + make_interval(secs => $3)
          where name = $1 and released = $2 and begun < $2",
        release.task,
        release.round,
        claim.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// Renews the claim on a release that runs. `false`: it lapsed, and another has been made.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn keep(pool: &PgPool, release: &Release, claim: Duration) -> Result<bool> {
    let kept = sqlx::query!(
        "update background_task set due_at = clock_timestamp() + make_interval(secs => $3) where name = $1 and released = $2",
        release.task,
        release.round,
        claim.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Ends a release; the next comes `after` its beginning. `error`: why it did not finish.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn finish(pool: &PgPool, release: &Release, after: Duration, error: Option<&str>) -> Result<()> {
    sqlx::query!(
        "update background_task set due_at = began_at + make_interval(secs => $3), finished_at = clock_timestamp(), error = $4
          where name = $1 and released = $2",
        release.task,
        release.round,
        after.as_secs_f64(),
        error
    )
    .execute(pool)
    .await?;
    Ok(())
}
