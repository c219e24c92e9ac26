//! What every service's process does alike: how it reads its settings, how strict it is, what it keeps sealed, what it says about itself.

pub mod addresses;
mod arguments;
mod environment;
pub mod objects;
pub mod seal;
pub mod secrets;
pub mod telemetry;

pub use arguments::with_files;
pub use environment::Environment;
