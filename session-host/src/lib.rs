//! `zaguan-host`: owns sessions and drives their browsers.
pub mod browser;
pub mod guard;
