// Read marks, typing, presence. Facts: research/webpage.md 2 (l) and 4.2.
(function (sim) {
  const { wire } = sim;
  const Presence = sim.plainCollection('Presence', 'isOnline isUser isGroup hasData chatstate');

  /** The presence of a chat; asking for it is a subscription. */
  function of(id) {
    const known = Presence.get(id);
    if (known) return known;
    const made = Presence.add({ id, isOnline: false, isUser: id.isUser(), isGroup: id.isGroup(), hasData: false, chatstate: {} })[0];
    Object.defineProperty(made, 'subscribe', { value: async () => wire.tell({ op: 'sub', chat: id.toString() }), enumerable: false });
    return made;
  }

  /** Takes the object form of newer pages and the positional one. */
  async function sendSeen(argument) {
    const chat = argument.chat || argument;
    const unread = chat.unreadCount || 0;
    chat.unreadCount = 0;
    sim.chats.save(chat);
    const theirs = (await sim.rows.ofChat(chat.id)).filter((row) => row.id.startsWith('false_'));
    const ids = unread > 0 ? theirs.slice(-unread).map((row) => row.id.split('_')[2]) : [];
    wire.tellPatiently({ op: 'read', chat: chat.id.toString(), ids });
  }

  const typing = (wid, state) => wire.tell({ op: 'typing', chat: wid.toString(), state });
  const available = (yes) => wire.tell({ op: 'presence', available: yes });

  sim.presence = { of };
  sim.define('WAWebPresenceCollection', () => ({ PresenceCollection: Presence }));
  sim.define('WAWebUpdateUnreadChatAction', () => ({ sendSeen, sendSeenDebounced: sendSeen, markUnread() {} }));
  sim.define('WAWebPresenceChatAction', () => ({
    markComposing: async (chat) => typing(chat.id, 'composing'),
    markPaused: async (chat) => typing(chat.id, 'paused'),
    markRecording: async (chat) => typing(chat.id, 'recording'),
    sendPresenceAvailable: async () => available(true),
    sendPresenceUnavailable: async () => available(false),
  }));
  sim.define('WAWebChatStateBridge', () => ({
    sendChatStateComposing: async (wid) => typing(wid, 'composing'),
    sendChatStatePaused: async (wid) => typing(wid, 'paused'),
    sendChatStateRecording: async (wid) => typing(wid, 'recording'),
  }));
})(window.__SIM);
