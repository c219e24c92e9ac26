//! The codes that a page shows to be linked: kept for whoever asks, and renewed while somebody may scan.

use std::time::Duration;

use contract::Signal;

use super::actor::{Actor, After};
use crate::browser::{Browser, RefreshQr};

/// Lists of QR codes that may go by unscanned; the page makes a new list of six each time it is asked.
const QR_LISTS: u32 = 5;
/// How long a code is shown where the page does not say: WhatsApp's first lives 60 s, the others 20 s.
const QR_TTL: Duration = Duration::from_secs(20);

impl Actor {
    pub(super) async fn show_code(&self, code: Option<String>, ttl_ms: Option<u64>) {
        let (redis, lease) = (&self.shared.services.redis, &self.shared.lease);
        let written = match code {
            Some(code) => {
                let ttl = ttl_ms.map_or(QR_TTL, Duration::from_millis);
                queue::qr::write(redis, lease, &code, ttl).await
            }
            None => queue::qr::clear(redis, lease).await,
        };
        if let Err(error) = written {
            tracing::warn!(session = %self.shared.session(), %error, "QR not shown");
        }
    }

    pub(super) async fn next_list(&mut self, browser: &Browser) -> Option<After> {
        self.qr_lists += 1;
        if self.qr_lists >= QR_LISTS {
            return Some(self.give_up(Signal::CodesExhausted).await);
        }
        let call_id = format!("qr-refresh-{}", self.qr_lists);
        if let Err(error) = browser.call(&RefreshQr {}, &call_id, Duration::from_secs(10)).await {
            tracing::warn!(session = %self.shared.session(), %error, "no new codes");
        }
        None
    }
}
