//! What is pushed to callers while they stay connected: one fan-out, judged for each of them.

mod feed;
mod sse;

pub use feed::{Feed, Next};
pub use sse::respond;
