//! Where webhooks must not go, and receivers that mean no good. The harness allows 127.0.0.1 and nothing else of what is not public.

use std::time::{Duration, Instant};

use harness::{
    Stack,
    receiver::{Receiver, Reply},
    until_true,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Hook, SOON, comes, timings};

#[tokio::test]
async fn forbidden_addresses_are_refused_however_they_are_written() {
    let mut stack = Stack::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = [
        "127.0.0.2",
        "2130706434",
        "0x7f.2",
        "0177.0.0.2",
        "127.2",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.0.1",
        "[64:ff9b::7f00:2]",
        "[fd00::1]",
        "[fe80::1]",
        "[2002:7f00:2::1]",
        "224.0.0.1",
        "255.255.255.255",
    ];
    let mut hooks = Vec::new();
    for (n, hosts) in hosts.chunks(7).enumerate() {
        let tenant = stack.tenant(&format!("tenant{n}")).await;
        for host in hosts {
            hooks.push((host, Hook::of(&stack, &tenant, &format!("http://{host}:{port}/")).await));
        }
    }
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [1]}))).await;
    for n in 0..hosts.len().div_ceil(7) {
        hooks[n * 7].1.emit(1).await;
    }
    for (host, hook) in &hooks {
        until_true(&format!("{host} to be refused"), SOON, async || {
            hook.count("state = 'dead' and error = 'address_forbidden' and status is null").await == 1
        })
        .await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err(), "nobody came");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let mut stack = Stack::start().await;
    let (ana, receiver, inner) = (stack.tenant("ana").await, Receiver::start().await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let statuses = [301, 302, 303, 307, 308];
    let (to, first) = (inner.url("/"), hook.get::<i64>("cursor_seq").await + 1);
    receiver.answers(move |got| {
        let status = usize::try_from(got.seq() - first).ok().and_then(|n| statuses.get(n)).copied().unwrap_or(200);
        Reply::Full(status, vec![("location", to.clone())], Vec::new())
    });
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [1]}))).await;
    let last = hook.emit(5).await;
    hook.settled(last).await;
    until_true("all to be given up", SOON, async || hook.count("state = 'dead' and error = 'redirected'").await == 5).await;
    assert!(inner.got().is_empty());
}

#[tokio::test]
async fn slow_and_endless_answers_are_cut_at_their_limits() {
    let mut stack = Stack::start().await;
    let ana = stack.tenant("ana").await;
    // Each connection gets a byte of the headers every 50 ms, for ever.
    let dripping = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (drip_port, endless_port) = (dripping.local_addr().unwrap().port(), endless.local_addr().unwrap().port());
    let _drip = tokio::spawn(async move {
        while let Ok((mut stream, _)) = dripping.accept().await {
            tokio::spawn(async move {
                // An answer before the question would be another mistake than this one.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    // Says 200 and then never stops; counts what was taken from it.
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = taken.clone();
    let _endless = tokio::spawn(async move {
        while let Ok((mut stream, _)) = endless.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
                while let Ok(n) = stream.write(&[b'y'; 4096]).await {
                    counter.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let slow = Hook::of(&stack, &ana, &format!("http://127.0.0.1:{drip_port}/")).await;
    let long = Hook::of(&stack, &ana, &format!("http://127.0.0.1:{endless_port}/")).await;
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [], "answerWithinMs": 700}))).await;
    let began = Instant::now();
    let last = slow.emit(1).await;
    until_true("the slow one to be cut", SOON, async || slow.count("state = 'dead' and error = 'timeout'").await == 1).await;
    assert!(slow.of_delivery::<i32>("duration_ms", "true").await >= 700 && began.elapsed() < Duration::from_secs(10));
    long.settled(last).await;
    let kept = long.of_delivery::<String>("status || ' ' || error || ' ' || length(answer)", "state = 'delivered'").await;
    assert_eq!(kept, "200 body_too_long 256");
    // Beside what the sockets' own buffers took.
    assert!(taken.load(std::sync::atomic::Ordering::Relaxed) < 16 << 20);
}

#[tokio::test]
async fn a_connection_is_kept_between_events_and_one_that_was_closed_meanwhile_is_no_failure() {
    let mut stack = Stack::start().await;
    let (ana, mut receiver) = (stack.tenant("ana").await, Receiver::start().await);
    let hook = Hook::of(&stack, &ana, &receiver.url("/")).await;
    let _worker = stack.teller(&timings(&json!({"retryAfterMs": [], "keepConnectionMs": 60000}))).await;
    for _ in 0..5 {
        let last = hook.emit(1).await;
        comes(&receiver, last).await;
        receiver.down();
        receiver.up().await;
    }
    let last = hook.emit(20).await;
    hook.settled(last).await;
    assert_eq!(hook.count("state = 'dead'").await, 0);
    assert!(receiver.connections() < 12, "twenty events did not make twenty connections");
}
