// What changes another message: reactions, edits, revocations, deletions. Facts: research/webpage.md 2 (h) and 6.5: one reaction has two
// sources that libraries listen to; a revocation passes through `processMultipleMessages` as a protocol entry.
(function (sim) {
  const { MsgKey, messages, wire, receive, rows, commands } = sim;
  const OK = { messageSendResult: 'OK' };
  /** whatsapp-web.js puts its wrapper on this object. */
  const reactionTableMode = { bulkUpsert() {} };

  const send = async (m, type, more) =>
    wire.askPatiently({
      op: 'send',
      m: { id: await MsgKey.newId(), chat: m.id.remote.toString(), type, target: m.id.id, t: sim.now(), ...more },
    });

  const revoked = (m) => {
    m.set({ type: 'revoked', body: undefined, caption: undefined });
    return rows.save(m);
  };
  const edited = (m, body, key) => {
    m.set({ body, latestEditMsgKey: key });
    return rows.save(m);
  };

  async function sendReactionToMsg(m, text) {
    await send(m, 'reaction', { body: text });
    m.set({ hasReaction: !!text });
    return OK;
  }

  async function addAndSendMessageEdit(m, raw) {
    await wire.askPatiently({
      op: 'send',
      m: { id: raw.id.id, chat: m.id.remote.toString(), type: 'edit', target: m.id.id, body: raw.body, t: raw.t },
    });
    await edited(m, raw.body, raw.latestEditMsgKey || raw.id);
    return OK;
  }

  Object.assign(Object.getPrototypeOf(commands.Cmd), {
    async sendRevokeMsgs(chat, { list }) {
      for (const m of list) {
        await send(m, 'revoke');
        await revoked(m);
      }
    },
    async sendDeleteMsgs(chat, { list }) {
      for (const m of list) {
        chat.msgs.remove(m);
        messages.remove(m);
        await sim.database.remove(m.id.toString());
      }
    },
  });

  /** The message that an incoming change is about; from the rows if it is not loaded. */
  async function target(m) {
    const loaded = sim.loaded(true, m.target) || sim.loaded(false, m.target);
    if (loaded) return loaded;
    const stored = (await rows.ofChat(sim.createWid(m.chat))).find((row) => row.id.split('_')[2] === m.target);
    return stored && rows.revive(stored);
  }

  Object.assign(receive.kinds, {
    async reaction(m) {
      const about = await target(m);
      if (!about) return;
      const made = receive.attributes(m);
      const sender = made.author || made.from;
      const common = { reactionText: m.body || '', orphan: 0, read: false };
      // wa-js hears the first, whatsapp-web.js the second; each in its own shape.
      sim.call(
        'WAWebReactionsMsgAction',
        'addOrUpdateReactionsModelCollection',
        { ...common, msgKey: made.id.toString(), parentMsgKey: about.id.toString(), senderUserJid: sender.toString(), t: m.t },
        true,
      );
      reactionTableMode.bulkUpsert([
        { ...common, id: made.id, reactionParentKey: about.id, from: made.from, author: sender, reactionTimestamp: m.t * 1000 },
      ]);
      about.set({ hasReaction: !!m.body });
      await rows.save(about);
    },
    async edit(m) {
      const about = await target(m);
      if (about) await edited(about, m.body, receive.attributes(m).id);
    },
    async revoke(m) {
      const about = await target(m);
      if (!about) return;
      const entry = { ...receive.attributes(m), type: 'protocol', subtype: 'sender_revoke', protocolMessageKey: about.id };
      await messages.processMultipleMessages(about.id.remote, [entry]);
      await revoked(about);
    },
  });

  sim.define('WAWebAddonReactionTableMode', () => ({ reactionTableMode }));
  sim.define('WAWebAddonPollVoteTableMode', () => ({ pollVoteTableMode: { bulkUpsert() {} } }));
  sim.define('WAWebReactionsMsgAction', () => ({ addOrUpdateReactionsModelCollection: async () => {} }));
  sim.define('WAWebSendReactionMsgAction', () => ({ sendReactionToMsg }));
  sim.define('WAWebSendMessageEditAction', () => ({
    addAndSendMessageEdit,
    sendMessageEdit: async (m, body) =>
      addAndSendMessageEdit(m, { id: new MsgKey({ fromMe: true, remote: m.id.remote, id: await MsgKey.newId() }), body, t: sim.now() }),
  }));
  sim.define('WAWebMsgActionCapability', () => ({
    canEditText: (m) => m.id.fromMe && m.type === 'chat',
    canEditCaption: () => false,
    canSenderRevokeMsg: (m) => m.id.fromMe,
    canAdminRevokeMsg: () => false,
    canStarMsg: () => true,
  }));
})(window.__SIM);
