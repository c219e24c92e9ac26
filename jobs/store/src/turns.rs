//! Work that only one process may do at a time.

use sqlx::{PgPool, Postgres, Transaction};

use crate::Result;

/// A turn: ends when it is dropped, or with the connection.
pub struct Turn(#[expect(dead_code, reason = "holds the lock")] Transaction<'static, Postgres>);

/// The reconciler's turn. `None`: another process has it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn reconciler(pool: &PgPool) -> Result<Option<Turn>> {
    let mut transaction = pool.begin().await?;
    // The turn may last longer than a statement's transaction may be idle.
    sqlx::query!("set local idle_in_transaction_session_timeout = '60s'").execute(&mut *transaction).await?;
    let won = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(hashtext('zaguan.reconciler')) as "won!""#)
        .fetch_one(&mut *transaction)
        .await?;
    Ok(won.then_some(Turn(transaction)))
}
