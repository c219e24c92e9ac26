//! `exports.sweep`.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use store::{exports::making, snapshot};

use super::{Failed, Tools};
use crate::jobs::export::{FOLDER, forget};

/// Exports of one statement, and names that Postgres is asked about at once.
const ROUND: usize = 200;
/// An object that is being written has no row yet; after so long it never gets one.
const UNNAMED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Rows first: without its row nobody can read an object. One that could not be removed with its row is found as one without.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let mut gone = 0;
    loop {
        let expired = making::expired(&tools.pool, ROUND as i64).await?;
        for object in &expired {
            forget(tools, object).await;
        }
        gone += expired.len() as u64;
        if expired.len() < ROUND {
            break;
        }
    }
    let before = snapshot::now(&tools.pool).await? - UNNAMED_FOR;
    let mut old = tools.objects.older(FOLDER, before)?.try_chunks(ROUND).map_err(|why| why.1);
    while let Some(names) = old.next().await {
        for object in making::without_row(&tools.pool, &names?).await? {
            tools.objects.remove(&object).await?;
            gone += 1;
        }
    }
    Ok(gone + tools.objects.sweep_uploads(FOLDER, UNNAMED_FOR).await?)
}
