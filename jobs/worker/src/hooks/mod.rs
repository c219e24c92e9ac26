//! Telling webhooks. Each active webhook is held by one worker ([`desk`]), which runs a [`courier`] for it: that reads the tenant's log from
//! the webhook's cursor, judges ([`judge`]), signs ([`request`]), sends over connections that are guarded ([`connect`]) and settles what came of
//! it. What is sent and not settled when a worker dies is sent again, with the same `webhook-id`: at most [`courier::UNSETTLED`] events.

pub mod connect;
pub mod courier;
pub mod desk;
pub mod errands;
pub mod judge;
pub mod line;
pub mod plan;
pub mod pull;
pub mod request;
pub mod send;
pub mod settings;
pub mod window;
