//! With a resolver that a test controls, over real sockets.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Answers each question with the next of its answers; the last stays.
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>, Arc<AtomicUsize>);

impl Scripted {
    fn new(answers: &[&[&str]]) -> (Box<Self>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = answers.iter().map(|all| all.iter().map(|a| a.parse().unwrap()).collect()).collect();
        (Box::new(Self(Mutex::new(answers), asked.clone())), asked)
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { Ok(answer.unwrap_or_default()) })
    }
}

fn connector(allowed: &str, answers: &[&[&str]]) -> (Connector, Arc<AtomicUsize>) {
    let (resolver, asked) = Scripted::new(answers);
    let within = Duration::from_secs(2);
    (Connector::with(allowed.parse().unwrap(), false, within, resolver, RootCertStore::empty()), asked)
}

async fn reach(connector: &Connector, url: &str) -> Result<(), Unreached> {
    connector.connect(&Target::read(url).unwrap()).await.map(drop)
}

#[tokio::test]
async fn a_name_is_asked_for_once_a_connection_and_the_connection_goes_where_was_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://receiver.example:{}/", listener.local_addr().unwrap().port());
    // The name changes between its check and a second question, which therefore must not be asked; the second connection asks anew.
    let (connector, asked) = connector("127.0.0.1", &[&["127.0.0.1"], &["127.0.0.2"]]);
    assert_eq!(reach(&connector, &url).await, Ok(()));
    assert_eq!(listener.accept().await.unwrap().1.ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(reach(&connector, &url).await, Err(Unreached::Forbidden));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_name_with_one_forbidden_address_among_others_is_refused_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://receiver.example:{}/", listener.local_addr().unwrap().port());
    for forbidden in ["10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "fd00:ec2::254"] {
        let (connector, _) = connector("127.0.0.1", &[&["127.0.0.1", forbidden]]);
        assert_eq!(reach(&connector, &url).await, Err(Unreached::Forbidden), "{forbidden}");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "a connection was made");
    let (connector, _) = connector("127.0.0.1", &[&[]]);
    assert_eq!(reach(&connector, &url).await, Err(Unreached::Name));
}

#[tokio::test]
async fn literals_are_checked_as_what_they_mean_and_ask_no_resolver() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connector, asked) = connector("", &[&["127.0.0.1"]]);
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
        "[::1]",
        "[::]",
    ] {
        assert_eq!(reach(&connector, &format!("http://{host}:{port}/")).await, Err(Unreached::Forbidden), "{host}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    for url in [
        "ftp://receiver.example/",
        "http://user:secret@receiver.example/",
        "http://user@receiver.example/",
        "file:///etc/passwd",
        "receiver",
        "http://",
    ] {
        assert!(matches!(Target::read(url), Err(Unreached::Url)), "{url}");
    }
}

#[tokio::test]
async fn an_encrypted_receiver_must_be_who_the_url_names_and_production_asks_for_one() {
    let issued = rcgen::generate_simple_self_signed(["receiver.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let server = TlsAcceptor::from(Arc::new(server.with_single_cert(vec![issued.cert.der().clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = server.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    });
    let connector = |trusted: bool, https_only| {
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(issued.cert.der().clone()).unwrap();
        }
        let (resolver, _) = Scripted::new(&[&["127.0.0.1"]]);
        Connector::with("127.0.0.1".parse().unwrap(), https_only, Duration::from_secs(5), resolver, roots)
    };
    let target = Target::read(&format!("https://receiver.example:{port}/in?a=1")).unwrap();
    let mut line = connector(true, true).connect(&target).await.unwrap();
    let request = Request::post("/in").header("host", &target.authority).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    assert_eq!(line.ask(request, Duration::from_secs(5)).await.unwrap().status, 204);
    assert_eq!(reach(&connector(false, true), &format!("https://receiver.example:{port}/")).await, Err(Unreached::Tls));
    assert_eq!(reach(&connector(true, true), &format!("https://other.example:{port}/")).await, Err(Unreached::Tls));
    assert_eq!(reach(&connector(true, true), &format!("http://receiver.example:{port}/")).await, Err(Unreached::Plain));
}

#[tokio::test]
async fn a_name_that_is_never_resolved_and_a_connection_that_is_never_made_end_in_time() {
    struct Never;
    impl Resolve for Never {
        fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(std::future::pending())
        }
    }
    let connector = Connector::with(Allowed::default(), false, Duration::from_millis(50), Box::new(Never), RootCertStore::empty());
    assert_eq!(reach(&connector, "http://receiver.example/").await, Err(Unreached::TimedOut));
}
