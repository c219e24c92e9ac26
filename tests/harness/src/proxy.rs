//! A TCP proxy before a server: what a network does to connections, on command.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};

use crate::Error;

/// What happens to bytes and to new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Refuse,
}

/// What the test has ordered so far. A connection compares the counters with those of its birth.
#[derive(Debug, Clone, Copy)]
struct Orders {
    server: SocketAddr,
    mode: Mode,
    cuts: u64,
    silences: u64,
}

/// An answer to hold back.
struct Trap {
    pattern: Vec<u8>,
    caught: mpsc::UnboundedSender<oneshot::Sender<Fate>>,
}

enum Fate {
    Deliver,
    Cut,
}

type Traps = Arc<Mutex<Vec<Trap>>>;

/// Stands between clients and one server. Passes everything until told otherwise; ends, with all connections, when dropped.
pub struct Proxy {
    port: u16,
    orders: watch::Sender<Orders>,
    traps: Traps,
}

impl Proxy {
    /// One before the server on this port of 127.0.0.1. It runs on a thread of its own: tests block theirs while programs run.
    ///
    /// # Errors
    /// Where no port can be had.
    pub fn start(server: u16) -> Result<Self, Error> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", crate::free_port()))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let orders = watch::Sender::new(Orders { server: local(server), mode: Mode::Pass, cuts: 0, silences: 0 });
        let traps = Traps::default();
        let accepting = accept(listener, orders.subscribe(), traps.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // With the runtime all connections end.
        std::thread::spawn(move || runtime.block_on(accepting));
        Ok(Self { port, orders, traps })
    }

    /// One before the server that a URL names.
    ///
    /// # Errors
    /// Where the URL names no port, or no port can be had.
    pub fn before(url: &str) -> Result<Self, Error> {
        Self::start(port_of(url)?)
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's URL by way of this proxy.
    ///
    /// # Panics
    /// Where the URL names no port.
    pub fn url(&self, server: &str) -> String {
        let port = port_of(server).expect("the URL names a port");
        server.replacen(&format!(":{port}"), &format!(":{}", self.port), 1)
    }

    /// Leads new connections to another server; open ones stay with theirs.
    ///
    /// # Panics
    /// Where the URL names no port.
    pub fn lead_to(&self, url: &str) {
        let server = local(port_of(url).expect("the URL names a port"));
        self.orders.send_modify(|orders| orders.server = server);
    }

    /// Closes all connections, towards both sides; new ones pass.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Closes all connections towards the server and leaves those towards clients open without a word, as a router does that forgot them:
    /// what clients send vanishes. New ones pass.
    pub fn silence(&self) {
        self.orders.send_modify(|orders| orders.silences += 1);
    }

    /// Holds all bytes back, of new connections too, until [`Self::pass`]: packets that are lost and sent again.
    pub fn stall(&self) {
        self.orders.send_modify(|orders| orders.mode = Mode::Stall);
    }

    /// Closes new connections at once, until [`Self::pass`]; open ones live on.
    pub fn refuse(&self) {
        self.orders.send_modify(|orders| orders.mode = Mode::Refuse);
    }

    /// Ends [`Self::stall`] and [`Self::refuse`].
    pub fn pass(&self) {
        self.orders.send_modify(|orders| orders.mode = Mode::Pass);
    }

    /// Holds back the server's answer to the first request that contains `pattern`: the server has done what was asked, and the client does
    /// not know.
    pub fn hold_answer(&self, pattern: impl AsRef<[u8]>) -> HeldAnswer {
        let (caught, answers) = mpsc::unbounded_channel();
        self.traps.lock().unwrap_or_else(PoisonError::into_inner).push(Trap { pattern: pattern.as_ref().to_vec(), caught });
        HeldAnswer { answers, fate: None }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn port_of(url: &str) -> Result<u16, Error> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let (_, port) = authority.rsplit_once(':').ok_or("the URL names no port")?;
    Ok(port.parse()?)
}

/// An answer on its way that the client does not get to see. Delivered when dropped.
pub struct HeldAnswer {
    answers: mpsc::UnboundedReceiver<oneshot::Sender<Fate>>,
    fate: Option<oneshot::Sender<Fate>>,
}

impl HeldAnswer {
    /// When the server has answered.
    ///
    /// # Panics
    /// Where it does not within 30 s.
    pub async fn arrived(&mut self) {
        if self.fate.is_none() {
            let answer = tokio::time::timeout(Duration::from_secs(30), self.answers.recv()).await;
            self.fate = answer.expect("such a request is answered within 30 s");
        }
    }

    /// Closes its connection instead of delivering it, when it has come.
    pub async fn cut(mut self) {
        self.arrived().await;
        if let Some(fate) = self.fate.take() {
            let _ = fate.send(Fate::Cut);
        }
    }

    /// Delivers it, when it has come.
    pub async fn deliver(mut self) {
        self.arrived().await;
        if let Some(fate) = self.fate.take() {
            let _ = fate.send(Fate::Deliver);
        }
    }
}

/// Ends with the proxy.
async fn accept(listener: std::net::TcpListener, mut orders: watch::Receiver<Orders>, traps: Traps) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                if orders.borrow().mode != Mode::Refuse {
                    tokio::spawn(serve(client, orders.clone(), traps.clone()));
                }
            }
            changed = orders.changed() => if changed.is_err() { return },
        }
    }
}

