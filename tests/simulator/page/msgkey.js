// Keys of messages: `fromMe_remote_id[_out][_participant]`. Facts: research/webpage.md 2.1 and 4.4: since 2.3000.1042401057 the string is
// kept in the field `$1` (profile `current`), before that in `_serialized` (profile `legacy`). wa-js reads the source of `toString`.
(function (sim) {
  const { Wid, createWidFromWidLike, account } = sim;

  function fill(key, o) {
    if (o.from && o.to && o.id) {
      if (!account.me) throw new Error('MsgKey error: me is unknown');
      key.fromMe = account.isMe(o.from);
      key.remote = key.fromMe ? o.to : o.from;
    } else {
      key.fromMe = o.fromMe;
      key.remote = o.remote;
    }
    if (!(key.remote instanceof Wid)) throw new Error('MsgKey error: something is not a wid');
    key.id = o.id;
    if (o.participant) key.participant = o.participant;
    return [key.fromMe, key.remote, key.id, ...(key.participant ? [key.participant] : [])].join('_');
  }

  class MsgKey {
    constructor(o) {
      if (!o) throw new Error('MsgKey error: obj is null/undefined');
      this.$1 = fill(this, o);
    }
    toString() {
      return this.$1;
    }
  }

  class LegacyMsgKey {
    constructor(o) {
      if (!o) throw new Error('MsgKey error: obj is null/undefined');
      this._serialized = fill(this, o);
    }
    toString() {
      return this._serialized;
    }
  }

  const Key = sim.profile === 'legacy' ? LegacyMsgKey : MsgKey;
  Object.defineProperty(Key, 'name', { value: 'MsgKey' });
  Key.prototype.clone = function () {
    return new Key({ fromMe: this.fromMe, remote: this.remote, id: this.id, participant: this.participant });
  };
  Key.prototype.equals = function (other) {
    return other instanceof Key && other.toString() === this.toString();
  };

  function parse(text) {
    const parts = text.split('_');
    const direction = parts[3] === 'in' || parts[3] === 'out';
    return { fromMe: parts[0] === 'true', remote: parts[1], id: parts[2], participant: direction ? parts[4] : parts[3] };
  }

  Key.from = (source) => {
    if (source instanceof Key) return source;
    const o = typeof source === 'string' ? parse(source) : source;
    const participant = o.participant ? createWidFromWidLike(o.participant) : undefined;
    return new Key({ fromMe: o.fromMe, remote: createWidFromWidLike(o.remote), id: o.id, participant });
  };
  Key.fromString = (text) => {
    if (text === null || text === undefined) throw new Error('MsgKey.fromString error');
    return Key.from(text);
  };

  const randomHex = (bytes) =>
    Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, '0'))
      .join('')
      .toUpperCase();
  Key.newId = async () => `3EB0${randomHex(9)}`;
  Key.newId_DEPRECATED = () => `3EB0${randomHex(8)}`;

  sim.MsgKey = Key;
  sim.randomHex = randomHex;
  sim.now = () => Math.floor(Date.now() / 1000);
  sim.define('WAWebMsgKey', () => ({ default: Key }));
  sim.define('WARandomHex', () => ({ randomHex }));
  sim.define('WATimeUtils', () => ({ unixTime: sim.now, unixTimeMs: () => Date.now() }));
})(window.__SIM);
