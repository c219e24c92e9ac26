// The rest of what the libraries reach for: simple collections, small answers, and every other known module as stubs.
// Facts: research/webpage.md 2 and 6.8: stubs come last, else one with a generic export name would be taken for the real thing.
(function (sim) {
  const { EventEmitter, contacts, chats, messages } = sim;
  const plain = {};
  const SIMPLE = 'Status TextStatus Label MsgInfo PinInChat QuickReply Mute Reactions BusinessProfile';
  for (const name of SIMPLE.split(' ')) {
    plain[name] = sim.plainCollection(name);
    // Only the singleton: an exported class would be taken for it.
    sim.define(`WAWeb${name}Collection`, () => ({ [`${name}Collection`]: plain[name] }));
  }
  const Newsletter = sim.plainCollection('Newsletter');
  sim.define('WAWebNewsletterCollection', () => ({ default: Newsletter }));

  class CallCollection extends EventEmitter {
    constructor() {
      super();
      this.calls = new Map();
    }
    get(id) {
      return this.calls.get(id);
    }
    add(call) {
      this.calls.set(call.id, call);
      return call;
    }
    processIncomingCall(call) {
      return this.add(call);
    }
    setActiveCall(call) {
      this.activeCall = call;
      this.trigger('change:activeCall', call);
    }
    getModelsArray() {
      return [...this.calls.values()];
    }
  }
  const calls = new CallCollection();
  sim.define('WAWebCallCollection', () => ({ default: calls }));

  sim.define('WAWebCollections', () => ({
    default: {
      ...plain,
      Msg: messages,
      Chat: chats.chats,
      Contact: contacts.contacts,
      Blocklist: contacts.Blocklist,
      ProfilePicThumb: contacts.ProfilePicThumb,
      Presence: window.require('WAWebPresenceCollection').PresenceCollection,
      Order: sim.plainCollection('Order'),
      StarredMsg: sim.plainCollection('StarredMsg'),
      WAWebGroupMetadataCollection: sim.groups.groups,
      WAWebNewsletterCollection: Newsletter,
      WAWebNewsletterMetadataCollection: sim.plainCollection('NewsletterMetadata'),
      WAWebCallCollection: calls,
    },
  }));

  sim.define('WAWebUpdaterVersion', () => ({ SANITIZED_VERSION_STR: sim.version }));
  sim.define('WAWebIsOfficialClient', () => ({ isOfficialClient: true }));
  sim.define('WAWebGetEphemeralFieldsMsgActionsUtils', () => ({ getEphemeralFields: () => ({}) }));
  sim.define('WAWebMsgReply', () => ({ canReplyMsg: () => true }));
  sim.define('WALinkify', () => ({ findLink: () => null, findLinks: () => [] }));
  sim.define('WAWebABProps', () => ({ getABPropConfigValue: () => 0 }));
  sim.define('WAWebFrontendVcardUtils', () => ({
    vcardFromContactModel: (c) => ({ vcard: `BEGIN:VCARD\nFN:${c.name || c.id.user}\nEND:VCARD`, displayName: c.name || c.id.user }),
  }));

  for (const id of Object.keys(window.__NAMES || {})) if (!sim.isDefined(id)) sim.define(id);
})(window.__SIM);
