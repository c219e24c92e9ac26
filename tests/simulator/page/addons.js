// What changes another message: reactions, edits, revocations, deletions. Facts: research/webpage.md 2 (h) and 6.5: one reaction has two
// sources that libraries listen to; a revocation passes through `processMultipleMessages` as a protocol entry.
(function (sim) {
  const { MsgKey, messages, wire, receive, rows, commands } = sim;
  const OK = { messageSendResult: 'OK' };

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
    const loaded = messages.findFirst((x) => x.id.id === m.target);
    if (loaded) return loaded;
    const stored = (await sim.database.rows()).find((row) => row.id.split('_')[2] === m.target);
    return stored && rows.revive(stored);
  }

  Object.assign(receive.kinds, {
    async reaction(m) {
      const about = await target(m);
      if (!about) return;
      const made = receive.attributes(m);
      const sender = (made.author || made.from).toString();
      const reaction = {
        id: made.id,
        msgKey: made.id.toString(),
        parentMsgKey: about.id.toString(),
        reactionParentKey: about.id,
        senderUserJid: sender,
        reactionText: m.body || '',
        orphan: 0,
        read: false,
        t: m.t,
        timestamp: m.t,
      };
      sim.call('WAWebReactionsMsgAction', 'addOrUpdateReactionsModelCollection', reaction, true);
      sim.reactionTableMode.bulkUpsert([reaction]);
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

  sim.reactionTableMode = { bulkUpsert() {} };
  sim.define('WAWebAddonReactionTableMode', () => ({ reactionTableMode: sim.reactionTableMode }));
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
