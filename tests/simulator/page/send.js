// Sending. Facts: research/webpage.md 4.4: the row is inserted first, and a known id fails there with DuplicateMessageError; the model
// stands at ack 0 until the server took the message; nothing is sent again by itself.
(function (sim) {
  const { Msg, messages, database, wire } = sim;
  const SendMsgResult = Object.fromEntries(
    'OK ERROR_NETWORK ERROR_EXPIRED ERROR_CANCELLED ERROR_UPLOAD ERROR_UNKNOWN'.split(' ').map((r) => [r, r]),
  );
  const MEDIA = ['caption', 'mimetype', 'filename', 'directPath', 'filehash', 'encFilehash', 'size', 'mediaKey', 'duration'];
  const EXTRA = ['pollName', 'pollOptions', 'pollSelectableOptionsCount', 'lat', 'lng', 'loc', 'vcardFormattedName'];

  function frame(m) {
    const sent = {
      id: m.id.id,
      chat: m.id.remote.toString(),
      type: m.type,
      body: m.body,
      t: m.t,
      quoted: m.quotedStanzaID,
      participant: m.id.participant && m.id.participant.toString(),
    };
    if (m.mentionedJidList && m.mentionedJidList.length) sent.mentions = m.mentionedJidList.map(String);
    for (const name of [...MEDIA, ...EXTRA]) if (m[name] !== undefined) sent[name] = m[name];
    return sent;
  }

  /** Settles when a message has been taken by the server, however we learn of it. */
  const acknowledged = (m) =>
    new Promise((done) => {
      const look = () => {
        if (m.ack === 0 || m.ack === undefined) return;
        m.off('change:ack', look);
        done({ messageSendResult: m.ack > 0 ? SendMsgResult.OK : SendMsgResult.ERROR_UNKNOWN, t: m.t, count: null });
      };
      m.on('change:ack', look);
      look();
    });

  /** Puts a stored message on the wire. Written once: if its answer is lost, only a receipt can still tell. */
  async function transmit(m) {
    try {
      const answer = await wire.askPatiently({ op: 'send', m: frame(m) });
      m.updateAck(1);
      return { messageSendResult: SendMsgResult.OK, t: answer.t, count: null };
    } catch (e) {
      if (e.code === 'lost') return acknowledged(m);
      m.updateAck(-1);
      return { messageSendResult: SendMsgResult.ERROR_UNKNOWN, t: m.t, count: null };
    }
  }

  /** Stores a new message of ours and shows it; refuses an id that is known. */
  async function keep(chat, data) {
    const m = data instanceof Msg ? data : new Msg(data);
    if (messages.get(m.id)) throw new database.DuplicateMessageError(m.id.toString());
    await database.insert(sim.rows.toRow(m));
    messages.add(m);
    chat.msgs.add(m);
    sim.chats.moved(chat, m);
    return m;
  }

  /** Two promises: the stored message, and what became of it. */
  function addAndSendMsgToChat(chat, data) {
    const kept = Promise.resolve(data).then((d) => keep(chat, d));
    const sent = kept.then(transmit);
    sent.catch(() => {}); // who takes only the first promise is told by that one
    return [kept, sent];
  }

  /** The page's own second try of a stored message, for one that has not been acknowledged. */
  function resendMsgToChat(chat, m) {
    if (m.ack === -1) m.ack = 0;
    return [Promise.resolve(m), transmit(m)];
  }

  sim.send = { keep, transmit, frame, SendMsgResult };
  sim.define('WAWebSendMsgChatAction', () => ({ addAndSendMsgToChat, resendMsgToChat }));
  sim.define('WAWebSendMsgResultAction', () => ({ SendMsgResult }));
})(window.__SIM);
