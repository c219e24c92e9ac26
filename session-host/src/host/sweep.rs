//! Directories that no session names any more: of sessions that were deleted, moved or never linked. They hold an account's keys, so they do
//! not stay for ever; and they are the account's link, so none goes on a single look.

use std::time::Duration;

use contract::ProfileId;

use crate::{browser, session::Services, snapshot};

/// How often, beside the host's start.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a host that was killed in the middle of a snapshot has left goes after so long.
const CUT_OFF_FOR: Duration = Duration::from_secs(24 * 3600);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Looks at the host's start and then daily.
pub async fn run(services: Services) {
    loop {
        match sweep(&services).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(gone, "directories that no session names were deleted"),
            Err(error) => tracing::warn!(%error, "directories not swept"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(services: &Services) -> Result<usize, Error> {
    let data = services.browsers.config().data_dir.clone();
    let folder = data.clone();
    tokio::task::spawn_blocking(move || snapshot::sweep(&folder, CUT_OFF_FOR)).await??;
    let found: Vec<ProfileId> = browser::profiles(&data)?.iter().filter_map(|name| name.parse().ok()).collect();
    if found.is_empty() {
        return Ok(0);
    }
    let named = store::within(store::profiles::in_use(&services.pool, &found)).await?;
    let looked_at = found.into_iter().map(|id| (id.to_string(), named.contains(&id))).collect::<Vec<_>>();
    let sweep = move || looked_at.iter().filter(|(id, named)| browser::sweep_profile(&data, id, *named)).count();
    Ok(tokio::task::spawn_blocking(sweep).await?)
}
