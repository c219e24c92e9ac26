//! The fault laboratory: seeded random traffic and seeded random faults on a whole installation, and a checker that reads all sides at the
//! end. `make chaos SEEDS=20`; a short fixed share runs with the tests.
//!
//! A seed makes a [`plan::Plan`], which is data. [`run`] carries it out: [`traffic`] plays callers and phones, [`fleet`] breaks and revives,
//! [`follow`] listens as readers of the log do. What everybody saw becomes a [`history::History`], and [`check::check`], a pure function,
//! says what in it should not be.

pub mod check;
pub mod fleet;
pub mod follow;
pub mod gather;
pub mod history;
pub mod person;
pub mod plan;
pub mod random;
pub mod run;
pub mod traffic;
pub mod witness;
