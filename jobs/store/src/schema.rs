//! What `migrate` does besides the migrations, and what readiness asks about the schema.

use sqlx::{AssertSqlSafe, PgPool};

use crate::Result;

/// How many days ahead the event log has partitions.
pub const DAYS_AHEAD: i32 = 7;

/// Gives `role` (none: the current one) the timeouts that keep a paused client from stopping a tenant's sessions. Needs the right to
/// alter it.
///
/// # Errors
/// [`crate::StoreError`], also where the role does not exist.
pub async fn limit_role(pool: &PgPool, role: Option<&str>) -> Result<()> {
    for setting in ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"] {
        let statement = sqlx::query_scalar!(
            r#"select format('alter role %I set %s = %L', coalesce($1, current_user::text), $2::text, '5s') as "statement!""#,
            role,
            setting
        )
        .fetch_one(pool)
        .await?;
        // Built by Postgres' own quoting from a name and two constants.
        sqlx::query(AssertSqlSafe(statement)).execute(pool).await?;
    }
    Ok(())
}

/// Makes the event log's partitions from today on.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn ensure_event_partitions(pool: &PgPool) -> Result<()> {
    sqlx::query!("select ensure_event_partitions($1)", DAYS_AHEAD).execute(pool).await?;
    Ok(())
}

/// Whether the partitions of today and tomorrow exist. Without them events still land in the default partition.
///
/// # Errors
/// [`crate::StoreError`]: Postgres does not answer.
pub async fn has_event_partitions(pool: &PgPool) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"select bool_and(to_regclass('event_' || to_char((clock_timestamp() at time zone 'UTC')::date + n, 'YYYYMMDD')) is not null) as "found!"
             from generate_series(0, 1) n"#
    )
    .fetch_one(pool)
    .await?;
    Ok(found)
}
