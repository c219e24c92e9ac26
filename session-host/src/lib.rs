//! `zaguan-host`: owns sessions and drives their browsers.

pub mod browser;
pub mod config;
pub mod guard;
pub mod host;
pub mod session;
pub mod snapshot;
