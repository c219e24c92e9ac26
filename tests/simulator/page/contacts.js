// People: contacts, their two ids (phone number and hidden id), whether a number exists, pictures, blocking.
// Facts: research/webpage.md 2 (i) and 2.1: a contact may be met under either id, and the page maps one to the other.
(function (sim) {
  const { BaseModel, BaseCollection, defineModel, properties, createWid, account, wire } = sim;

  class Contact extends BaseModel {}
  defineModel(Contact, properties('id name pushname shortName type isBusiness isContactBlocked phoneNumber lid verifiedName'), 'contact');

  class ContactCollectionImpl extends BaseCollection {
    getMeContact() {
      return this.gadd(account.mePn());
    }
  }
  ContactCollectionImpl.model = Contact;
  const contacts = new ContactCollectionImpl();

  const lidOf = new Map();
  const phoneOf = new Map();
  /** A number that moved to another hidden id: the former still leads to the number, the number leads to the latter alone. */
  function pair(phone, lid) {
    if (!phone || !lid) return;
    lidOf.set(String(phone), createWid(String(lid)));
    phoneOf.set(String(lid), createWid(String(phone)));
  }
  const getCurrentLid = (wid) => (wid.isLid() ? wid : lidOf.get(String(wid)) || null);
  const getPhoneNumber = (wid) => (wid.isLid() ? phoneOf.get(String(wid)) || null : wid);
  const getAlternateUserWid = (wid) => (wid.isLid() ? getPhoneNumber(wid) : getCurrentLid(wid));

  const getLatestLid = (wid) => lidOf.get(String(getPhoneNumber(wid))) || getCurrentLid(wid);
  const getPnIfLidIsLatestMapping = (lid) => {
    const phone = getPhoneNumber(lid);
    return phone && lid.equals(getCurrentLid(phone)) ? phone : null;
  };

  /** A contact as the server or our own database tells it: `{id, lid, name, pushname}`. Without a name it is not in the address book. */
  function learn(c) {
    pair(c.id, c.lid);
    const saved = c.name ?? undefined;
    const both = { name: saved, shortName: saved, pushname: c.pushname, type: saved ? 'in' : 'out' };
    const phone = c.id ? createWid(c.id) : undefined;
    const lid = c.lid ? createWid(c.lid) : undefined;
    if (phone) contacts.add({ ...both, id: phone, lid, phoneNumber: phone }, { merge: true });
    if (lid) contacts.add({ ...both, id: lid, lid, phoneNumber: phone }, { merge: true });
  }

  async function queryWidExists(wid) {
    const found = await wire.ask({ op: 'exists', wid: wid.toString() });
    if (!found.wid) return null;
    pair(found.wid, found.lid);
    return { wid: createWid(found.wid), biz: false, lid: found.lid ? createWid(found.lid) : undefined };
  }

  const Blocklist = sim.plainCollection('Blocklist');
  const picture = (wid) => `${location.origin}/pictures/${encodeURIComponent(String(wid.id || wid))}`;
  const ProfilePicThumb = sim.plainCollection('ProfilePicThumb', 'eurl img imgFull tag');
  ProfilePicThumb.constructor.prototype.fetch = async (id) => {
    const url = picture(id);
    return { id, eurl: url, img: url, imgFull: url, tag: '1' };
  };

  async function blockContact({ contact }) {
    await wire.ask({ op: 'block', wid: contact.id.toString() });
    Blocklist.add({ id: contact.id });
    contact.isContactBlocked = true;
  }
  async function unblockContact(target) {
    Blocklist.remove((target.contact || target).id);
  }

  /** Also kept, so that a restart knows it. */
  function keep(contact) {
    learn(contact);
    sim.database.put('contact', contact).catch(sim.report);
  }
  wire.handlers.contact = (m) => keep(m.contact);

  sim.contacts = { contacts, Blocklist, ProfilePicThumb, learn, keep, pair, getCurrentLid, getPhoneNumber, getAlternateUserWid };
  sim.define('WAWebContactModel', () => ({ default: Contact }));
  sim.define('WAWebContactCollection', () => ({ ContactCollectionImpl, ContactCollection: contacts }));
  sim.define('WAWebApiContact', () => ({
    lidPnCache: {
      getCurrentLid,
      getPhoneNumber,
      getLidEntry: (lid) => (phoneOf.has(String(lid)) ? { lid, phoneNumber: phoneOf.get(String(lid)), phoneNumberCreatedAt: 0 } : undefined),
      getAllLids: () => [...phoneOf.keys()].map(createWid),
    },
    getCurrentLid,
    getLatestLid,
    getPhoneNumber,
    getPnIfLidIsLatestMapping,
    getAlternateUserWid,
    getMeUserWids: () => [account.mePn(), account.meLid()].filter(Boolean),
  }));
  sim.define('WAWebQueryExistsJob', () => ({ queryWidExists, queryPhoneExists: async () => null }));
  sim.define('WAWebBlocklistCollection', () => ({ BlocklistCollection: Blocklist }));
  sim.define('WAWebProfilePicThumbCollection', () => ({ ProfilePicThumbCollection: ProfilePicThumb }));
  sim.define('WAWebBlockContactAction', () => ({ blockContact, unblockContact }));
  sim.define('WAWebContactProfilePicThumbBridge', () => ({
    requestProfilePicFromServer: async (wid) => ({ eurl: picture(wid) }),
    sendSetPicture: async () => ({ status: 200 }),
    requestDeletePicture: async () => ({ status: 200 }),
  }));
})(window.__SIM);
