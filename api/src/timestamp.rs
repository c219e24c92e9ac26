//! Times in answers are the contract's: RFC 3339, UTC, milliseconds.

pub use contract::Timestamp;
