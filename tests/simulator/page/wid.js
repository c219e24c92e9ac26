// Ids of people, groups and lists. Facts: research/webpage.md 2 (`WAWebWid`, `WAWebWidFactory`): cached instances, `_serialized` stays on
// a Wid in every version, `@s.whatsapp.net` becomes `@c.us`, JSON is the string.
(function (sim) {
  const USERS = ['c.us', 'lid', 'bot', 'hosted', 'hosted.lid'];
  const SHAPE = /^([^@:]+)(?::(\d+))?@(.+)$/;
  const KNOWN = /^[^@:]+(:\d+)?@(c\.us|s\.whatsapp\.net|lid|g\.us|broadcast|newsletter|bot)$/;
  const no = () => false;

  class Wid {
    constructor(text, options) {
      if (!options || !options.intentionallyUsePrivateConstructor) throw new Error('wid error: use the factory');
      const parts = SHAPE.exec(text);
      if (!parts) throw new Error(`wid error: invalid wid ${text}`);
      this.server = parts[3] === 's.whatsapp.net' ? 'c.us' : parts[3];
      this.user = parts[1];
      if (Number(parts[2])) this.device = Number(parts[2]);
      this._serialized = `${this.user}${this.device ? `:${this.device}` : ''}@${this.server}`;
    }
    toString(options) {
      return options && options.legacy && this.server === 'c.us' ? this._serialized.replace('@c.us', '@s.whatsapp.net') : this._serialized;
    }
    toJSON() {
      return this.toString();
    }
    toJid() {
      return this.toString({ legacy: true });
    }
    toLogString() {
      return '…';
    }
    getDeviceId() {
      return this.device || 0;
    }
    equals(other) {
      return other instanceof Wid && other.toString() === this.toString();
    }
    isLessThan(other) {
      return String(this) < String(other);
    }
    isGreaterThan(other) {
      return String(this) > String(other);
    }
    isUser() {
      return USERS.includes(this.server);
    }
    isLid() {
      return this.server === 'lid';
    }
    isGroup() {
      return this.server === 'g.us';
    }
    isBroadcast() {
      return this.server === 'broadcast';
    }
    isBroadcastList() {
      return this.isBroadcast() && !this.isStatus();
    }
    isStatus() {
      return this.user === 'status' && this.server === 'broadcast';
    }
    isNewsletter() {
      return this.server === 'newsletter';
    }
    isBot() {
      return this.server === 'bot';
    }
    isFbidBot() {
      return this.server === 'bot';
    }
    isPSA() {
      return this.user === '0' && this.server === 'c.us';
    }
    isRegularUser() {
      return this.isUser() && !this.isPSA() && !this.isBot();
    }
    isRegularUserPn() {
      return this.isRegularUser() && !this.isLid();
    }
    isUserNotPSA() {
      return this.isUser() && !this.isPSA();
    }
    isEligibleForUSync() {
      return this.isUser() && !this.isPSA();
    }
    isCompanion() {
      return !!this.device;
    }
    isSameAccountAndAddressingMode(other) {
      return other.user === this.user && other.server === this.server;
    }
  }
  // Kinds of accounts that this world does not have.
  for (const name of 'isPnBot isIAS isServer isHosted isHostedLid isSupportAccount isCAPISupportAccount isGroupCall isOfficialBizAccount'.split(
    ' ',
  )) {
    Wid.prototype[name] = no;
  }

  const isXWid = (server, wid) => (typeof wid === 'string' ? wid.split('@')[1] === server : wid instanceof Wid && wid.server === server);
  Object.assign(Wid, {
    isXWid,
    isUser: (w) => ['c.us', 's.whatsapp.net', 'lid', 'bot'].some((s) => isXWid(s, w)),
    isStringLid: (w) => isXWid('lid', w),
    isLid: (w) => isXWid('lid', w),
    isGroup: (w) => isXWid('g.us', w),
    isBroadcast: (w) => isXWid('broadcast', w),
    isNewsletter: (w) => isXWid('newsletter', w),
    isBot: (w) => isXWid('bot', w),
    isWid: (w) => w instanceof Wid || (typeof w === 'string' && KNOWN.test(w)),
    isStatus: (w) => String(w) === 'status@broadcast',
    isPSA: (w) => String(w) === '0@c.us',
    isServer: no,
    isGroupCall: no,
    equals: (a, b) => String(a) === String(b),
    user: (w) => String(w).split('@')[0],
  });

  const cache = new Map();
  function createWid(text) {
    if (text instanceof Wid) return text;
    if (typeof text !== 'string') throw new Error(`createWid: expected string, got ${typeof text}`);
    const id = text.replace('@s.whatsapp.net', '@c.us');
    if (!cache.has(id)) cache.set(id, new Wid(id, { intentionallyUsePrivateConstructor: true }));
    return cache.get(id);
  }
  const isWidlike = (w) => !!w && (Wid.isWid(w) || (typeof w === 'object' && Wid.isWid(w._serialized)));
  const createWidFromWidLike = (w) => (w instanceof Wid ? w : createWid(typeof w === 'string' ? w : w._serialized));
  const createUserWidOrThrow = (user, server) => createWid(user.includes('@') ? user : `${user}@${server || 'c.us'}`);
  function asUserWidOrThrow(wid) {
    if (!wid.isUser()) throw new Error('wid error: not a user');
    return wid.device ? createWid(`${wid.user}@${wid.server}`) : wid;
  }

  Object.assign(sim, { Wid, createWid, createWidFromWidLike });
  sim.define('WAWebWid', () => ({ default: Wid }));
  sim.define('WAWebWidFactory', () => ({
    createWid,
    isWidlike,
    createWidFromWidLike,
    asUserWidOrThrow,
    createUserWidOrThrow,
    asChatWid: (w) => w,
    createUserLidOrThrow: (user) => createUserWidOrThrow(user, 'lid'),
    asUserLidOrThrow: asUserWidOrThrow,
  }));
})(window.__SIM);
