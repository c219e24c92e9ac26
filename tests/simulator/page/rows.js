// Messages as stored rows, and back. Facts: research/webpage.md 4.4: ids, times and acks lie open, the body does not (the page encrypts
// it; here it is bytes under `msgRowOpaqueData`, so that nobody reads it by accident); models are made from rows on demand.
(function (sim) {
  const { MsgKey, createWid, database } = sim;
  const OPEN = ['t', 'type', 'subtype', 'ack', 'star'];
  const WIDS = ['from', 'to', 'author'];
  const HIDDEN = [
    ...['body', 'caption', 'notifyName', 'title', 'isForwarded', 'isViewOnce', 'hasReaction', 'quotedStanzaID', 'quotedMsg'],
    ...['mimetype', 'directPath', 'mediaKey', 'mediaKeyTimestamp', 'filehash', 'encFilehash', 'size', 'duration', 'filename'],
    ...['pollName', 'pollOptions', 'pollSelectableOptionsCount'],
  ];
  const HIDDEN_WIDS = ['quotedParticipant', 'quotedRemoteJid'];
  const HIDDEN_KEYS = ['latestEditMsgKey'];

  const pick = (from, names, shape = (x) => x) => {
    const picked = {};
    for (const name of names) if (from[name] !== undefined && from[name] !== null) picked[name] = shape(from[name]);
    return picked;
  };

  const seal = (m) => ({
    _data: new TextEncoder().encode(
      JSON.stringify({
        ...pick(m, HIDDEN),
        ...pick(m, [...HIDDEN_WIDS, ...HIDDEN_KEYS], String),
        mentionedJidList: (m.mentionedJidList || []).map(String),
      }),
    ).buffer,
  });
  const unseal = (row) => JSON.parse(new TextDecoder().decode(row.msgRowOpaqueData._data));

  /** The row of a message, model or plain attributes. */
  const toRow = (m) => ({
    id: m.id.toString(),
    ...pick(m, OPEN),
    ...pick(m, WIDS, String),
    chat: m.id.remote.toString(),
    msgRowOpaqueData: seal(m),
  });

  function toAttributes(row) {
    const hidden = unseal(row);
    const attributes = {
      id: MsgKey.fromString(row.id),
      ...pick(row, OPEN),
      ...pick(row, WIDS, createWid),
      ...pick(hidden, HIDDEN),
      ...pick(hidden, HIDDEN_WIDS, createWid),
      ...pick(hidden, HIDDEN_KEYS, MsgKey.fromString),
      mentionedJidList: hidden.mentionedJidList.map(createWid),
      isNewMsg: false,
    };
    if (attributes.directPath) attributes.mediaData = sim.media.describe(attributes, 'NEED_POKE');
    return attributes;
  }

  /** The model of a stored row, in the collections from here on. */
  function revive(row) {
    const model = sim.messages.get(row.id) || sim.messages.add(toAttributes(row))[0];
    sim.chats.of(sim.chats.current(model.id.remote)).msgs.add(model);
    return model;
  }

  sim.rows = {
    toRow,
    revive,
    /** Rewrites what a changed model says of itself; its ack only grows, its row number stays. */
    save: (m) => database.change(m.id.toString(), (row) => ({ ...toRow(m), ack: Math.max(row.ack, m.ack || 0) })),
    async load(id) {
      const known = sim.messages.get(id);
      if (known) return known;
      const row = await database.row(id);
      return row && revive(row);
    },
    /** The stored rows of a chat, oldest first, under both ids of a person. What came with the history has the higher row numbers. */
    async ofChat(chat) {
      const forms = [chat, chat.isUser() && sim.contacts.getAlternateUserWid(chat)].filter(Boolean);
      const rows = await Promise.all(forms.map((form) => database.rowsOf(form.toString())));
      return rows.flat().sort((a, b) => a.t - b.t || a.rowId - b.rowId);
    },
  };
})(window.__SIM);
