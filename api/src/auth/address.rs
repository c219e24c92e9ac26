//! Where a request came from. A header says so only where a proxy of ours wrote it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Once},
};

use axum::extract::ConnectInfo;
use http::{HeaderMap, request::Parts};
use ipnet::IpNet;
use lambda_http::request::RequestContext;

use crate::state::AppState;

/// Said once a process: behind a proxy that is not named, all callers have one address, and its limits.
static UNTRUSTED: Once = Once::new();

/// Networks whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Reads `TRUSTED_PROXIES`: addresses and networks, comma-separated.
    ///
    /// # Errors
    /// What is neither.
    pub fn read(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts.map(network).collect::<Result<Arc<[IpNet]>, _>>().map(Self)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// The caller's address: that of the connection, or, while that is a trusted proxy's, what the proxy says in front of it.
    fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let said = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        let mut address = canonical(peer);
        if !self.trusts(address) && headers.contains_key("x-forwarded-for") {
            UNTRUSTED.call_once(|| {
                tracing::warn!(%address, "X-Forwarded-For from an address that TRUSTED_PROXIES does not name is not believed");
            });
        }
        // Each proxy appends whom it heard: from the right, as far as trust goes.
        for hop in said.collect::<Vec<_>>().into_iter().rev() {
            if !self.trusts(address) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(next) => address = canonical(next),
                Err(_) => break,
            }
        }
        address
    }
}

/// An address or a network.
///
/// # Errors
/// What it is not.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("expected addresses or networks like 10.0.0.0/8, not {text}"))
}

/// `::ffff:10.0.0.1` is `10.0.0.1`.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Where the request came from. `None`: nobody knows.
pub fn client(parts: &Parts, app: &AppState) -> Option<IpAddr> {
    let headers = &parts.headers;
    let peer = match parts.extensions.get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV2(c)) => c.http.source_ip.as_deref().and_then(|ip| ip.parse().ok()),
        Some(RequestContext::ApiGatewayV1(c)) => c.identity.source_ip.as_deref().and_then(|ip| ip.parse().ok()),
        // A load balancer names nobody else, and appends whom it heard.
        Some(RequestContext::Alb(_)) => {
            let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|v| v.to_str().ok());
            last.and_then(|v| v.rsplit(',').next()).and_then(|ip| ip.trim().parse().ok())
        }
        Some(_) => None,
        None => parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
    };
    peer.map(|peer| app.proxies.caller(peer, headers))
}

/// What a limit counts by: who has one IPv6 address has its whole /64.
pub fn bucket(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(proxies: &str, peer: &str, forwarded: &[&str]) -> String {
        let headers = forwarded.iter().map(|v| (http::HeaderName::from_static("x-forwarded-for"), v.parse().unwrap())).collect();
        TrustedProxies::read(proxies).unwrap().caller(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_header_of_somebody_who_is_no_proxy_of_ours_is_not_believed() {
        assert_eq!(caller("", "192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
        assert_eq!(caller("10.0.0.0/8", "192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
    }

    #[test]
    fn behind_proxies_the_last_hop_that_is_not_ours_called_and_what_stands_before_it_is_made_up() {
        assert_eq!(caller("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 203.0.113.7"]), "203.0.113.7");
        assert_eq!(caller("10.0.0.0/8", "::ffff:10.0.0.1", &["6.6.6.6", "203.0.113.7, 10.1.1.1"]), "203.0.113.7");
        assert_eq!(caller("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, nonsense"]), "10.0.0.1");
        assert_eq!(caller("10.0.0.1", "10.0.0.1", &[]), "10.0.0.1");
        assert!(TrustedProxies::read("10.0.0.0/99").is_err());
    }

    #[test]
    fn an_ipv6_neighbour_shares_the_bucket() {
        let of = |text: &str| bucket(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
