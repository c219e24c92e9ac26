// Linking: the QR code and the code for a phone number. Facts: research/webpage.md 1.3: refs come as a list, the page shows one after
// another, then goes idle until the user asks anew; the text has five parts; the drawn code lies under an element with `data-ref`.
(function (sim) {
  const { session, wire, account } = sim;
  const { Socket, Conn } = session;
  const DEVICE_PLATFORM = '1';

  const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)));
  const randomBytes = (n) => crypto.getRandomValues(new Uint8Array(n)).buffer;
  const noise = { pubKey: randomBytes(32) };
  const identity = { pubKey: randomBytes(32) };
  const advSecret = base64(randomBytes(32));

  const codeText = (ref) => [ref, base64(noise.pubKey), base64(identity.pubKey), advSecret, DEVICE_PLATFORM].join(',');

  const shown = () => document.querySelector('#app [data-ref]');

  function hide() {
    const element = shown();
    if (element) element.remove();
  }

  /** White border around it, as a scanner needs. */
  const QUIET = 4;
  const PIXELS = 5;

  /** Draws what a scanner reads. The server computes it: the page of today brings a library for that, this one does not. */
  async function draw(canvas, text) {
    const { side, modules } = await wire.ask({ op: 'qr', text });
    canvas.width = canvas.height = (side + 2 * QUIET) * PIXELS;
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = '#000';
    for (let n = 0; n < modules.length; n++) {
      if (modules[n] === '1') pen.fillRect((QUIET + (n % side)) * PIXELS, (QUIET + Math.floor(n / side)) * PIXELS, PIXELS, PIXELS);
    }
  }

  /** What a person would see: the code, or in the idle state a button that asks for a new one. */
  function show(ref) {
    hide();
    sim.screen.say('Scan to log in');
    const element = document.createElement('div');
    element.setAttribute('data-ref', codeText(ref));
    const canvas = element.appendChild(Object.assign(document.createElement('canvas'), { width: 100, height: 100 }));
    document.querySelector('#app').appendChild(element);
    draw(canvas, codeText(ref)).catch(() => {}); // the connection went away, and the code with it
  }

  function showIdle() {
    const element = shown();
    if (!element) return;
    const button = Object.assign(document.createElement('button'), { textContent: 'Reload' });
    button.addEventListener('click', refresh);
    element.appendChild(button);
  }

  function refresh() {
    wire.tell({ op: 'ref' });
  }

  Object.assign(wire.handlers, {
    ref(m) {
      if (account.isRegistered()) return;
      Conn.set({ ref: m.ref, refTTL: m.ttl });
      show(m.ref);
      Socket.state = 'UNPAIRED';
      wire.taken();
    },
    idle() {
      if (account.isRegistered()) return;
      showIdle();
      Socket.state = 'UNPAIRED_IDLE';
    },
    async paired({ creds }) {
      hide();
      sim.screen.say('Loading your chats');
      account.adopt(creds);
      account.remember();
      session.identify();
      Socket.state = 'PAIRING';
      await sim.database.saveKeys(account.credentials());
    },
  });

  /** How the linking by a phone number goes on. Names of the events: wa-js' own sources. */
  class LinkDeviceEvents extends sim.EventEmitter {
    triggerRefreshAltLinkingCode() {
      this.trigger('link_device_events:refresh_alt_linking_code');
    }
    triggerForceManualRefresh() {
      this.trigger('link_device_events:force_manual_refresh');
    }
    triggerPrimaryHelloReceived() {
      this.trigger('link_device_events:primary_hello_received');
    }
    triggerErrorAltLinking() {
      this.trigger('link_device_events:error_alt_linking');
    }
  }
  const events = new LinkDeviceEvents();
  wire.handlers.altlink = ({ what }) => {
    if (what === 'refresh') events.triggerRefreshAltLinkingCode();
    else if (what === 'manual') events.triggerForceManualRefresh();
    else if (what === 'primary_hello') events.triggerPrimaryHelloReceived();
    else events.triggerErrorAltLinking();
  };

  /** Eight characters, for the phone number `phone`. */
  async function codeFor(phone) {
    const { code } = await wire.ask({ op: 'altlink', phone: String(phone).replace(/\D/g, '') });
    sim.screen.say(`Enter code on phone: ${code.slice(0, 4)}-${code.slice(4)}`);
    return code;
  }

  sim.link = { refresh, advSecret };
  sim.define('WAWebAdvSignatureApi', () => ({ getADVSecretKey: () => advSecret, setADVSignedIdentity() {}, generateADVSecretKey() {} }));
  sim.define('WAWebSignalStoreApi', () => ({ waSignalStore: { getRegistrationInfo: async () => ({ identityKeyPair: identity }) } }));
  sim.define('WAWebUserPrefsInfoStore', () => ({ waNoiseInfo: { get: async () => ({ staticKeyPair: noise }) } }));
  sim.define('WAWebCompanionRegClientUtils', () => ({ DEVICE_PLATFORM, getCompanionWebClientFromBrowser: () => 1 }));
  sim.define('WABase64', () => ({
    encodeB64: base64,
    encodeB64UrlSafe: (bytes) => base64(bytes).replace(/\+/g, '-').replace(/\//g, '_'),
    decodeB64: (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer,
  }));
  sim.define('WAWebLaunchSocketUtils', () => ({ refreshQR: refresh }));
  sim.define('WAWebAltDeviceLinkingApi', () => ({
    setPairingType() {},
    initializeAltDeviceLinking: async () => {},
    initializeQRLinking: async () => {},
    startAltLinkingFlow: codeFor,
  }));
  sim.define('WAWebLinkDeviceAction', () => ({
    genLinkDeviceCodeForPhoneNumber: codeFor,
    refreshAltLinkingCode: () => events.triggerRefreshAltLinkingCode(),
    forceManualRefresh: () => events.triggerForceManualRefresh(),
    errorAltLinking: () => events.triggerErrorAltLinking(),
    primaryHelloReceivedAltLinking: () => events.triggerPrimaryHelloReceived(),
  }));
  sim.define('WAWebLinkDeviceEvents', () => ({ WAWebLinkDeviceEvents: events }));
})(window.__SIM);
