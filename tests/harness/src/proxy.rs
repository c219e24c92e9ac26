//! A road between a service and a server that can be cut in two ways: with a farewell, and without.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to the connections that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    /// Bytes go through.
    Open,
    /// Bytes are taken and go nowhere; nobody hears of it.
    Silent,
    /// Both ends are closed.
    Closed,
}

/// A TCP proxy on a free port.
pub struct Proxy {
    address: SocketAddr,
    /// A road a generation of connections, the present one last. They stay: the end of one would read as news.
    roads: Arc<Mutex<Vec<watch::Sender<Road>>>>,
    made: Arc<AtomicUsize>,
    _server: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Leads to `target`.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let roads = Arc::new(Mutex::new(vec![watch::Sender::new(Road::Open)]));
        let made = Arc::new(AtomicUsize::new(0));
        let (present, count) = (roads.clone(), made.clone());
        let server = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Some(road) = locked(&present).last().map(watch::Sender::subscribe) else { return };
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(target).await {
                        carry(near, far, road).await;
                    }
                });
            }
        });
        Ok(Self { address, roads, made, _server: server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were ever made through it.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Closes the connections that exist; new ones go through.
    pub fn close(&self) {
        self.cut(Road::Closed);
    }

    /// Lets nothing more through on the connections that exist, as when packets are dropped; new ones go through.
    pub fn silence(&self) {
        self.cut(Road::Silent);
    }

    fn cut(&self, how: Road) {
        let mut roads = locked(&self.roads);
        if let Some(present) = roads.last() {
            present.send_replace(how);
        }
        roads.push(watch::Sender::new(Road::Open));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(mut near: TcpStream, mut far: TcpStream, mut road: watch::Receiver<Road>) {
    let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let now = *road.borrow_and_update();
        if now == Road::Closed {
            return;
        }
        tokio::select! {
            _ = road.changed() => {}
            read = near.read(&mut up) => match read {
                Ok(0) | Err(_) => return,
                Ok(n) if now == Road::Open && far.write_all(&up[..n]).await.is_err() => return,
                Ok(_) => {}
            },
            read = far.read(&mut down) => match read {
                Ok(0) | Err(_) if now == Road::Silent => std::future::pending().await,
                Ok(0) | Err(_) => return,
                Ok(n) if now == Road::Open && near.write_all(&down[..n]).await.is_err() => return,
                Ok(_) => {}
            },
        }
    }
}
