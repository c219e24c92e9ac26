//! All Lua, each with what makes it safe. Scripts that a full Redis must still run (take, ack, renew) allocate nothing.

use std::sync::LazyLock;

use redis::Script;

/// A script by its text, hashed once.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new($text));
    )*};
}

scripts! {
    /// Adds entries to a lane and wakes its owner. `NX`: a late or repeated push changes nothing. An owner that found the lane empty is
    /// woken by the push that ends that; a query lane has no such moment, because entries stay while they run.
    /// KEYS lane · ARGV channel, lane name, '1' = wake always, then position and id of each.
    PUSH = r"
local wake = ARGV[3] == '1' or redis.call('EXISTS', KEYS[1]) == 0
for i = 4, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i + 1]) end
if wake then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
return 1";

    /// Removes what has ended and answers the lane's first entries, if the lease is still ours: only its owner may clear or take.
    /// KEYS lease, lane · ARGV our value, index of the last entry to answer, then ids to remove.
    /// Answers {1, ids}; {0} the lease is another's; {-1} there is none.
    TAKE = r"
local holder = redis.call('GET', KEYS[1])
if not holder then return {-1, {}} end
if holder ~= ARGV[1] then return {0, {}} end
for i = 3, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end
return {1, redis.call('ZRANGE', KEYS[2], 0, ARGV[2])}";

    /// Shows a code, or with an empty one takes it away, if the lease is still ours: the code of a next owner is not touched. Wakes who waits
    /// for it.
    /// KEYS lease, qr · ARGV our value, code, ms it lasts, channel. Answers when a code was shown (ms), or 0.
    QR = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[4], '1') end
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('PUBLISH', ARGV[4], '1')
local t = redis.call('TIME')
return t[1] * 1000 + math.floor(t[2] / 1000)";

    /// Writes what only the owner may, for a while.
    /// KEYS lease, key · ARGV our value, bytes, ms it lasts.
    OWNED_SET = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1";

    /// Counts an attempt within a window that begins with the first.
    /// KEYS counter · ARGV window in ms. Answers {attempts, ms until they are forgotten}.
    COUNT = r"
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {n, redis.call('PTTL', KEYS[1])}";

    /// Takes one of so many in a window that begins with the first. Answers 0, or the ms until there is one again.
    /// KEYS counter · ARGV how many, ms of the window.
    LIMIT = r"
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if n <= tonumber(ARGV[1]) then return 0 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return tonumber(ARGV[2]) end
return left";

    /// Turns a claim into a lease, if the claim still stands.
    /// KEYS lease · ARGV old value, new value, TTL in ms.
    CAS = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

    /// Gives a lease up, if it is ours, and calls the hosts.
    /// KEYS lease · ARGV our value, channel, session.
    RELEASE = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1";

    /// A host lives: its time is Redis's, so that hosts' clocks need not agree. What has been silent for a day is forgotten.
    /// KEYS hosts · ARGV host.
    HEARTBEAT = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - 86400000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now - ARGV[2], '+inf')";

    /// Hosts whose last heartbeat is younger (ARGV[2] = '1') or older than so many ms, by the clock that stamped it.
    /// KEYS hosts · ARGV age in ms, '1' = younger.
    HOSTS = r"
local t = redis.call('TIME')
local edge = t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[1]
if ARGV[2] == '1' then return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. edge, '+inf') end
return redis.call('ZRANGEBYSCORE', KEYS[1], 0, edge)";

    /// For how many ms this Redis has remembered. One that has forgotten, is new, or took another's place, starts counting now.
    /// KEYS birth · ARGV which history of writes it is; a birth that names none is any history's.
    BIRTH = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local born, of = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) ?(.*)$')
if born and of == ARGV[1] then return now - born end
if not born or of ~= '' then born = now end
redis.call('SET', KEYS[1], born .. ' ' .. ARGV[1])
return now - born";

    /// Takes one from each bucket, or from none. A bucket that is not there is full; one that nobody touches for its whole time is forgotten.
    /// KEYS buckets · ARGV of each: how much it holds, ms in which it fills.
    /// Answers {1 = taken, {{left, ms until one more} of each}}.
    BUCKETS = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local taken, levels = 1, {}
for i = 1, #KEYS do
  local holds, fills = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local was = redis.call('HMGET', KEYS[i], 'n', 't')
  local level = holds
  if was[1] and was[2] then level = math.min(holds, tonumber(was[1]) + math.max(0, now - tonumber(was[2])) * holds / fills) end
  levels[i] = level
  if level < 1 then taken = 0 end
