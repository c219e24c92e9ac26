// The phone's past, which it hands over after linking. Facts: research/webpage.md 1.3 and 4.2: it comes in chunks beside the work, its
// messages are not new, and a model of its own says how far it is (`getHistorySyncProgress` of wa-js). What the model says after a
// restart is not among the facts we have: here it starts anew without a number.
(function (sim) {
  const { BaseModel, defineModel, database, wire, receive } = sim;

  class HistorySyncProgressModel extends BaseModel {
    setProgress(progress) {
      this.set({ realProgress: progress, fakeProgress: progress, inProgress: progress < 100 });
    }
    setInProgress(inProgress) {
      this.inProgress = inProgress;
    }
    setPaused() {}
    setIncomplete(incomplete) {
      this.incomplete = incomplete;
    }
  }
  defineModel(HistorySyncProgressModel, {
    ...sim.properties('remainingPausedSeconds'),
    id: 'history-sync-progress',
    incomplete: false,
    inProgress: false,
    realProgress: null,
    fakeProgress: 0,
  });
  const progress = new HistorySyncProgressModel();

  /** Rows in one transaction; of the models only the last of each chat, as at a start. */
  async function store({ chats, msgs }) {
    const made = msgs.map((m) => receive.attributes(m, false));
    const fresh = new Set(await database.insertNew(made.map(sim.rows.toRow)));
    const newest = new Map();
    for (const m of made.filter((one) => fresh.has(one.id.toString()))) newest.set(m.id.remote.toString(), m);
    for (const { id, unread, t } of chats) {
      const chat = sim.chats.of(sim.chats.current(sim.createWid(id)));
      chat.set({ unreadCount: unread, t: Math.max(t || 0, chat.lastReceivedKey ? chat.t : 0), createdLocally: false });
      sim.chats.save(chat);
    }
    for (const [id, m] of newest) {
      const chat = sim.chats.of(sim.chats.current(sim.createWid(id)));
      const last = chat.lastReceivedKey && sim.messages.get(chat.lastReceivedKey);
      if (last && last.t > m.t) continue;
      await sim.rows.load(m.id.toString());
      sim.chats.moved(chat, m);
    }
  }

  wire.handlers.history = (m) =>
    receive.inLine(async () => {
      await store(m);
      wire.tell({ op: 'got.history', chunk: m.chunk });
      progress.setProgress(m.progress);
    });

  sim.define('WAWebHistorySyncProgressModel', () => ({ HistorySyncProgressModel, getHistorySyncProgressModel: () => progress }));
})(window.__SIM);
