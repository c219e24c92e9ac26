//! Which addresses a URL that callers gave may lead to: the public internet, and what the operator of a development installation lists.
//! Asked twice: of a literal when the URL is given, and of every address that its name resolves to, at every connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is out of reach, in words for the tenant: never what lives there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an address of the public internet")]
pub struct Forbidden(pub IpAddr);

/// An IPv4 network of a table.
const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(a, b, c, d), length)
}

/// What IANA's registry of special purposes keeps from the public internet, multicast, and what is reserved.
const FORBIDDEN_V4: [(Ipv4Addr, u8); 17] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    // Anycast relays of 6to4: gone, and not where anybody's endpoint is.
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    // Clouds' own services under public addresses: Azure's wire server, and metadata of Oracle and Alibaba (the latter inside 100.64.0.0/10).
    v4(168, 63, 129, 16, 32),
    v4(192, 0, 0, 192, 32),
];

/// Inside 2000::/3, but not the public internet: protocol assignments with Teredo and ORCHID, 6to4, documentation, segment routing.
const FORBIDDEN_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether an address is one of the public internet. IPv6 forms that carry an IPv4 address are judged by it.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !FORBIDDEN_V4.iter().any(|(net, length)| within(net.to_bits().into(), v4.to_bits().into(), 32 - length)),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(v4.into()),
            None => {
                let global = v6.segments()[0] & 0xe000 == 0x2000;
                global && !FORBIDDEN_V6.iter().any(|(net, length)| within(net.to_bits(), v6.to_bits(), 128 - length))
            }
        },
    }
}

/// Whether all but the last `host` bits agree.
const fn within(net: u128, address: u128, host: u8) -> bool {
    net >> host == address >> host
}

/// The IPv4 address that a mapped (`::ffff:0:0/96`) or translated (NAT64, `64:ff9b::/96`) one leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let carries = matches!([a, b, c, d, e, f], [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0]);
    carries.then(|| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// Ports below 1024 but those of HTTP, and those where databases, queues, caches and consoles listen: nothing there expects a webhook, and some
/// of it obeys whoever reaches it.
const REFUSED_PORTS: [u16; 26] = [
    1433, 1521, 2049, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5672, 5984, 6000, 6379, 6432, 6443, 7000, 9042, 9092, 9200, 9300,
    10250, 10255, 11211, 27017,
];

/// Whether webhooks do not call this port, wherever it is.
pub fn is_port_refused(port: u16) -> bool {
    port < 1024 && port != 80 && port != 443 || REFUSED_PORTS.contains(&port)
}

/// Networks that are not public and may be reached all the same: `WEBHOOK_ALLOW`, in development only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Vec<IpNet>);

/// Not a list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected comma-separated networks, as 127.0.0.0/8: {0:?} is none")]
pub struct BadNetwork(pub String);

impl std::str::FromStr for Allowed {
    type Err = BadNetwork;
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| {
            let single = |_| part.parse::<IpAddr>().map(IpNet::from);
            part.parse::<IpNet>().or_else(single).map_err(|_| BadNetwork(part.to_owned()))
        };
        parts.map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Allowed {
    /// Whether it lists anything. In production it must not.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses what is neither public nor listed.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let plain = match address {
            IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        if is_public(address) || self.0.iter().any(|net| net.contains(&plain)) { Ok(()) } else { Err(Forbidden(address)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_but_the_public_internet_is_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:10::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(inside)), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn what_is_listed_may_be_reached_however_it_is_written_and_nothing_beside_it() {
        let allowed: Allowed = "127.0.0.0/8, ::1".parse().unwrap();
        for good in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "1.1.1.1"] {
            assert_eq!(allowed.check(ip(good)), Ok(()), "{good}");
        }
        for bad in ["10.0.0.1", "::ffff:10.0.0.1", "::2", "169.254.169.254"] {
            assert_eq!(allowed.check(ip(bad)), Err(Forbidden(ip(bad))), "{bad}");
        }
        assert!(Allowed::default().is_empty() && Allowed::default().check(ip("127.0.0.1")).is_err());
    }

    #[test]
    fn a_list_that_is_none_names_the_part_that_is_wrong() {
        assert_eq!("".parse(), Ok(Allowed::default()));
        assert_eq!("127.0.0.0/8,home".parse::<Allowed>(), Err(BadNetwork("home".into())));
        assert_eq!("10.0.0.0/40".parse::<Allowed>(), Err(BadNetwork("10.0.0.0/40".into())));
    }
}
