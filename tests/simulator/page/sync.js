// Being taken in by the server. Facts: research/webpage.md 1.3 and 6.4: CONNECTED and SYNCING first; `hasSynced` flips well after
// `Debug.VERSION`, because whatsapp-web.js only hears the change and never asks.
(function (sim) {
  const { account, session, wire } = sim;
  const { Socket } = session;

  function synced() {
    if (Socket.state !== 'CONNECTED' || Socket.hasSynced) return; // lost again: the next `sync` sees to it
    Socket.set({ stream: 'CONNECTED', hasSynced: true });
    sim.commands.mainLoaded();
  }

  wire.handlers.sync = (m) => {
    if (m.me)
      account.adopt({ ...account.credentials(), ...(typeof m.me === 'string' ? { me: m.me, lid: m.lid, pushname: m.pushname } : m.me) });
    account.lidMigrated = !!m.lidMigrated;
    account.lidChats = new Set((m.lidChats || []).map((c) => c.phone));
    account.connectedOnce = true;
    session.identify();
    sim.contacts.pair(account.me, account.lid);
    for (const contact of m.contacts || []) sim.contacts.keep(contact);
    for (const group of m.groups || []) sim.groups.apply(group);
    Socket.set({ state: 'CONNECTED', stream: Socket.hasSynced ? 'CONNECTED' : 'SYNCING' });
    wire.taken();
    sim.commands.Cmd.trigger('offline_progress_update_from_bridge', 100);
    if (Socket.hasSynced) return;
    const earliest = sim.versionShownAt + (sim.syncedAfterMs ?? 1300);
    // What came with the link is stored first.
    setTimeout(() => sim.receive.inLine(synced), Math.max(m.delayMs || 0, earliest - performance.now()));
  };
})(window.__SIM);
