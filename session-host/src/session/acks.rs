//! Receipts that came while nobody listened. Those of new rows show when the rows are read; older messages of ours are asked for one by one.

use std::time::Duration;

use store::receipts::Receipt;

use super::{
    Shared,
    recorder::{Fenced, until_known, write_receipts},
};
use crate::browser::FindMessage;

/// The most messages that are asked for at one connect.
const MOST: i64 = 100;
const WITHIN: Duration = Duration::from_secs(10);

/// Asks the page how far messages of ours have come that had not been read when we last heard of them. A page that does not answer is asked
/// again at the next connect.
pub async fn catch_up(shared: &Shared) -> Result<(), Fenced> {
    let (pool, held) = (&shared.services.pool, shared.lease.held());
    for sent in until_known(shared, || store::acks::behind(pool, held, MOST)).await? {
        let Some(browser) = shared.browser() else { return Ok(()) };
        let call = FindMessage { keys: sent.wa_key.into_iter().collect(), id: sent.wa_id.clone() };
        let found = match browser.call(&call, &format!("ack-{}", contract::EventId::new()), WITHIN).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(session = %shared.session(), %error, "acks are looked for at the next connect");
                return Ok(());
            }
        };
        let ack = found.and_then(|found| i16::try_from(found.ack).ok()).unwrap_or(0);
        if ack > sent.ack {
            write_receipts(shared, &[Receipt { wa_id: sent.wa_id, ack }]).await?;
        }
    }
    Ok(())
}
