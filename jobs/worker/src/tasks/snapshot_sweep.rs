//! `snapshots.sweep`.

use std::time::Duration;

use store::profiles;

use super::{BATCH, Failed, Tools};

/// Where hosts put them.
const FOLDER: &str = "snapshots";
/// What an upload that was cut off has left in a directory goes after so long.
const CUT_OFF_FOR: Duration = Duration::from_secs(24 * 3600);

/// Rows say which objects may go, so no bucket is listed. One that is not removed keeps its row, and is tried again; the others go on.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let (mut gone, mut failed) = (0, None);
    for (tenant, object) in profiles::leftovers(&tools.pool, BATCH).await? {
        match tools.objects.remove(&object).await {
            Ok(()) => {
                profiles::swept(&tools.pool, tenant, &object).await?;
                gone += 1;
            }
            Err(why) => failed = Some(why),
        }
    }
    gone += tools.objects.sweep_uploads(FOLDER, CUT_OFF_FOR).await?;
    failed.map_or(Ok(gone), |why| Err(why.into()))
}
