//! Everything a test needs around the services: private servers on free ports, browsers, the simulator, waiters. The same pieces make up
//! `make run`.

pub mod catalogue;
pub mod client;
pub mod clock;
mod cluster;
pub mod faults;
pub mod lambda;
pub mod people;
mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod s3;
pub mod services;
pub mod simulator;
pub mod small_disk;
pub mod socketio;
pub mod sse;
mod stack;
mod user;
pub mod visitor;
mod wait;

pub use client::ApiClient;
pub use ports::free_port;
pub use proxy::Proxy;
pub use services::PAGE_ORIGIN;
pub use stack::{Proxies, Settings, Stack, Tenant};
pub use user::{Folder, User};
pub use wait::{until, until_true};

/// What can go wrong around a test: it is printed and ends the test.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A random word of hex digits.
pub fn random_word(bytes: usize) -> String {
    random_bytes(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A random key as services take it: base64 of 32 bytes.
pub fn random_key() -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(random_bytes(32))
}

pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).expect("the system has randomness");
    bytes
}
