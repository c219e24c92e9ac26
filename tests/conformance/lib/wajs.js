// wa-js as published, injected once the page is there, and what it says, in order.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { until } from './wait.js';

const BUNDLE = readFileSync(createRequire(import.meta.url).resolve('@wppconnect/wa-js'), 'utf8');
const CONFIG = 'window.WPPConfig = { disableGoogleAnalytics: true, linkPreviewApiServers: [] };';
const EVENTS = [
  ...['conn.auth_code_change', 'conn.stream_mode_changed', 'conn.stream_info_changed', 'conn.backend_event'],
  ...['conn.logout', 'conn.logout_reason', 'conn.needs_update', 'conn.qrcode_idle'],
  ...['conn.link_code_change', 'conn.link_code_expired', 'conn.link_code_error'],
  ...['chat.new_message', 'chat.msg_ack_change'],
];

/** In the page: reports each event as plain data. */
function listen(names) {
  const text = (id) => (id ? String(id) : null);
  const shapes = {
    'chat.new_message': (m) => ({ id: m.id.toString(), body: m.body, type: m.type, from: String(m.from), fromMe: m.id.fromMe }),
    'chat.msg_ack_change': (a) => ({ ack: a.ack, sender: text(a.sender), ids: a.ids.map(text), idParts: a.ids.map((k) => k.id) }),
    'conn.auth_code_change': (code) => code && code.fullCode,
  };
  const plain = (data) => data ?? null;
  for (const name of names) WPP.on(name, (data) => window.heard(name, (shapes[name] || plain)(data)));
  const { Cmd } = window.require('WAWebCmd');
  Cmd.on('logout_from_bridge', () => window.heard('cmd', 'logout_from_bridge'));
  Cmd.on('account_temporarily_banned_from_bridge', (ban) => window.heard('ban', ban.expireInSeconds));
  Cmd.on('service_unavailable_503_from_bridge', () => window.heard('cmd', 'service_unavailable_503_from_bridge'));
}

/** A tab with wa-js in it. `hosts` collects whom it asks for anything. */
export class Page {
  /** `inject`: whether wa-js is put in at once. */
  static async open(browser, hosts, inject = true) {
    const page = new Page();
    page.events = [];
    page.hosts = hosts;
    page.tab = await browser.client.newPage();
    page.tab.on('request', (request) => /^(http|ws)/.test(request.url()) && page.hosts.add(new URL(request.url()).host));
    await page.tab.exposeFunction('heard', (name, data) => void page.events.push({ name, data }));
    await page.tab.goto('https://web.whatsapp.com/', { waitUntil: 'domcontentloaded' });
    if (inject) await page.inject();
    return page;
  }

  /** After a navigation too. */
  async inject() {
    await until('the page has a version and its core modules', 20_000, () =>
      this.run(() => {
        if (!window.Debug?.VERSION) return false;
        for (const id of ['WAWebSocketModel', 'WAWebStreamModel', 'WAWebCollections', 'WAWebCmd']) window.require(id);
        return true;
      }),
    );
    const protocol = await this.tab.createCDPSession();
    for (const expression of [CONFIG, BUNDLE]) await protocol.send('Runtime.evaluate', { expression });
    await protocol.detach();
    await this.run(listen, EVENTS);
    await until('wa-js is ready', 10_000, () => this.run(() => WPP.isFullReady));
    // Until somebody reads this binding, keys on the page of today have no `_serialized`.
    await this.run(() => void WPP.whatsapp.MsgKey);
  }

  run(work, ...args) {
    return this.tab.evaluate(work, ...args);
  }

  /** The data of the first event of that name that fits. */
  heard(name, fits = () => true) {
    return until(`event ${name}`, 8_000, () => this.events.find((e) => e.name === name && fits(e.data))).then((e) => e.data);
  }

  count(name, fits) {
    return this.events.filter((e) => e.name === name && fits(e.data)).length;
  }

  /** Linked, synced and connected. */
  connected() {
    const is = () => {
      const { mode, info } = WPP.conn.getStreamData();
      return mode === 'MAIN' && info === 'NORMAL' && WPP.whatsapp.Socket.state === 'CONNECTED';
    };
    return until('the page is connected', 10_000, () => this.run(is));
  }

  mode(wanted) {
    return until(`stream mode ${wanted}`, 10_000, () => this.run((w) => WPP.conn.getStreamData().mode === w, wanted));
  }
}
