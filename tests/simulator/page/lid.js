// Hidden ids: which form a chat has, and chats that move from one to the other. Facts: research/webpage.md 2.1: a chat asked for by phone
// number may come back under the hidden id. Whether the page rewrites the keys of stored messages then is not among the facts we have:
// `rekey` chooses, and by itself they stay.
(function (sim) {
  const { account, contacts, chats, database, messages, createWid, wire, receive } = sim;

  /** The same message under another form of its chat, and of us. */
  function other(row, to) {
    const [fromMe, , id, ...rest] = row.id.split('_');
    const me = String(account.meIn(to));
    const mine = fromMe === 'true';
    return { ...row, id: [fromMe, to, id, ...rest].join('_'), chat: String(to), from: mine ? me : String(to), to: mine ? String(to) : me };
  }

  async function rewrite(from, to) {
    const rows = (await database.rowsOf(String(from))).map((before) => ({ before, after: other(before, to) }));
    await database.rekey(rows);
    const chat = chats.chats.get(to);
    for (const { before, after } of rows) {
      const loaded = messages.get(before.id);
      if (!loaded) continue;
      messages.remove(loaded);
      if (chat) chat.msgs.remove(loaded);
      const again = sim.rows.revive(after);
      if (chat && String(chat.lastReceivedKey) === before.id) chats.moved(chat, again);
    }
  }

  async function flip(phone, lid, toLid, rekey) {
    const [from, to] = toLid ? [phone, lid] : [lid, phone];
    if (!chats.chats.get(from)) return;
    await chats.move(from, to);
    if (rekey) await rewrite(from, to);
  }

  wire.handlers.flip = ({ phone, lid, toLid, rekey }) =>
    receive.inLine(async () => {
      if (toLid) account.lidChats.add(phone);
      else account.lidChats.delete(phone);
      await flip(createWid(phone), createWid(lid), toLid, rekey);
    });

  wire.handlers.lidmigrated = ({ migrated, rekey }) =>
    receive.inLine(async () => {
      account.lidMigrated = migrated;
      for (const { id } of chats.chats.getModelsArray()) {
        const pair = id.isUser() && [contacts.getPhoneNumber(id), contacts.getCurrentLid(id)];
        if (pair && pair[0] && pair[1] && id.isLid() !== migrated) await flip(...pair, migrated, rekey);
      }
    });

  const orThrow = (wid, what) => {
    if (!wid) throw new Error(`no ${what} is known`);
    return wid;
  };
  const toPn = (wid) => (wid.isLid() ? contacts.getPhoneNumber(wid) : wid);
  const toLid = (wid) => contacts.getCurrentLid(wid);

  function getAlternateMsgKey(key) {
    const remote = contacts.getAlternateUserWid(key.remote);
    return remote ? new sim.MsgKey({ fromMe: key.fromMe, remote, id: key.id, participant: key.participant }) : null;
  }

  sim.define('WAWebLid1X1MigrationGating', () => ({
    Lid1X1MigrationUtils: {
      isLidMigrated: () => account.lidMigrated,
      isSyncdSessionMigrated: () => account.lidMigrated,
      shouldApplyNonMigratedMessagingRules: () => false,
    },
  }));
  sim.define('WAWebLidMigrationUtils', () => ({
    toPn,
    toLid,
    toUserLid: toLid,
    toUserLidOrThrow: (wid) => orThrow(toLid(wid), 'hidden id'),
    toPnOrThrow: (wid) => orThrow(toPn(wid), 'phone number'),
    shouldHaveAccountLid: (wid) => wid.isUser() && account.lidMigrated,
    chatIsLid: (chat) => chat.id.isLid(),
    getMeUserLidOrJidForChat: (chat) => account.meIn(chat.id),
    getAlternateMsgKey,
  }));
  sim.define('WAWebGetChatRecordByAccountLid', () => ({
    getChatRecordByAccountLid: async (lid) => chats.chats.get(lid) || chats.chats.get(contacts.getPhoneNumber(lid) || lid) || null,
  }));
  sim.define('WAWebDBCreateLidPnMappings', () => ({
    createLidPnMappings: async ({ mappings }) => {
      for (const { lid, pn } of mappings) contacts.pair(pn, lid);
    },
  }));
})(window.__SIM);
