//! Everything a test needs around the services: private servers on free ports, browsers, the simulator, waiters.

mod wait;

pub use wait::{until, until_true};
