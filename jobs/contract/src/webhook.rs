//! Webhooks: endpoints of a tenant that are told of its events.

use crate::{EventType, job::names};

names! {
    /// Whether a webhook is told of events.
    WebhookState {
        /// It is.
        Active = "active",
        /// It is not; what happens waits in the log, and is told when it is active again.
        Paused = "paused",
        /// It is not: its receiver said that it is gone (410).
        Disabled = "disabled",
    }
}

names! {
    /// Why a webhook is not active.
    WebhookReason {
        /// Somebody asked for it.
        Requested = "requested",
        /// Its receiver failed for too long.
        Failing = "failing",
        /// Its receiver answered 410.
        Gone = "gone",
    }
}

names! {
    /// In which order a webhook is told of events.
    WebhookOrder {
        /// One after the other: one that fails holds up all that follow.
        Endpoint = "endpoint",
        /// One after the other in each chat: one that fails holds up its chat only.
        Chat = "chat",
    }
}

names! {
    /// Why an event is delivered.
    DeliveryKind {
        /// It happened.
        Live = "live",
        /// The webhook was told to begin again from before it.
        Replay = "replay",
        /// This one was asked for again.
        Redelivery = "redelivery",
        /// A test call, which is in no log.
        Test = "test",
    }
}

names! {
    /// Where a delivery is.
    DeliveryState {
        /// It is to be sent, for the first time or again.
        Waiting = "waiting",
        /// The receiver answered 2xx.
        Delivered = "delivered",
        /// It was given up.
        Dead = "dead",
    }
}

/// The type of a test call's event, which is in no log.
pub const WEBHOOK_TEST: &str = "webhook.test";

/// Whether events of this type are in the log, so that webhooks can be told of them.
pub const fn is_logged(kind: &EventType) -> bool {
    !matches!(kind, EventType::SessionQr | EventType::StreamGap | EventType::Other(_))
}
