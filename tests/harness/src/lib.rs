//! Everything a test needs around the services: private servers on free ports, the simulator, our own binaries, fault points, waiters.
//!
//! ```no_run
//! # async fn shown() {
//! use std::time::Duration;
//!
//! let stack = harness::Stack::start().await;
//! let _host = stack.host().await;
//! stack.sim.account("5511900000001").await;
//! stack.sim.account("5511900000002").await;
//! stack.client().link(&stack.sim, "5511900000001").await;
//! let job = stack.client().send_text("5511900000002", "Olá").await;
//! stack.client().job_succeeded(&job, Duration::from_secs(10)).await;
//! # }
//! ```
//!
//! It knows the services only by their command lines, environment and HTTP, and depends on no crate of theirs: it must build when their
//! queries do not.

mod client;
mod faults;
mod folder;
mod http;
mod ports;
mod postgres;
mod process;
pub mod procs;
mod redis;
mod services;
mod simulator;
mod stack;
mod user;
mod wait;

pub use client::ApiClient;
pub use faults::{Armed, Arrival, Faults, Reply};
pub use http::{Answer, Http};
pub use ports::{free_port, free_port_near};
pub use postgres::Postgres;
pub use process::Process;
pub use redis::Redis;
pub use rustix::process::Signal;
pub use services::{Api, Host, HostOptions, Settings, binary, random_key, random_password};
pub use simulator::{Addresses, Ports, Simulator};
pub use stack::{Options, Stack, Stores, Tenant};
pub use wait::{until, until_true};
