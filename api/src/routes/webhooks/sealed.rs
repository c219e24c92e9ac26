//! What is kept of a webhook that the database alone must not tell.

use std::collections::BTreeMap;

use contract::WebhookId;
use secrecy::ExposeSecret;
use service::seal::Purpose;
use store::webhooks::Headers;

use crate::{auth, problem::Problem, state::AppState};

/// A fresh signing secret, as its owner is shown it and as it is stored.
///
/// # Errors
/// `internal` where the system has no randomness.
pub fn secret(app: &AppState, webhook: WebhookId) -> Result<(String, Vec<u8>), Problem> {
    let secret = format!("whsec_{}", auth::random_key().ok_or_else(Problem::internal)?);
    let sealed = app.sealer.seal(Purpose::WebhookSecret, webhook.uuid().as_bytes(), secret.as_bytes());
    Ok((secret, sealed.map_err(|why| Problem::internal().because(why))?))
}

/// Headers as they are stored.
///
/// # Errors
/// `internal` where the system has no randomness.
pub fn headers(app: &AppState, webhook: WebhookId, all: &BTreeMap<String, String>) -> Result<Headers, Problem> {
    if all.is_empty() {
        return Ok(Headers::default());
    }
    let text = serde_json::to_vec(all).map_err(|why| Problem::internal().because(why))?;
    let sealed = app.sealer.seal(Purpose::WebhookHeaders, webhook.uuid().as_bytes(), &text);
    let sealed = sealed.map_err(|why| Problem::internal().because(why))?;
    Ok(Headers { sealed: Some(sealed), names: all.keys().cloned().collect() })
}

/// Headers out of what is stored.
///
/// # Errors
/// `internal` where they were sealed with a key that this installation has no more.
pub fn opened(app: &AppState, webhook: WebhookId, sealed: Option<&[u8]>) -> Result<BTreeMap<String, String>, Problem> {
    let Some(sealed) = sealed else { return Ok(BTreeMap::new()) };
    let text = app.sealer.open(Purpose::WebhookHeaders, webhook.uuid().as_bytes(), sealed);
    let text = text.map_err(|why| Problem::internal().because(why))?;
    serde_json::from_slice(text.expose_secret()).map_err(|why| Problem::internal().because(why))
}
