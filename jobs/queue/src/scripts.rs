//! Everything that Redis does in one step. Each owner's script compares the lease first: what is not ours changes nothing.

use std::sync::LazyLock;

use ::redis::Script;

/// KEYS lane; ARGV channel, lane's name, 1 = wake always, then score and member by turns. `NX`: late, double and repeated pushes are harmless.
pub static PUSH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local empty = redis.call('EXISTS', KEYS[1]) == 0
         for i = 4, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i + 1]) end
         if empty or ARGV[3] == '1' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
         return redis.status_reply('OK')",
    )
});

/// KEYS lease, lane; ARGV lease value, last index. Writes nothing: an entry stays until it is acked.
pub static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local lease = redis.call('GET', KEYS[1])
         if lease ~= ARGV[1] then return redis.error_reply(lease and 'FENCED another owner' or 'MISSING no lease') end
         return redis.call('ZRANGE', KEYS[2], 0, ARGV[2])",
    )
});

/// KEYS lease, lane; ARGV lease value, last index, job. Takes an entry away and answers what is next.
pub static ACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local lease = redis.call('GET', KEYS[1])
         if lease ~= ARGV[1] then return redis.error_reply(lease and 'FENCED another owner' or 'MISSING no lease') end
         redis.call('ZREM', KEYS[2], ARGV[3])
         return redis.call('ZRANGE', KEYS[2], 0, ARGV[2])",
    )
});

/// KEYS lease; ARGV expected value, new value, ttl in ms.
pub static CAS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
         return 1",
    )
});

/// KEYS lease; ARGV value, ttl in ms. 1 renewed, 2 the key was missing and is ours again, 0 another's. Sent as text: a pipelined EVALSHA
/// meets NOSCRIPT after a restart of Redis. `SET NX` is only asked for while our own deadline stands.
pub const RENEW: &str = "local v = redis.call('GET', KEYS[1]) \
     if v == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end \
     if v then return 0 end \
     redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) return 2";

/// KEYS lease; ARGV value.
pub static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('DEL', KEYS[1])",
    )
});

/// KEYS stream, firehose; ARGV most entries, channel, firehose entries, then seq, event id and body by turns, ascending. Appends what
/// follows the stream's tail without a gap, and answers the tail. The id of an entry is its seq: republishing changes nothing.
pub static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local tail = 0
         if redis.call('EXISTS', KEYS[1]) == 1 then
           local info = redis.call('XINFO', 'STREAM', KEYS[1])
           for i = 1, #info, 2 do
             if info[i] == 'last-generated-id' then tail = tonumber(string.match(info[i + 1], '^(%d+)')) end
           end
         end
         local appended = false
         for i = 4, #ARGV, 3 do
           local seq = tonumber(ARGV[i])
           if seq == tail + 1 then
             redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'id', ARGV[i + 1], 'event', ARGV[i + 2])
             redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'tenant', string.match(KEYS[1], '[^:]+$'), 'seq', ARGV[i], 'id', ARGV[i + 1])
             tail = seq
             appended = true
           end
         end
         if appended then redis.call('PUBLISH', ARGV[2], tail) end
         return tail",
    )
});

/// KEYS stream; ARGV the tail that was seen, then seq, event id and body of the first event. Begins the stream anew, where nobody has moved it.
pub static RESTART: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local tail = 0
         if redis.call('EXISTS', KEYS[1]) == 1 then
           local info = redis.call('XINFO', 'STREAM', KEYS[1])
           for i = 1, #info, 2 do
             if info[i] == 'last-generated-id' then tail = tonumber(string.match(info[i + 1], '^(%d+)')) end
           end
         end
         if tail ~= tonumber(ARGV[1]) then return tail end
         redis.call('DEL', KEYS[1])
         redis.call('XADD', KEYS[1], ARGV[2] .. '-0', 'id', ARGV[3], 'event', ARGV[4])
         return tonumber(ARGV[2])",
    )
});
