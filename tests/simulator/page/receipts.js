// Acks. Facts: research/webpage.md 6.5: both ways are needed, the receipt function (which wa-js wraps) and the changed model.
(function (sim) {
  const { account, createWid, database, wire } = sim;
  const STRINGS = { 2: 'delivery', 3: 'read', 4: 'played' };

  /** Raises the ack of a message that is stored and not loaded. */
  async function raiseRow(chat, id, ack) {
    const forms = [chat, sim.contacts.getCurrentLid(chat), sim.contacts.getPhoneNumber(chat)].filter(Boolean);
    for (const form of new Set(forms.map(String))) {
      const tail = chat.isGroup() ? `_${account.lid}` : '';
      if (await database.change(`true_${form}_${id}${tail}`, (row) => ({ ack: Math.max(row.ack, ack) }))) return;
    }
  }

  async function raise(chat, id, ack) {
    const model = sim.loaded(true, id);
    if (model) model.updateAck(ack);
    else await raiseRow(chat, id, ack);
  }

  const handle = (receipt) => Promise.all(receipt.externalIds.map((id) => raise(receipt.from, id, receipt.ack)));

  wire.handlers.ack = ({ id, chat, ack, t, participant }) => {
    const from = createWid(chat);
    if (ack < 2) return sim.receive.inLine(() => raise(from, id, ack));
    const receipt = {
      ack,
      ackString: STRINGS[ack],
      from,
      recipient: undefined,
      participant: participant ? createWid(participant) : undefined,
      externalIds: [id],
      t,
    };
    const [module, name] = from.isGroup()
      ? ['WAWebHandleGroupChatReceipt', 'handleGroupSimpleReceipt']
      : ['WAWebHandleDirectChatReceipt', 'handleChatSimpleReceipt'];
    // Through the namespace, where wa-js has put its wrapper.
    sim.receive.inLine(() => sim.call(module, name, receipt));
  };

  sim.define('WAWebHandleDirectChatReceipt', () => ({ handleChatSimpleReceipt: handle }));
  sim.define('WAWebHandleGroupChatReceipt', () => ({ handleGroupSimpleReceipt: handle }));
  sim.define('WAWebHandleStatusReceipt', () => ({ handleStatusSimpleReceipt: handle }));
})(window.__SIM);
