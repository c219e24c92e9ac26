//! Which messages of ours WhatsApp may know more about than we do.

use sqlx::PgPool;

use crate::{Held, Result};

/// A message of ours that had not been read when we last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The id part of WhatsApp's key.
    pub wa_id: String,
    /// The whole key, where a job was given one.
    pub wa_key: Option<String>,
    /// The last ack heard of; 0 where none was.
    pub ack: i16,
}

/// Those of the last 30 days, at most `limit`: first what ended `unknown`, then the newest.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn behind(pool: &PgPool, held: &Held, limit: i64) -> Result<Vec<Behind>> {
    let rows = sqlx::query_as!(
        Behind,
        r#"select m.wa_id, j.wa_key as "wa_key?", coalesce(m.ack, 0::smallint) as "ack!"
             from message m left join job j on j.id = m.job
            where m.tenant = $1 and m.session = $2 and m.from_me and coalesce(m.ack, 0::smallint) < 3 and m.status <> 'failed'
              and m.sent_at > clock_timestamp() - interval '30 days' and (j.id is null or j.state in ('unknown', 'succeeded'))
            order by (j.state = 'unknown') is true desc, m.sent_at desc limit $3"#,
        held.tenant().uuid(),
        held.session().uuid(),
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}
