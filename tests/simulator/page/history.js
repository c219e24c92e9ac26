// Older messages: what is stored and not loaded is found here. Facts: research/webpage.md 4.2 (history) and 1.1 (`getSearchContext` with
// one parameter is the object form).
(function (sim) {
  const { ChatMessages, rows, wire } = sim;

  /** A collection that fills with what the rows hold of the message looked for. */
  function getSearchContext(wanted) {
    const collection = new ChatMessages();
    collection.loadAroundPromise = rows
      .load(String(wanted.msgKey.id instanceof sim.MsgKey ? wanted.msgKey.id : wanted.msgKey))
      .then((found) => {
        if (found) collection.add(found);
      });
    return { collection };
  }

  /** Plain messages of the anchor's chat before or after it. */
  async function msgFindByDirection({ anchor, count, direction }) {
    const stored = await rows.ofChat(anchor.remote);
    const at = stored.findIndex((row) => row.id === anchor.toString());
    const some = Math.min(count, stored.length);
    const range = direction === 'after' ? [at + 1, at + 1 + some] : [Math.max(0, at - some), Math.max(0, at)];
    return { status: 200, messages: stored.slice(...range).map((row) => rows.revive(row).serialize()) };
  }

  async function loadEarlierMsgs(argument) {
    const chat = argument.chat || argument;
    const before = new Set(chat.msgs.map((m) => m.id.toString()));
    const stored = await rows.ofChat(chat.id);
    return stored.filter((row) => !before.has(row.id)).map(rows.revive);
  }

  /** Asks the phone for what it has of a chat; whatsapp-web.js does so with type 3. */
  async function sendPeerDataOperationRequest(type, { chatId }) {
    const { msgs } = await wire.ask({ op: 'history', chat: chatId.toString() });
    for (const m of msgs) await sim.receive.store(m, false);
  }

  sim.define('WAWebSendNonMessageDataRequest', () => ({ sendPeerDataOperationRequest }));
  sim.define('WAWebChatMessageSearch', () => ({ getSearchContext }));
  sim.define('WAWebChatLoadMessages', () => ({ loadEarlierMsgs }));
  sim.define('WAWebDBMessageFindLocal', () => ({
    msgFindByDirection,
    msgFindBefore: (o) => msgFindByDirection({ ...o, direction: 'before' }),
    msgFindAfter: (o) => msgFindByDirection({ ...o, direction: 'after' }),
    msgFindCallLog: async () => [],
  }));
})(window.__SIM);
