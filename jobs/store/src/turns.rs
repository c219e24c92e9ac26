//! Work that only one process may do at a time.

use sqlx::{PgPool, Postgres, Transaction};

use crate::Result;

/// A turn: holds the lock until its end, or the connection's.
pub struct Turn(Transaction<'static, Postgres>);

impl Turn {
    /// Ends it before anything else is done: a dropped one is given back only when its connection is next used.
    pub async fn end(self) {
        let _ = self.0.rollback().await; // otherwise it ends with its connection
    }
}

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
