//! Free ports on the loopback address.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the kernel's range for outgoing connections, so that none of those takes a port between our look and the server's bind.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port that nobody listens on. Each process walks the range from a place of its own, so that tests side by side do not meet.
pub fn free_port() -> u16 {
    static STEP: AtomicU16 = AtomicU16::new(0);
    let home = u16::try_from(u64::from(std::process::id()) * 101 % u64::from(COUNT)).expect("less than COUNT");
    for _ in 0..COUNT {
        let step = STEP.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (home + step) % COUNT;
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} on");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
