//! What the queue promises, against a Redis and a Postgres of each test's own.

mod events;
mod failover;
mod faults;
mod housekeeping;
mod lanes;
mod leases;
mod limits;
mod memory;
mod owners;
mod restored;
mod streams;
mod support;
