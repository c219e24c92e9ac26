// Cmd and the backend bus, and the ends of a session that they announce. Facts: research/webpage.md 4.5: profile `current` has
// neither `isMainLoaded` nor `main_loaded` nor `logout`, only the events of the bridge; 1.3: a logout ends in a new document.
(function (sim) {
  const { EventEmitter } = sim;
  const legacy = sim.profile === 'legacy';

  class CmdImpl extends EventEmitter {
    constructor() {
      super();
      if (legacy) this.isMainLoaded = false;
    }
    setActiveFilter() {}
    openChatBottom() {}
  }
  if (legacy) CmdImpl.prototype.refreshQR = () => sim.link.refresh();
  const Cmd = new CmdImpl();

  class Bus extends EventEmitter {}
  const BackendEventBus = new Bus();

  /** The main screen is there. */
  function mainLoaded() {
    if (legacy && !Cmd.isMainLoaded) {
      Cmd.isMainLoaded = true;
      Cmd.trigger('main_loaded');
    }
    Cmd.trigger('initial_load_ready_from_bridge');
    Cmd.trigger('main_stream_mode_ready_from_bridge');
    BackendEventBus.trigger('main_stream_mode_ready');
  }

  // The numbers are ours: the page's table of reasons is not among the facts we have.
  const LOGOUT_REASON_CODE = { user_initiated: 0, unknown_companion: 1, device_removed: 2, account_locked: 3, storage: 4 };
  const LogoutReason = Object.fromEntries(Object.keys(LOGOUT_REASON_CODE).map((r) => [r, r]));

  let leaving = false;
  /** Logged out, from whichever side: tells, erases everything, and loads the page anew. */
  sim.leave = async (reason) => {
    if (leaving) return;
    leaving = true;
    sim.wire.end();
    // Through the namespace: wa-js listens by wrapping this export.
    const code = sim.call('WAWebLogoutReason', 'getErrorCodeFromLogoutReason', reason);
    Cmd.trigger('starting_logout_from_bridge', reason);
    if (legacy) Cmd.trigger('logout');
    BackendEventBus.trigger('logout');
    Cmd.trigger('logout_from_bridge', reason);
    sim.account.forget();
    await sim.database.erase();
    location.href = `/?post_logout=1&logout_reason=${code}`;
  };

  Object.assign(sim.wire.handlers, {
    loggedout: (m) => void sim.leave(m.reason || 'user_initiated'),
    conflict() {
      sim.session.Socket.set({ state: 'CONFLICT', stream: 'DISCONNECTED' });
      sim.wire.end();
      sim.screen.ask('WhatsApp is open in another window. Click "Use here" to use WhatsApp in this window.', 'Use here', () =>
        sim.session.Socket.takeover(),
      );
    },
    ban(m) {
      Cmd.trigger('account_temporarily_banned_from_bridge', { expireInSeconds: m.seconds });
      sim.screen.say('This account is temporarily banned.');
    },
    /** As when the browser's user erases the site's data. */
    async wipe() {
      sim.wire.end();
      localStorage.clear();
      await sim.database.erase();
      location.href = '/';
    },
    /** The main thread stands still. */
    hang(m) {
      const until = performance.now() + m.ms;
      while (performance.now() < until);
    },
    unavailable: () => void Cmd.trigger('service_unavailable_503_from_bridge'),
    update() {
      sim.session.Stream.needsUpdate = true;
    },
  });

  sim.commands = { Cmd, BackendEventBus, mainLoaded };
  sim.define('WAWebCmd', () => ({ Cmd, CmdImpl }));
  sim.define('WAWebBackendEventBus', () => ({ BackendEvent: {}, BackendEventBus }));
  sim.define('WAWebLogoutReason', () => ({ getErrorCodeFromLogoutReason: (reason) => LOGOUT_REASON_CODE[reason] ?? 9 }));
  sim.define('WAWebLogoutReasonConstants', () => ({ LogoutReason, LOGOUT_REASON_CODE }));
})(window.__SIM);
