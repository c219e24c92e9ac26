// Chats. Facts: research/webpage.md 2: every chat carries a `presence` with `subscribe`, else wa-js throws at its start; 2.1: after the
// migration to hidden ids a chat asked for by phone number is the one under the hidden id.
(function (sim) {
  const { BaseModel, BaseCollection, defineModel, properties, createWid, account, database } = sim;

  class Chat extends BaseModel {
    initialize() {
      this.msgs = new sim.ChatMessages();
      this.msgs.msgLoadState = { noEarlierMsgs: true };
    }
    get contact() {
      return sim.contacts.contacts.gadd(this.id);
    }
    get presence() {
      return sim.presence.of(this.id);
    }
    get formattedTitle() {
      return this.name || this.contact.name || this.id.user;
    }
    get isParentGroup() {
      return false;
    }
  }
  const noMute = () => ({ expiration: 0, isMuted: false, serialize: () => ({ expiration: 0 }) });
  defineModel(
    Chat,
    {
      ...properties('id t name archive pin isReadOnly muteExpiration lastReceivedKey labels groupMetadata newsletterMetadata'),
      ...properties('active createdLocally ephemeralDuration notSpam'),
      unreadCount: 0,
      mute: noMute,
    },
    'chat',
  );

  class ChatCollectionImpl extends BaseCollection {
    getActive() {
      return this.findFirst((c) => c.active);
    }
  }
  ChatCollectionImpl.model = Chat;
  const chats = new ChatCollectionImpl();

  const save = (chat) =>
    database
      .put('chat', {
        id: chat.id.toString(),
        t: chat.t,
        name: chat.name,
        unreadCount: chat.unreadCount,
        archive: chat.archive,
        pin: chat.pin,
        lastReceivedKey: chat.lastReceivedKey && chat.lastReceivedKey.toString(),
      })
      .catch(sim.report);

  /** The chat with this id, made if it is not there. */
  function of(wid) {
    const known = chats.get(wid);
    if (known) return known;
    const made = chats.add({ id: createWid(String(wid)), t: sim.now(), createdLocally: true })[0];
    save(made);
    return made;
  }

  /** A chat has a new last message. */
  function moved(chat, message) {
    chat.set({ t: message.t, lastReceivedKey: message.id, createdLocally: false });
    save(chat);
  }

  /** As the database has them, before the server is asked for anything. */
  async function restore() {
    for (const row of await database.chats()) {
      const lastReceivedKey = row.lastReceivedKey && sim.MsgKey.fromString(row.lastReceivedKey);
      chats.add({ ...row, id: createWid(row.id), lastReceivedKey });
      // The last message is loaded with its chat, the others when somebody asks.
      if (row.lastReceivedKey) await sim.rows.load(row.lastReceivedKey);
    }
  }

  /** The id under which the page keeps a chat asked for by `wid`: the hidden one where it moved there, else the form that it has. */
  function current(wid) {
    if (!wid.isUser()) return wid;
    const phone = sim.contacts.getPhoneNumber(wid);
    const latest = phone && sim.contacts.getCurrentLid(phone);
    if (latest && (account.lidMigrated || account.lidChats.has(String(phone)))) return wid.isLid() ? wid : latest;
    const other = sim.contacts.getAlternateUserWid(wid);
    return !chats.get(wid) && other && chats.get(other) ? other : wid;
  }

  /** A chat takes another id: the old entry goes, the new one has what it had. Messages keep their keys. */
  async function move(from, to) {
    const old = chats.get(from);
    if (!old) return;
    const made = of(to);
    const { t, name, unreadCount, archive, pin, lastReceivedKey } = old;
    made.set({ t, name, unreadCount, archive, pin, lastReceivedKey, createdLocally: false });
    made.msgs.add(old.msgs.getModelsArray());
    chats.remove(old);
    save(made);
    await database.removeFrom('chat', String(from));
  }

  sim.chats = { chats, of, moved, save, restore, move, current };
  sim.define('WAWebChatModel', () => ({ Chat }));
  sim.define('WAWebChatCollection', () => ({ ChatCollectionImpl, ChatCollection: chats }));
  sim.define('WAWebFindChatAction', () => ({
    async findOrCreateLatestChat(wid) {
      const id = current(wid);
      const created = !chats.get(id);
      return { chat: of(id), created };
    },
    findExistingChat: async (wid) => chats.get(current(wid)),
  }));
})(window.__SIM);
