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

/// Lets `role` read and write all rows, of tables to come too, and change nothing of the schema: what the API and the hosts need.
///
/// # Errors
/// [`crate::StoreError`], also where the role does not exist.
pub async fn let_work(pool: &PgPool, role: &str) -> Result<()> {
    for grant in [
        "grant usage on schema %2$I to %1$I",
        "grant select, insert, update, delete on all tables in schema %2$I to %1$I",
        "alter default privileges in schema %2$I grant select, insert, update, delete on tables to %1$I",
    ] {
        let built = sqlx::query_scalar::<_, String>("select format($1, $2::text, current_schema())").bind(grant).bind(role);
        let statement = built.fetch_one(pool).await?;
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
