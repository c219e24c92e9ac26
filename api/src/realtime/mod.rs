//! What is pushed to callers while they stay connected: one fan-out, judged for each of them.

mod asked;
mod feed;
pub mod socketio;
mod sse;

pub use asked::{cursor, filter};
pub use feed::{Ending, Feed, Next};
pub use sse::respond;
