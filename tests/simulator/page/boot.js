// The page starts: opens its databases, shows its version, connects. Last file.
// Facts: research/webpage.md 1.1: `Debug.VERSION` is there late in the start; 7: a wiped database is a lost registration.
(function (sim) {
  const { account, database, wire } = sim;
  const BOOT_MS = 300;

  /** Chromium writes localStorage to disk seconds late, databases at once: the latter decide who we are. */
  async function settleRegistration() {
    const kept = await database.keys();
    if (kept) {
      account.adopt(kept);
      account.remember();
      sim.session.identify();
    } else if (account.isRegistered()) {
      account.forget();
      sim.session.Conn.set({ wid: undefined, pushname: undefined, connected: undefined });
      sim.session.Stream.recalculate();
    }
  }

  async function start() {
    await database.start();
    await settleRegistration();
    for (const contact of await database.contacts()) sim.contacts.learn(contact);
    sim.contacts.pair(account.me, account.lid);
    await sim.chats.restore();
    await new Promise((done) => setTimeout(done, BOOT_MS));
    window.Debug = { VERSION: sim.version };
    sim.versionShownAt = performance.now();
    wire.connect();
  }

  start().catch(sim.report);
})(window.__SIM);
