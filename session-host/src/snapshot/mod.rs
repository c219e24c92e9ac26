//! A profile as one sealed file: what is packed and what not, and how it is opened again. No rows and no object store here.
//!
//! The format: tar, zstd, then pieces of AES-256-GCM under a key of the file's own (`service::seal`), which lies in the snapshot's row, sealed
//! under the tenant's data key.

mod pack;
mod pipes;
mod scratch;
mod unpack;

pub use pack::{Packed, pack};
pub use scratch::{Scratch, sweep};
pub use unpack::{Unusable, unpack};

#[cfg(test)]
mod tests;
