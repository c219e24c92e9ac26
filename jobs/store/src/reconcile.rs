//! What the reconciler asks of all tenants.

use contract::{SessionId, TenantId};
use sqlx::{PgPool, Postgres, Transaction};

use crate::Result;

/// The right to reconcile, held by one process at a time and lost with its connection.
pub struct Turn(Transaction<'static, Postgres>);

impl Turn {
    /// Lets the next one have it.
    ///
    /// # Errors
    /// [`crate::StoreError`]; the right ends with the connection.
    pub async fn end(self) -> Result<()> {
        Ok(self.0.rollback().await?)
    }
}

/// Takes the right to reconcile. `None`: another process has it.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn turn(pool: &PgPool) -> Result<Option<Turn>> {
    let mut transaction = pool.begin().await?;
    // A round may be longer than an ordinary transaction may idle; this one holds no row.
    sqlx::query!("set local idle_in_transaction_session_timeout = '60s'").execute(&mut *transaction).await?;
    let ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(hashtext('zaguan.reconcile')) as "ours!""#)
        .fetch_one(&mut *transaction)
        .await?;
    Ok(ours.then_some(Turn(transaction)))
}

/// Sessions of all tenants whose lanes should not be empty.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn sessions_with_work(pool: &PgPool) -> Result<Vec<(TenantId, SessionId)>> {
    let rows = sqlx::query!("select distinct tenant, session from job where state in ('queued', 'running') and position is not null")
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|r| (TenantId::from_uuid(r.tenant), SessionId::from_uuid(r.session))).collect())
}
