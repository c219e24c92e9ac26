//! A stand-in for web.whatsapp.com at the wire: TLS, page, socket, and the server behind it with many accounts that talk to one another,
//! and their phones. It depends on no crate of ours: its measure is third-party code written for the real page, which runs on it unmodified.

mod control;
mod faults;
mod page;
mod site;
mod socket;
mod tls;
mod world;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

pub use world::World;

/// Where to listen; port 0 picks a free one.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The control API, plain HTTP.
    pub control: SocketAddr,
    /// Today's page, TLS.
    pub page: SocketAddr,
    /// The page with the older message keys, TLS.
    pub page_legacy: SocketAddr,
}

/// A running simulator. It ends with the process or when it is dropped.
pub struct Simulator {
    bound: Addresses,
    spki: String,
    tasks: tokio::task::JoinSet<()>,
}

impl Simulator {
    /// Binds and serves.
    ///
    /// # Errors
    /// Where an address cannot be bound or a certificate cannot be made.
    pub async fn start(addresses: Addresses) -> io::Result<Self> {
        let world = Arc::new(World::default());
        let tls = tls::Identity::make()?;
        let control = TcpListener::bind(addresses.control).await?;
        let current = TcpListener::bind(addresses.page).await?;
        let legacy = TcpListener::bind(addresses.page_legacy).await?;
        let bound = Addresses { control: control.local_addr()?, page: current.local_addr()?, page_legacy: legacy.local_addr()? };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(control::serve(control, world.clone()));
        tasks.spawn(site::serve(current, tls.acceptor.clone(), world.clone(), page::Profile::Current));
        tasks.spawn(site::serve(legacy, tls.acceptor.clone(), world, page::Profile::Legacy));
        Ok(Self { bound, spki: tls.spki, tasks })
    }

    /// What the binary prints: `{"control","page","pageLegacy","spki"}`.
    pub fn announcement(&self) -> serde_json::Value {
        serde_json::json!({
            "control": format!("http://{}", self.bound.control), "page": self.bound.page.to_string(),
            "pageLegacy": self.bound.page_legacy.to_string(), "spki": self.spki,
        })
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}
