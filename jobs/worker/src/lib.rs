//! zaguan-worker: telling webhooks, and what has to be done now and then for the whole installation. Any number of workers may run; webhooks
//! wait while none does.
//!
//! Postgres says when a task is due and who runs it ([`store::background`]); Redis carries the releases to whichever worker is free. A Redis that
//! loses, repeats or delays one costs time and nothing else.

pub mod config;
pub mod hooks;
pub mod jobs;
pub mod probes;
pub mod queue;
pub mod schedule;
pub mod serve;
pub mod tasks;
