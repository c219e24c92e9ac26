// The connection to the simulator's server: JSON frames, requests answered by number, reconnect with growing pauses.
// This is our own wire; the page's real one is not imitated.
(function (sim) {
  const FIRST_PAUSE_MS = 250;
  const MAX_PAUSE_MS = 5000;
  /** What the server may say: event name -> function. Filled in by the other files. */
  const handlers = {};
  const waiting = new Map();
  const queue = [];
  let socket = null;
  let number = 0;
  let pause = FIRST_PAUSE_MS;
  let timer = 0;
  let stopped = false;
  /** Whether the server has taken us in, so that queued requests may go. */
  let ready = false;
  /** Whether the next connection takes the account back from another browser. */
  let takingOver = false;

  const isOpen = () => !!socket && socket.readyState === WebSocket.OPEN;

  /** Without an answer. Lost while there is no connection. */
  function tell(frame) {
    if (isOpen()) socket.send(JSON.stringify(frame));
  }

  function issue({ frame, done, fail }) {
    const n = ++number;
    waiting.set(n, { done, fail });
    socket.send(JSON.stringify({ ...frame, n }));
  }

  const refuse = (code) => Object.assign(new Error(code), { code });

  /** With an answer. Fails at once without a connection, and with code `lost` if the connection ends before the answer. */
  const ask = (frame) =>
    new Promise((done, fail) => {
      if (isOpen()) issue({ frame, done, fail });
      else fail(refuse('offline'));
    });

  /** As `ask`, but waits for a connection that has been taken in. Written once, never again: an answer that is lost stays lost. */
  const askPatiently = (frame) =>
    new Promise((done, fail) => {
      if (ready && isOpen()) issue({ frame, done, fail });
      else queue.push(() => issue({ frame, done, fail }));
    });

  /** As `tell`, but waits for a connection that has been taken in. */
  function tellPatiently(frame) {
    if (ready && isOpen()) tell(frame);
    else queue.push(() => tell(frame));
  }

  /** The server has taken us in. */
  function taken() {
    ready = true;
    pause = FIRST_PAUSE_MS;
    for (const write of queue.splice(0)) write();
  }

  handlers.res = (m) => {
    const request = waiting.get(m.n);
    waiting.delete(m.n);
    if (!request) return;
    if (m.error) request.fail(refuse(m.error));
    else request.done(m);
  };

  function lost(mine) {
    if (mine !== socket) return;
    socket = null;
    ready = false;
    for (const request of waiting.values()) request.fail(refuse('lost'));
    waiting.clear();
    if (stopped) return;
    sim.session.disconnected();
    timer = setTimeout(connect, pause);
    pause = Math.min(pause * 2, MAX_PAUSE_MS);
  }

  function connect() {
    clearTimeout(timer);
    stopped = false;
    if (socket || !navigator.onLine) return;
    sim.session.connecting();
    const mine = new WebSocket(`wss://${location.host}/ws/chat`);
    socket = mine;
    mine.onopen = () => {
      const { device } = sim.account;
      tell({ op: 'hello', creds: device ? { device } : null, takeover: takingOver });
      takingOver = false;
      tellStrays();
    };
    mine.onmessage = (e) => {
      if (mine !== socket) return;
      const m = JSON.parse(e.data);
      if (handlers[m.ev]) handlers[m.ev](m);
      else console.warn('the simulator page does not know the event', m.ev);
    };
    mine.onclose = () => lost(mine);
  }

  /** Drops the present connection; reconnects after a pause unless `end`ed. */
  function drop() {
    const mine = socket;
    if (!mine) return;
    mine.close();
    lost(mine); // the close handshake may never come back on a dead network
  }

  function end() {
    stopped = true;
    clearTimeout(timer);
    drop();
  }

  function takeOver() {
    takingOver = true;
    connect();
  }

  function tellStrays() {
    if (isOpen()) for (const stray of sim.untold.splice(0)) tell({ op: 'stray', ...stray });
  }
  sim.tellStrays = tellStrays;

  addEventListener('offline', drop);
  addEventListener('online', () => {
    if (!stopped) connect();
  });

  sim.wire = { handlers, tell, tellPatiently, ask, askPatiently, taken, connect, takeOver, end, isOpen };
})(window.__SIM);
