//! What browsers cost: one that costs too much is replaced.

use std::sync::Arc;

use super::roster::Roster;
use crate::session::Services;

/// Looks at every browser now and then. `above`: MiB; 0 replaces none.
pub async fn run(services: Services, roster: Arc<Roster>, above: u64) {
    loop {
        tokio::time::sleep(services.timings.watch_every()).await;
        let mut sum = 0;
        for shared in roster.all() {
            let Some(browser) = shared.browser() else { continue };
            let cost = browser.pss_bytes().await;
            sum += cost;
            if shared.weighed(&browser, above > 0 && cost > above << 20) {
                tracing::warn!(session = %shared.session(), cost_mb = cost >> 20, "a browser costs too much: it is to be replaced");
                metrics::counter!("zaguan_browsers_too_heavy_total").increment(1);
            }
        }
        metrics::gauge!("zaguan_browsers_pss_bytes").set(sum as f64);
    }
}
