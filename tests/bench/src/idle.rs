//! What idle sessions cost: counted by Redis itself.

use std::time::Duration;

use harness::{Error, until};

use crate::{
    host::{Host, Step},
    report::Report,
    stores::{Stores, grown},
};

const SESSIONS: usize = 1000;
/// Three renewals.
const FOR: Duration = Duration::from_secs(10);
/// What a renewal consists of.
const RENEWAL: [&str; 3] = ["eval", "get", "pexpire"];

/// Counts for a while.
///
/// # Errors
/// What the stores said.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let sessions = stores.sessions(SESSIONS).await?;
    let (host, mut steps) = Host::start(&stores.pool, &stores.redis).await?;
    host.own_all().await?;
    // Every lane has been looked at when a job behind each has ended.
    for session in &sessions {
        queue::accept_and_push(&stores.pool, &stores.redis, &stores.job(*session), None).await?;
    }
    let mut ended = 0;
    while ended < SESSIONS {
        ended += usize::from(matches!(steps.recv().await.ok_or("the worker ended")?, Step::Ended));
    }
    until("an idle host", Duration::from_secs(20), || async { tokio::time::timeout(Duration::from_millis(1), host.hub.idle()).await.ok() })
        .await;
    let before = stores.calls().await?;
    tokio::time::sleep(FOR).await;
    let after = stores.calls().await?;
    let renewals = grown(&before, &after, |name| RENEWAL.contains(&name));
    let others = grown(&before, &after, |name| !RENEWAL.contains(&name));
    report.note("Redis commands of 1,000 idle sessions in 10 s, renewals aside", "commands", others as f64);
    report.note("of their renewals, in 10 s (EVAL, GET, PEXPIRE)", "commands", renewals as f64);
    Ok(())
}
