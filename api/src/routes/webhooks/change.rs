//! A merge patch of a webhook.

use std::collections::BTreeMap;

use contract::{AuditAction, Event, WebhookId, WebhookOrder, WebhookState};
use serde::Deserialize;
use serde_json::json;
use store::{
    audit::Act,
    webhooks::{self, Change, Changed, Headers, Webhook},
};

use super::{asked, sealed};
use crate::{
    auth::Caller,
    extract::Change as Patched,
    problem::{Code, Problem},
    state::AppState,
    webhook_rules,
};

/// What is left out stays, null takes away.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookPatch {
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false)]
    name: Patched<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false)]
    url: Patched<String>,
    /// Null: all that are in the log.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    types: Patched<Vec<String>>,
    /// Null: all.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    sessions: Patched<Vec<String>>,
    /// Null: all.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    chats: Patched<Vec<String>>,
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false)]
    ignore_groups: Patched<bool>,
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false)]
    ignore_status: Patched<bool>,
    #[serde(default)]
    #[schema(value_type = Option<bool>, nullable = false)]
    ignore_own: Patched<bool>,
    #[serde(default)]
    #[schema(value_type = Option<WebhookOrder>, nullable = false)]
    ordered_by: Patched<WebhookOrder>,
    #[serde(default)]
    #[schema(value_type = Option<i16>, nullable = false, minimum = 1, maximum = 32)]
    concurrency: Patched<i16>,
    /// Null: none. A header that is left out stays as it is; null takes it away.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    headers: Patched<BTreeMap<String, Option<String>>>,
    /// `active` or `paused`.
    #[serde(default)]
    #[schema(value_type = Option<WebhookState>, nullable = false)]
    state: Patched<WebhookState>,
}

impl WebhookPatch {
    /// Makes the change. Answers the event that tells of another state.
    ///
    /// # Errors
    /// `invalid_body`, `invalid_id` and `not_found`, naming the field.
    pub async fn apply(self, app: &AppState, caller: &Caller, webhook: &Webhook) -> Result<Option<Event>, Problem> {
        let fields = self.named();
        let (mut change, headers) = self.check(app, caller, webhook).await?;
        let act = Act::new(caller.principal, AuditAction::WebhookChanged, webhook.id, json!({"fields": fields, "state": change.state}));
        loop {
            change.headers = match &headers {
                Patched::Keep => None,
                patch => Some(merged(app, caller, webhook.id, patch).await?),
            };
            match webhooks::change(&app.pool, caller.tenant, webhook.id, &change, &act).await? {
                Changed::Done(event) => return Ok(event),
                Changed::NotFound => return Err(Problem::not_found()),
                Changed::HeadersMoved => {}
            }
        }
    }

    /// Everything but the headers, which are read with what they are merged into.
    async fn check(
        self,
        app: &AppState,
        caller: &Caller,
        webhook: &Webhook,
    ) -> Result<(Change, Patched<BTreeMap<String, Option<String>>>), Problem> {
        let name = self.name.required("name")?;
        name.as_deref().map_or(Ok(()), asked::name)?;
        let url = self.url.required("url")?.map(|url| app.webhook_urls.read(&url)).transpose()?;
        let types = self.types.nullable().map(|types| types.map_or(Ok(Vec::new()), asked::types)).transpose()?;
        let state = self.state.required("state")?;
        if state == Some(WebhookState::Disabled) {
            return Err(Problem::new(Code::InvalidBody, "expected active or paused").field("state"));
        }
        let sessions = match self.sessions.nullable() {
            Some(Some(names)) => Some(Some(asked::sessions(app, caller, names).await?)),
            other => other.map(|_| None),
        };
        let chats = match self.chats.nullable() {
            Some(Some(names)) => {
                let within = sessions.as_ref().unwrap_or(&webhook.filter.sessions);
                Some(Some(asked::chats_in(app, caller, within.as_deref(), names).await?))
            }
            other => other.map(|_| None),
        };
        let change = Change {
            name,
            url,
            types,
            sessions,
            chats,
            ignore_groups: self.ignore_groups.required("ignoreGroups")?,
            ignore_status: self.ignore_status.required("ignoreStatus")?,
            ignore_own: self.ignore_own.required("ignoreOwn")?,
            ordered_by: self.ordered_by.required("orderedBy")?,
            concurrency: self.concurrency.required("concurrency")?.map(asked::concurrency).transpose()?,
            headers: None,
            state,
        };
        Ok((change, self.headers))
    }

    /// The fields that it names, for the audit log.
    fn named(&self) -> Vec<&'static str> {
        const fn said<T>(change: &Patched<T>) -> bool {
            !matches!(change, Patched::Keep)
        }
        let all = [
            ("name", said(&self.name)),
            ("url", said(&self.url)),
            ("types", said(&self.types)),
            ("sessions", said(&self.sessions)),
            ("chats", said(&self.chats)),
            ("ignoreGroups", said(&self.ignore_groups)),
            ("ignoreStatus", said(&self.ignore_status)),
            ("ignoreOwn", said(&self.ignore_own)),
            ("orderedBy", said(&self.ordered_by)),
            ("concurrency", said(&self.concurrency)),
            ("headers", said(&self.headers)),
            ("state", said(&self.state)),
        ];
        all.into_iter().filter(|(_, said)| *said).map(|(name, _)| name).collect()
    }
}

/// The headers that were there (sealed), and those that take their place.
async fn merged(
    app: &AppState,
    caller: &Caller,
    webhook: WebhookId,
    patch: &Patched<BTreeMap<String, Option<String>>>,
) -> Result<(Option<Vec<u8>>, Headers), Problem> {
    let before = webhooks::sealed_headers(&app.pool, caller.tenant, webhook).await?.ok_or_else(Problem::not_found)?;
    let Patched::Set(patch) = patch else { return Ok((before, Headers::default())) };
    let mut all = sealed::opened(app, webhook, before.as_deref())?;
    let set = patch.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    for name in patch.keys() {
        all.remove(&name.to_ascii_lowercase());
    }
    all.extend(webhook_rules::headers(set)?);
    let all = webhook_rules::headers(all)?;
    Ok((before, sealed::headers(app, webhook, &all)?))
}
