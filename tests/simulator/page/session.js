// Socket, Stream, Conn, NetworkStatus: the state of the connection as the libraries read it.
// Facts: research/webpage.md 1.3 and 2; a lost connection leaves the mode at MAIN; `takeover` throws unless in conflict.
(function (sim) {
  const { BaseModel, defineModel, properties, account } = sim;
  const words = (text) => Object.fromEntries(text.split(' ').map((w) => [w, w]));
  const SOCKET_STATE = words(
    'OPENING PAIRING UNPAIRED UNPAIRED_IDLE CONNECTED CONFLICT UNLAUNCHED PROXYBLOCK TOS_BLOCK SMB_TOS_BLOCK SCREEN_LOCKED',
  );
  const SOCKET_STREAM = words('DISCONNECTED SYNCING RESUMING CONNECTED');
  const StreamMode = words('QR MAIN SYNCING OFFLINE CONFLICT PROXYBLOCK TOS_BLOCK SMB_TOS_BLOCK');
  const StreamInfo = words('OFFLINE OPENING PAIRING SYNCING RESUMING CONNECTING NORMAL');

  class SocketModel extends BaseModel {
    logout() {
      if (sim.wire.isOpen()) sim.wire.tell({ op: 'logout' });
      else sim.leave('user_initiated');
    }
    takeover() {
      if (this.state !== 'CONFLICT') throw new Error('takeover: the socket is not in conflict');
      sim.wire.takeOver();
    }
    reconnect() {
      sim.wire.connect();
    }
  }
  defineModel(SocketModel, { ...properties('hasSynced retryTimestamp'), state: 'UNLAUNCHED', stream: 'DISCONNECTED' });
  const Socket = new SocketModel();

  class NetworkStatus extends BaseModel {
    checkOnline() {
      this.online = navigator.onLine;
    }
    async waitIfOffline() {}
  }
  defineModel(NetworkStatus, { online: true });
  const network = new NetworkStatus({ online: navigator.onLine });
  for (const event of ['online', 'offline']) addEventListener(event, () => network.checkOnline());

  function mode() {
    const { state } = Socket;
    if (!account.isRegistered() || state === 'UNPAIRED' || state === 'UNPAIRED_IDLE') return 'QR';
    if (state === 'CONFLICT') return 'CONFLICT';
    return Socket.hasSynced && state !== 'UNLAUNCHED' ? 'MAIN' : 'SYNCING';
  }

  function info() {
    const { state, hasSynced } = Socket;
    if (state === 'OPENING') return network.online ? 'OPENING' : 'OFFLINE';
    if (state === 'PAIRING') return hasSynced ? 'RESUMING' : 'PAIRING';
    if (state === 'CONNECTED') return hasSynced ? 'NORMAL' : 'SYNCING';
    return 'NORMAL';
  }

  class StreamModel extends BaseModel {
    initialize() {
      Socket.on('change:state change:stream change:hasSynced', () => this.recalculate());
      network.on('change:online', () => this.recalculate());
      this.on('change:available', () => sim.wire.tell({ op: 'presence', available: this.available }));
      this.recalculate();
    }
    recalculate() {
      const now = info();
      this.set({ mode: mode(), info: now, displayInfo: now });
    }
    markAvailable() {
      this.available = true;
    }
    markUnavailable() {
      this.available = false;
    }
  }
  defineModel(StreamModel, { info: 'NORMAL', mode: 'SYNCING', displayInfo: 'NORMAL', needsUpdate: undefined, available: false });

  class ConnModel extends BaseModel {}
  defineModel(ConnModel, { ...properties('ref refTTL wid connected platform pushname battery phone'), id: '1', isSMB: false });
  const Conn = new ConnModel();
  const Stream = new StreamModel();

  /** Conn says who we are. The last `ref` stays: whatsapp-web.js would show a change of it as one more code. */
  function identify() {
    Conn.set({ wid: account.mePn(), pushname: account.pushname, platform: 'android', connected: true });
    Stream.recalculate();
  }
  if (account.isRegistered()) identify();

  sim.session = {
    Socket,
    Stream,
    Conn,
    network,
    identify,
    connecting() {
      Socket.state = 'OPENING';
    },
    disconnected() {
      // After a conflict the page waits for the user; a page without a device stays where its code is.
      if (Socket.state === 'CONFLICT') return;
      Socket.set({ stream: 'DISCONNECTED', state: 'OPENING' });
    },
  };
  sim.define('WAWebSocketModel', () => ({ Socket }));
  sim.define('WAWebSocketConstants', () => ({ SOCKET_STATE, SOCKET_STREAM }));
  sim.define('WAWebStreamModel', () => ({ Stream, StreamMode, StreamInfo }));
  sim.define('WAWebConnModel', () => ({ Conn }));
  sim.define('WAWebNetworkStatus', () => ({ default: network }));
  sim.define('WAWebOfflineHandler', () => ({ OfflineMessageHandler: { getOfflineDeliveryProgress: () => 100 } }));
})(window.__SIM);