/// What the two directions of a connection know of each other.
#[derive(Default)]
struct Talk {
    /// What was sent since the server last spoke: a pattern may come in pieces.
    request: Vec<u8>,
    /// The next answer is to be held back.
    caught: Option<Trap>,
}

/// How a connection ends.
enum End {
    /// By its peers, an answer that was cut, or an order.
    Closed,
    /// The client is not told.
    Silenced,
}

async fn serve(mut client: TcpStream, mut orders: watch::Receiver<Orders>, traps: Traps) {
    let born = *orders.borrow();
    let held = orders.clone();
    let end = async {
        let mut server = TcpStream::connect(born.server).await.ok()?;
        // Small packets must not wait for one another here: they did not between the two peers.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((mut client_in, mut client_out), (mut server_in, mut server_out)) = (client.split(), server.split());
        let talk = Mutex::new(Talk::default());
        // When one of the two peers closes, the other direction is of no use to these protocols.
        tokio::select! {
            () = requests(&mut client_in, &mut server_out, held.clone(), &traps, &talk) => {}
            () = answers(&mut server_in, &mut client_out, held.clone(), &talk) => {}
        }
        Some(End::Closed)
    };
    let end = tokio::select! {
        end = end => end.unwrap_or(End::Closed),
        end = ordered(&mut orders, born) => end,
    };
    if matches!(end, End::Silenced) {
        let mut lost = [0; 4096];
        let unheard = async { while matches!(client.read(&mut lost).await, Ok(1..)) {} };
        // A later cut, or the proxy's end, is what ends it otherwise.
        tokio::select! {
            () = unheard => {}
            _ = orders.wait_for(|now| now.cuts != born.cuts) => {}
        }
    }
}

/// When an order of the test concerns this connection, or the proxy is gone.
async fn ordered(orders: &mut watch::Receiver<Orders>, born: Orders) -> End {
    match orders.wait_for(|now| now.cuts != born.cuts || now.silences != born.silences).await {
        Ok(now) if now.cuts == born.cuts => End::Silenced,
        Ok(_) | Err(_) => End::Closed,
    }
}

/// While bytes are to be held back.
async fn flowing(orders: &mut watch::Receiver<Orders>) {
    let _ = orders.wait_for(|now| now.mode != Mode::Stall).await;
}