end
local answer = {}
for i = 1, #KEYS do
  local holds, fills = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local level = levels[i] - taken
  if taken == 1 then
    redis.call('HSET', KEYS[i], 'n', string.format('%.6f', level), 't', now)
    redis.call('PEXPIRE', KEYS[i], fills)
  end
  local whole = math.floor(level)
  local next = fills
  if holds > 0 then next = math.ceil((whole + 1 - level) * fills / holds) end
  answer[i] = {whole, next}
end
return {taken, answer}";

    /// Counts something that is held open, if fewer than so many are; something that is counted already is counted on.
    /// KEYS of the tenant, of the principal · ARGV id, ms it is counted, most of the tenant, most of the principal.
    HOLD = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[2 + i]) and not redis.call('ZSCORE', KEYS[i], ARGV[1]) then return 0 end
end
for i = 1, 2 do
  redis.call('ZADD', KEYS[i], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[i], math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[i])))
end
return 1";

    /// The ids of events in a stream, without what they say.
    /// KEYS stream · ARGV first seq, most entries. Answers {tail, {seq, id of each}}.
    IDS = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, {}} end
local info, tail, entries = redis.call('XINFO', 'STREAM', KEYS[1]), 0, {}
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then tail = tonumber(string.match(info[i + 1], '^(%d+)')) end
end
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])) do
  entries[i] = {tonumber(string.match(entry[1], '^(%d+)')), entry[2][2]}
end
return {tail, entries}";

    /// Appends events to a tenant's stream and the shard's firehose, in order and without a hole, and wakes the readers.
    ///
    /// The tail is the last id the stream was given, trimmed or deleted entries included; XINFO fails on a missing stream, which counts as 0.
    /// Each event says after which one it comes: the first by ARGV[2], the others by their neighbour. What the stream has is passed over, unless
    /// another event stands in its place: that ends the script before anything is written. The first that does not continue it ends the script. ARGV[3], where not empty, is the tail that the caller saw and wants to start over
    /// from: the stream is deleted only if nobody has appended since.
    /// The firehose is shared by tenants, so its ids are times that never go back. It is written only with an append: at least once. Bodies
    /// hold what people wrote: they are left out unless the operator wants them there.
    /// KEYS stream, firehose · ARGV channel, predecessor, seen tail or '', tenant, entries kept, '1' = bodies in the firehose, then seq, id,
    /// type, json of each.
    /// Answers {1 = all are in the stream, -1 = another event stands under one of the numbers, tail}.
    PUBLISH = r"
local function last_id(key)
  if redis.call('EXISTS', key) == 0 then return 0, 0 end
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local a, b = string.match(info[i + 1], '^(%d+)-(%d+)$')
      return tonumber(a), tonumber(b)
    end
  end
end
local tail = last_id(KEYS[1])
if ARGV[3] ~= '' then
  if tail ~= tonumber(ARGV[3]) then return {0, tail} end
  redis.call('DEL', KEYS[1])
  tail = 0
end
for i = 7, #ARGV, 4 do
  if tonumber(ARGV[i]) > tail then break end
  local there = redis.call('XRANGE', KEYS[1], ARGV[i] .. '-0', ARGV[i] .. '-0')[1]
  if there and there[2][2] ~= ARGV[i + 1] then return {-1, tail} end
end
local before, appended, whole = tonumber(ARGV[2]), false, 1
local t = redis.call('TIME')
local ms, n = last_id(KEYS[2])
for i = 7, #ARGV, 4 do
  local seq = tonumber(ARGV[i])
  if seq > tail then
    if tail ~= before then whole = 0 break end
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[i] .. '-0', 'id', ARGV[i + 1], 'e', ARGV[i + 3])
    local now = t[1] * 1000 + math.floor(t[2] / 1000)
    if now > ms then ms, n = now, 0 else n = n + 1 end
    local entry = {'tenant', ARGV[4], 'seq', ARGV[i], 'id', ARGV[i + 1], 'type', ARGV[i + 2]}
    if ARGV[6] == '1' then entry[9], entry[10] = 'e', ARGV[i + 3] end
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], string.format('%.0f-%.0f', ms, n), unpack(entry))
    tail, appended = seq, true
  end
  before = seq
end
if appended then redis.call('PUBLISH', ARGV[1], string.format('%.0f', tail)) end
return {whole, tail}";
}

/// Prolongs a lease, or takes it again where Redis has forgotten it and our deadline stands. Sent as text: in a pipeline a script known
/// only by its hash fails after a restart of Redis.
/// KEYS lease · ARGV our value, TTL in ms. Answers 1 prolonged, 2 taken again, 0 another's.
pub(crate) const RENEW: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end
if not holder then redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) return 2 end
return 0";
