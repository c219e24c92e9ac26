// Receiving: a message is stored, then shown, then confirmed to the server, which redelivers what was not confirmed.
// Facts: research/webpage.md 4.3 (events, also for own messages from other devices), 7 (what arrives while we were away is new too).
(function (sim) {
  const { MsgKey, createWid, account, messages, database, wire } = sim;
  const MEDIA = ['caption', 'mimetype', 'filename', 'directPath', 'filehash', 'size', 'duration'];

  /** What a reply carries of the message that it quotes: `id` is the id part. */
  function quotation(id, remote) {
    const quoted = sim.loaded(true, id) || sim.loaded(false, id);
    const participant = quoted && (quoted.id.fromMe ? account.mePn() : quoted.author || quoted.from);
    return { quotedStanzaID: id, quotedParticipant: participant || remote, quotedMsg: quoted && { type: quoted.type, body: quoted.body } };
  }

  /** Attributes of a model for the message `m` as it comes over the wire. */
  function attributes(m, isNewMsg = true) {
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
      isNewMsg,
      notifyName: m.name,
    };
    for (const name of MEDIA) if (m[name] !== undefined) made[name] = m[name];
    if (m.quoted) Object.assign(made, quotation(m.quoted, remote));
    if (m.directPath) Object.assign(made, { mediaKey: m.mediaKey || 'a2V5', mediaData: sim.media.describe(made, 'NEED_POKE') });
    return made;
  }

  /** A plain message. One that is stored already is confirmed again and not shown a second time. */
  async function store(m, isNewMsg = true) {
    const made = attributes(m, isNewMsg);
    try {
      await database.insert(sim.rows.toRow(made));
    } catch (e) {
      if (!(e instanceof database.DuplicateMessageError)) throw e;
      return;
    }
    const chat = sim.chats.of(made.id.remote);
    const [model] = await messages.processMultipleMessages(chat.id, [made]);
    chat.msgs.add(model);
    if (!isNewMsg) return;
    if (!m.fromMe) chat.unreadCount = (chat.unreadCount || 0) + 1;
    sim.chats.moved(chat, model);
  }

  /** How to take a message, by its type; the rest is stored as it is. */
  const kinds = {};

  async function take(m) {
    if (kinds[m.type]) await kinds[m.type](m);
    else await store(m);
    wire.tell({ op: 'got', ids: [m.id] });
  }

  // One after another, receipts too: storing is asynchronous, and the order in which they came must stay.
  let line = Promise.resolve();
  function inLine(work) {
    line = line.then(work).catch(sim.report);
  }
  wire.handlers.msg = ({ m }) => inLine(() => take(m));

  sim.receive = { attributes, store, kinds, inLine };
})(window.__SIM);
