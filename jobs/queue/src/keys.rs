//! Names in Redis. Those of streams are a public contract.
//!
//! All keys of a tenant carry the hash tag of its shard, so that a script may touch them together on a cluster.

use std::collections::HashSet;

use contract::{HostId, JobId, Lane, MediaId, SessionId, TenantId};
use crc::{CRC_16_XMODEM, Crc};
use uuid::Uuid;

use crate::redis::{QueueError, Redis};

/// Keys that one step of a search looks at.
const STEP: i64 = 500;

/// How many shard tags there are. Changing it renames every key.
pub const SHARDS: u16 = 512;

/// Hosts by the time of their last heartbeat (Redis's clock, milliseconds).
pub const HOSTS: &str = "zg:hosts";
/// When this Redis was first met (its clock, milliseconds).
pub const BIRTH: &str = "zg:birth";
/// How often something was attempted lately; `what` is a hash, because what it is made of is personal.
pub fn throttle(what: &str) -> String {
    format!("zg:throttle:{what}")
}
/// Channel: webhooks that the workers should look at.
pub const HOOKS: &str = "zg:hooks";
/// Channel: sessions that some host should look at.
pub const WANTED: &str = "zg:wanted";

/// A table that is made once.
static CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

fn tag(tenant: TenantId) -> String {
    format!("zg:{{{}}}", CRC.checksum(tenant.to_string().as_bytes()) % SHARDS)
}

/// Who owns a session, while it lives.
pub fn lease(tenant: TenantId, session: SessionId) -> String {
    format!("{}:lease:{session}", tag(tenant))
}

/// A lane's job ids by position.
pub fn lane(tenant: TenantId, session: SessionId, lane: Lane) -> String {
    format!("{}:lane:{session}:{}", tag(tenant), lane.as_str())
}

/// The code to scan, for as long as it can be scanned.
pub fn qr(tenant: TenantId, session: SessionId) -> String {
    format!("{}:qr:{session}", tag(tenant))
}

/// The code to type on the phone, of the job that asked for it, for as long as it can be typed.
pub fn pairing_code(tenant: TenantId, job: JobId) -> String {
    format!("{}:pair:{tenant}:{job}", tag(tenant))
}

/// A picture of a page, for a minute.
pub fn screenshot(tenant: TenantId, id: MediaId) -> String {
    format!("{}:shot:{tenant}:{id}", tag(tenant))
}

/// Channel: the session's code has changed.
pub fn code_wake(tenant: TenantId, session: SessionId) -> String {
    format!("{}:code:{session}", tag(tenant))
}

/// A tenant's events.
pub fn events(tenant: TenantId) -> String {
    format!("{}:ev:{tenant}", tag(tenant))
}

/// The operator's stream of all events of a shard.
pub fn firehose(tenant: TenantId) -> String {
    format!("{}:firehose", tag(tenant))
}

/// The pattern of [`events`].
pub(crate) const ANY_EVENTS: &str = "zg:{*}:ev:*";
/// The pattern of [`firehose`].
pub(crate) const ANY_FIREHOSE: &str = "zg:{*}:firehose";

/// The pattern of all keys that name a tenant: its stream, limits, codes to type, pictures.
pub(crate) fn any_of(tenant: TenantId) -> String {
    format!("zg:{{*}}:*:{tenant}*")
}

/// The keys of a pattern, of one type where that is said. Those that come or go meanwhile may be missed.
///
/// # Errors
/// [`QueueError`].
pub(crate) async fn found(redis: &Redis, pattern: &str, kind: Option<&str>) -> Result<HashSet<String>, QueueError> {
    let (mut cursor, mut keys) = (0_u64, HashSet::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
        if let Some(kind) = kind {
            scan.arg("TYPE").arg(kind);
        }
        let (next, some): (u64, Vec<String>) = scan.query_async(&mut redis.shared()).await?;
        keys.extend(some);
        if next == 0 {
            return Ok(keys);
        }
        cursor = next;
    }
}

/// Channel: a lane of the session has got work; the message names the lane.
pub fn wake(tenant: TenantId, session: SessionId) -> String {
    format!("{}:wake:{session}", tag(tenant))
}

/// Channel: the tenant's stream has grown; the message is its tail, or the JSON of an event that is in no stream.
pub fn new_events(tenant: TenantId) -> String {
    format!("{}:new:{tenant}", tag(tenant))
}

/// How much of a limit is left.
pub fn limit(tenant: TenantId, name: &str) -> String {
    format!("{}:limit:{tenant}:{name}", tag(tenant))
}

/// What a tenant, or one principal of it, holds open.
pub fn held(tenant: TenantId, what: &str, principal: Option<Uuid>) -> String {
    let whose = principal.map_or_else(String::new, |id| format!(":{id}"));
    format!("{}:held:{tenant}:{what}{whose}", tag(tenant))
}

/// What a host says of itself.
pub fn host(host: HostId) -> String {
    format!("zg:host:{host}")
}

/// The id that a key or channel ends with.
pub(crate) fn last_part<T: std::str::FromStr>(name: &str) -> Option<T> {
    name.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_tenant_share_the_tag_of_its_shard() {
        let (tenant, session) = (TenantId::new(), SessionId::new());
        let shard = tag(tenant);
        for key in [lease(tenant, session), qr(tenant, session), events(tenant), firehose(tenant), lane(tenant, session, Lane::Write)] {
            assert!(key.starts_with(&format!("{shard}:")), "{key}");
        }
        assert_eq!(last_part::<SessionId>(&wake(tenant, session)), Some(session));
        assert_eq!(last_part::<TenantId>(&new_events(tenant)), Some(tenant));
    }

    #[test]
    fn the_shard_of_a_tenant_never_changes() {
        let tenant: TenantId = "ten_00000000000000000000000000".parse().unwrap();
        assert_eq!(tag(tenant), "zg:{146}");
    }
}
