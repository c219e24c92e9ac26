//! `keys.rewrap`.

use service::seal::{NotResealed, Purpose, Sealer};
use store::{
    PgPool,
    sealed::{self, SealedWebhook},
};

use super::{BATCH, Failed, Tools};

/// What one pass came to.
#[derive(Default)]
struct Pass {
    resealed: u64,
    /// What no key of ours opens. Told, and left: it may be another's who has the key.
    closed: u64,
}

impl Pass {
    /// The value as it is to lie from now on; `None`: as it does.
    fn anew(&mut self, sealer: &Sealer, purpose: Purpose, owner: &[u8; 16], value: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        match sealer.reseal(purpose, owner, value) {
            Ok(new) => Ok(new),
            Err(NotResealed::Seal(why)) => Err(why.into()),
            Err(NotResealed::Open(_)) => {
                self.closed += 1;
                Ok(None)
            }
        }
    }
}

/// Seals anew under the current master key what the one before it has sealed. Once two passes ten minutes apart had nothing to do, no service
/// seals with the old one any more, and it may go.
pub async fn run(tools: &Tools) -> Result<u64, Failed> {
    let mut pass = Pass::default();
    data_keys(&tools.pool, &tools.sealer, &mut pass).await?;
    webhooks(&tools.pool, &tools.sealer, &mut pass).await?;
    exports(&tools.pool, &tools.sealer, &mut pass).await?;
    metrics::gauge!("zaguan_sealed_under_no_known_key").set(pass.closed as f64);
    metrics::gauge!("zaguan_sealed_anew").set(pass.resealed as f64);
    if pass.closed > 0 {
        tracing::error!(values = pass.closed, "neither MASTER_KEY nor MASTER_KEY_PREVIOUS opens what lies sealed in the database");
    }
    if pass.resealed > 0 {
        tracing::info!(values = pass.resealed, "sealed anew under MASTER_KEY");
    }
    Ok(pass.resealed)
}

async fn data_keys(pool: &PgPool, sealer: &Sealer, pass: &mut Pass) -> Result<(), Failed> {
    let mut last = None;
    loop {
        let keys = sealed::data_keys(pool, last, BATCH).await?;
        let Some((tenant, _)) = keys.last() else { return Ok(()) };
        last = Some(*tenant);
        for (tenant, before) in keys {
            if let Some(after) = pass.anew(sealer, Purpose::DataKey, tenant.uuid().as_bytes(), &before)? {
                pass.resealed += u64::from(sealed::replace_data_key(pool, tenant, &before, &after).await?);
            }
        }
    }
}

async fn webhooks(pool: &PgPool, sealer: &Sealer, pass: &mut Pass) -> Result<(), Failed> {
    let mut last = None;
    loop {
        let hooks = sealed::webhooks(pool, last, BATCH).await?;
        let Some(hook) = hooks.last() else { return Ok(()) };
        last = Some(hook.webhook);
        for before in hooks {
            let after = webhook(sealer, pass, &before)?;
            if after != before {
                pass.resealed += u64::from(sealed::replace_webhook(pool, &before, &after).await?);
            }
        }
    }
}

fn webhook(sealer: &Sealer, pass: &mut Pass, before: &SealedWebhook) -> Result<SealedWebhook, Failed> {
    let mut after = before.clone();
    let values = [
        (Some(&mut after.secret), Purpose::WebhookSecret),
        (after.previous_secret.as_mut(), Purpose::WebhookSecret),
        (after.headers.as_mut(), Purpose::WebhookHeaders),
    ];
    for (value, purpose) in values {
        if let Some(value) = value
            && let Some(new) = pass.anew(sealer, purpose, before.webhook.uuid().as_bytes(), value)?
        {
            *value = new;
        }
    }
    Ok(after)
}

async fn exports(pool: &PgPool, sealer: &Sealer, pass: &mut Pass) -> Result<(), Failed> {
    let mut last = None;
    loop {
        let keys = sealed::export_keys(pool, last, BATCH).await?;
        let Some((_, export, _)) = keys.last() else { return Ok(()) };
        last = Some(*export);
        for (tenant, export, before) in keys {
            if let Some(after) = pass.anew(sealer, Purpose::Export, export.uuid().as_bytes(), &before)? {
                pass.resealed += u64::from(sealed::replace_export_key(pool, tenant, export, &before, &after).await?);
            }
        }
    }
}
