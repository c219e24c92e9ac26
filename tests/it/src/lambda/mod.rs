//! As a Lambda function the API answers what it answers over a connection, leaves nothing undone behind an answer, and wakes from a freeze.

mod answers;
mod emulator;
mod freeze;
pub mod ways;
