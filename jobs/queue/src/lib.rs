//! The only Redis: lanes of jobs, leases of sessions, event streams, what hosts say of themselves.
//!
//! Redis is a hint everywhere. What starts, who owns and what happened is decided by Postgres, so that a Redis that forgets, repeats or
//! goes away costs time and nothing else.

pub mod accept;
pub mod backend;
pub mod brief;
pub mod codes;
pub mod erasure;
pub mod events;
pub mod hooks;
pub mod hosts;
pub mod hub;
pub mod keys;
pub mod lanes;
pub mod lease;
pub mod limits;
pub mod qr;
pub mod reconcile;
pub mod redis;
pub mod renewal;
pub mod restored;
pub mod streams;
pub mod throttle;
pub mod tidy;

mod channels;
mod claim;
mod lost;
mod publish;
mod scripts;
mod slot;

pub use self::redis::{QueueError, Redis};
pub use accept::{accept_and_push, accepted_after_all};
pub use backend::{Done, Entry, LaneBackend};
pub use claim::{CLAIMS_AT_ONCE, Claimed};
pub use codes::Codes;
pub use events::{Follow, Logged, Readers};
pub use hub::Hub;
pub use lease::{Lease, release_after_death};
pub use renewal::Round;
