//! Names in Redis. Some are a public contract (streams); all keys of a tenant share one hash tag, so that a script may touch them together
//! in Redis Cluster too.

use contract::{HostId, Lane, SessionId, TenantId};
use crc::{CRC_16_XMODEM, Crc};

/// How many shards there are, for ever: the tag is part of every key.
const SHARDS: u16 = 512;
const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

pub const HOSTS: &str = "zg:hosts";
pub const BIRTH: &str = "zg:birth";
pub const WANTED: &str = "zg:wanted";

fn tag(tenant: TenantId) -> u16 {
    CRC.checksum(tenant.to_string().as_bytes()) % SHARDS
}

pub fn lease(tenant: TenantId, session: SessionId) -> String {
    format!("zg:{{{}}}:lease:{session}", tag(tenant))
}
pub fn lane(tenant: TenantId, session: SessionId, lane: Lane) -> String {
    format!("zg:{{{}}}:lane:{session}:{}", tag(tenant), lane.as_str())
}
pub fn qr(tenant: TenantId, session: SessionId) -> String {
    format!("zg:{{{}}}:qr:{session}", tag(tenant))
}
pub fn events(tenant: TenantId) -> String {
    format!("zg:{{{}}}:ev:{tenant}", tag(tenant))
}
pub fn firehose(tenant: TenantId) -> String {
    format!("zg:{{{}}}:firehose", tag(tenant))
}
pub fn wake(tenant: TenantId, session: SessionId) -> String {
    format!("zg:{{{}}}:wake:{session}", tag(tenant))
}
pub fn new_events(tenant: TenantId) -> String {
    format!("zg:{{{}}}:new:{tenant}", tag(tenant))
}
pub fn host(host: HostId) -> String {
    format!("zg:host:{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_tenant_share_one_tag() {
        let (tenant, session) = (TenantId::new(), SessionId::new());
        let tag = |key: String| key.split(['{', '}']).nth(1).unwrap().parse::<u16>().unwrap();
        let first = tag(lease(tenant, session));
        assert!(first < SHARDS);
        for key in [
            lane(tenant, session, Lane::Write),
            events(tenant),
            wake(tenant, session),
            new_events(tenant),
            qr(tenant, session),
            firehose(tenant),
        ] {
            assert_eq!(tag(key), first);
        }
    }
}
