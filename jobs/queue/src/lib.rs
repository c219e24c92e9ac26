//! The only Redis: lanes (as an apalis backend), leases, event streams, heartbeats. Redis is the fast path and a hint: what it loses is found
//! again in Postgres, and nothing here decides what Postgres decides.

mod accept;
mod backend;
mod bus;
pub mod events;
pub mod hosts;
mod hub;
mod keys;
mod lane;
pub mod lanes;
mod lease;
pub mod qr;
mod readers;
pub mod reconcile;
mod redis;
mod scripts;

pub use accept::accept_and_push;
pub use backend::{Done, Entry, LaneBackend};
pub use hub::{Hub, Round};
pub use lease::{Lease, release_after_death};
pub use readers::{Follow, Readers};
pub use redis::{QueueError, Redis};
