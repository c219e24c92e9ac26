// Receiving: a message is stored, then shown, then confirmed to the server, which redelivers what was not confirmed.
// Facts: research/webpage.md 4.3 (events, also for own messages from other devices), 7 (what arrives while we were away is new too).
(function (sim) {
  const { MsgKey, createWid, account, messages, database, wire } = sim;
  const MEDIA = ['caption', 'mimetype', 'filename', 'directPath', 'filehash', 'size', 'duration'];

  /** Attributes of a model for the message `m` as it comes over the wire. */
  function attributes(m) {
    const remote = createWid(m.chat);
    const me = account.meIn(remote);
    const fromMe = !!m.fromMe;
    const author = fromMe ? me : createWid(m.author || m.from || m.chat);
    const participant = remote.isGroup() ? author : undefined;
    const made = {
      id: new MsgKey({ fromMe, remote, id: m.id, participant }),
      type: m.type || 'chat',
      body: m.body,
      t: m.t,
      from: fromMe ? me : remote,
      to: fromMe ? remote : me,
      author: participant,
      self: fromMe ? 'in' : undefined,
      ack: m.ack || 0,
      isNewMsg: true,
      notifyName: m.name,
    };
    for (const name of MEDIA) if (m[name] !== undefined) made[name] = m[name];
    if (m.quoted) Object.assign(made, { quotedStanzaID: m.quoted, quotedParticipant: m.quotedFrom ? createWid(m.quotedFrom) : undefined });
    if (m.directPath) Object.assign(made, { mediaKey: m.mediaKey || 'a2V5', mediaData: sim.media.describe(made, 'NEED_POKE') });
    return made;
  }

  /** A plain message. One that is stored already is confirmed again and not shown a second time. */
  async function store(m) {
    const made = attributes(m);
    try {
      await database.insert(sim.rows.toRow(made));
    } catch (e) {
      if (!(e instanceof database.DuplicateMessageError)) throw e;
      return;
    }
    const chat = sim.chats.of(made.id.remote);
    const [model] = await messages.processMultipleMessages(chat.id, [made]);
    chat.msgs.add(model);
    if (!m.fromMe) chat.unreadCount = (chat.unreadCount || 0) + 1;
    sim.chats.moved(chat, model);
  }

  /** How to take a message, by its type; the rest is stored as it is. */
  const kinds = {};

  async function take(m) {
    await (kinds[m.type] || store)(m);
    wire.tell({ op: 'got', ids: [m.id] });
  }

  // One after another: storing is asynchronous, and the order in which they came must stay.
  let line = Promise.resolve();
  wire.handlers.msg = ({ m }) => {
    line = line.then(() => take(m)).catch(sim.report);
  };

  sim.receive = { attributes, kinds };
})(window.__SIM);