async fn requests(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut orders: watch::Receiver<Orders>,
    traps: &Traps,
    talk: &Mutex<Talk>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        flowing(&mut orders).await;
        {
            let mut talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
            talk.request.extend_from_slice(&buffer[..count]);
            if let Some(trap) = take(traps, &talk.request) {
                talk.caught = Some(trap);
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn take(traps: &Traps, request: &[u8]) -> Option<Trap> {
    let mut traps = traps.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody waits for those any more.
    traps.retain(|trap| !trap.caught.is_closed());
    let found = traps.iter().position(|trap| request.windows(trap.pattern.len()).any(|part| part == trap.pattern))?;
    Some(traps.remove(found))
}

async fn answers(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut orders: watch::Receiver<Orders>,
    talk: &Mutex<Talk>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        flowing(&mut orders).await;
        let trap = {
            let mut talk = talk.lock().unwrap_or_else(PoisonError::into_inner);
            talk.request.clear();
            talk.caught.take()
        };
        if let Some(trap) = trap {
            let (fate, spoken) = oneshot::channel();
            if trap.caught.send(fate).is_ok() && matches!(spoken.await, Ok(Fate::Cut)) {
                return;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every line in capitals, on as many connections as come, and counts them.
    async fn shouter() -> (u16, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, count) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let open = open.clone();
                open.send_modify(|n| *n += 1);
                tokio::spawn(async move {
                    let mut buffer = [0; 100];
                    while let Ok(count @ 1..) = client.read(&mut buffer).await {
                        client.write_all(&buffer[..count].to_ascii_uppercase()).await.unwrap();
                    }
                    open.send_modify(|n| *n -= 1);
                });
            }
        });
        (port, count)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    /// The answer; empty where the connection is closed, `None` where nothing comes.
    async fn ask(stream: &mut TcpStream, text: &str) -> Option<String> {
        stream.write_all(text.as_bytes()).await.unwrap();
        hear(stream).await
    }

    async fn hear(stream: &mut TcpStream) -> Option<String> {
        let mut buffer = [0; 100];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await.ok()?;
        Some(String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned())
    }

    fn heard(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[tokio::test]
    async fn a_cut_closes_both_sides_and_new_connections_pass() {
        let (server, mut open) = shouter().await;
        let proxy = Proxy::start(server).unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "a").await, heard("A"));
        proxy.cut();
        assert_eq!(hear(&mut client).await, heard(""));
        open.wait_for(|n| *n == 0).await.unwrap();
        assert_eq!(ask(&mut connect(&proxy).await, "b").await, heard("B"));
    }

    #[tokio::test]
    async fn a_silenced_connection_is_closed_for_the_server_and_never_answers_its_client() {
        let (server, mut open) = shouter().await;
        let proxy = Proxy::start(server).unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "a").await, heard("A"));
        proxy.silence();
        open.wait_for(|n| *n == 0).await.unwrap();
        assert_eq!(ask(&mut client, "b").await, None);
        assert_eq!(ask(&mut connect(&proxy).await, "c").await, heard("C"));
        proxy.cut();
        assert_eq!(hear(&mut client).await, heard(""));
    }

    #[tokio::test]
    async fn what_is_stalled_arrives_later_and_what_is_refused_never_connects() {
        let (server, _open) = shouter().await;
        let proxy = Proxy::start(server).unwrap();
        let mut client = connect(&proxy).await;
        proxy.stall();
        assert_eq!(ask(&mut client, "a").await, None);
        proxy.pass();
        assert_eq!(hear(&mut client).await, heard("A"));
        proxy.refuse();
        assert_eq!(ask(&mut client, "b").await, heard("B"), "it was open before");
        let mut refused = connect(&proxy).await;
        assert_eq!(hear(&mut refused).await, heard(""));
        proxy.pass();
        assert_eq!(ask(&mut connect(&proxy).await, "c").await, heard("C"));
        drop(proxy);
        assert_eq!(hear(&mut client).await, heard(""));
    }

    #[tokio::test]
    async fn new_connections_are_led_to_another_server_and_open_ones_stay() {
        let ((first, open), (second, others)) = (shouter().await, shouter().await);
        let proxy = Proxy::start(first).unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "a").await, heard("A"));
        proxy.lead_to(&format!("redis://127.0.0.1:{second}"));
        let mut newer = connect(&proxy).await;
        assert_eq!(ask(&mut newer, "b").await, heard("B"));
        assert_eq!(ask(&mut client, "c").await, heard("C"));
        assert_eq!((*open.borrow(), *others.borrow()), (1, 1));
    }

    #[tokio::test]
    async fn the_answer_to_a_named_request_is_held_until_the_test_has_spoken() {
        let (server, _open) = shouter().await;
        let proxy = Proxy::start(server).unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "commit").await, heard("COMMIT"), "said before it was armed");
        let mut held = proxy.hold_answer("commit");
        assert_eq!(ask(&mut client, "other").await, heard("OTHER"));
        assert_eq!(ask(&mut client, "now commit").await, None);
        held.arrived().await;
        held.deliver().await;
        assert_eq!(hear(&mut client).await, heard("NOW COMMIT"));
        let held = proxy.hold_answer("commit");
        assert_eq!(ask(&mut client, "commit").await, None);
        held.cut().await;
        assert_eq!(hear(&mut client).await, heard(""));
        assert_eq!(ask(&mut connect(&proxy).await, "commit").await, heard("COMMIT"), "one answer was to be held");
    }

    #[test]
    fn a_url_is_led_through_the_proxy() {
        assert_eq!(port_of("postgres://a:b@127.0.0.1:5432/db").unwrap(), 5432);
        assert_eq!(port_of("redis://127.0.0.1:1").unwrap(), 1);
        assert!(port_of("redis://localhost/0").is_err());
    }
}
