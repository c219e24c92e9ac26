//! The only way from here to a tenant's URL: every connection asks the guard about every address its name has, and goes to one of those.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use service::addresses::Allowed;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::line::Line;

/// Why there is no connection. The names are what a delivery's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// The URL does not name a receiver: no http(s), or with a user in it.
    #[error("url_invalid")]
    Url,
    /// Not encrypted, and this is no development installation.
    #[error("https_required")]
    Plain,
    /// The name has no address.
    #[error("name_unresolved")]
    Name,
    /// The name, or the literal, leads where webhooks must not go.
    #[error("address_forbidden")]
    Forbidden,
    /// No address took the connection.
    #[error("connect_failed")]
    Refused,
    /// It is not who the URL names, or speaks no TLS.
    #[error("tls_failed")]
    Tls,
    /// It took too long.
    #[error("connect_timeout")]
    TimedOut,
}

impl Unreached {
    /// As the delivery's log says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Url => "url_invalid",
            Self::Plain => "https_required",
            Self::Name => "name_unresolved",
            Self::Forbidden => "address_forbidden",
            Self::Refused => "connect_failed",
            Self::Tls => "tls_failed",
            Self::TimedOut => "connect_timeout",
        }
    }
}

/// What finds the addresses of a name.
pub trait Resolve: Send + Sync + 'static {
    /// All of them.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's own way.
pub struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|a| a.ip()).collect()) })
    }
}

/// Where a URL leads.
#[derive(Debug, Clone)]
pub struct Target {
    host: Host,
    port: u16,
    tls: bool,
    /// What `host` says.
    pub authority: String,
    /// What is asked for.
    pub path: String,
}

impl Target {
    /// Reads a URL: by the web's own rules, so that `2130706433` and `0x7f.1` are the addresses they mean.
    ///
    /// # Errors
    /// [`Unreached::Url`].
    pub fn read(url: &str) -> Result<Self, Unreached> {
        let url = Url::parse(url).map_err(|_| Unreached::Url)?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Unreached::Url),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unreached::Url);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Err(Unreached::Url) };
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let path = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
        Ok(Self { host: host.to_owned(), port, tls, authority, path })
    }
}

/// Makes guarded connections.
pub struct Connector {
    allowed: Allowed,
    https_only: bool,
    within: Duration,
    resolver: Box<dyn Resolve>,
    tls: TlsConnector,
}

impl Connector {
    /// One that trusts the web's certificate authorities and asks the system for addresses. Proxies of the environment are not used.
    pub fn new(allowed: Allowed, https_only: bool, within: Duration) -> Self {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Self::with(allowed, https_only, within, Box::new(System), roots)
    }

    /// The same with another resolver and other authorities.
    pub fn with(allowed: Allowed, https_only: bool, within: Duration, resolver: Box<dyn Resolve>, roots: RootCertStore) -> Self {
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { allowed, https_only, within, resolver, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// A connection to where the URL leads.
    ///
    /// # Errors
    /// [`Unreached`].
    pub async fn connect(&self, target: &Target) -> Result<Line, Unreached> {
        if self.https_only && !target.tls {
            return Err(Unreached::Plain);
        }
        tokio::time::timeout(self.within, self.reach(target)).await.unwrap_or(Err(Unreached::TimedOut))
    }

    async fn reach(&self, target: &Target) -> Result<Line, Unreached> {
        let addresses = self.addresses(&target.host).await?;
        let mut stream = Err(Unreached::Refused);
        for address in addresses {
            if let Ok(reached) = TcpStream::connect(SocketAddr::new(address, target.port)).await {
                stream = Ok(reached);
                break;
            }
        }
        let stream = stream?;
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return Line::over(stream).await.map_err(|_| Unreached::Refused);
        }
        let name = match &target.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| Unreached::Url)?,
            Host::Ipv4(v4) => ServerName::IpAddress(IpAddr::from(*v4).into()),
            Host::Ipv6(v6) => ServerName::IpAddress(IpAddr::from(*v6).into()),
        };
        let stream = self.tls.connect(name, stream).await.map_err(|_| Unreached::Tls)?;
        Line::over(stream).await.map_err(|_| Unreached::Tls)
    }

    /// Asked once: what is connected to is what was checked. One forbidden address among others is refused with them: no receiver needs that.
    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Unreached> {
        let addresses = match host {
            Host::Ipv4(v4) => vec![IpAddr::from(*v4)],
            Host::Ipv6(v6) => vec![IpAddr::from(*v6)],
            Host::Domain(name) => self.resolver.resolve(name).await.map_err(|_| Unreached::Name)?,
        };
        if addresses.is_empty() {
            return Err(Unreached::Name);
        }
        if addresses.iter().any(|a| self.allowed.check(*a).is_err()) {
            return Err(Unreached::Forbidden);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests;
