// A world of its own with one linked page: what most tests begin with.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Browser, Profile } from './browser.js';
import { startSimulator } from './simulator.js';
import { until } from './wait.js';
import { Page } from './wajs.js';

export const ME = '5511999990000';
export const PEER = '5511888880000';
export const NEWCOMER = '5511777770000';
export const CHAT = `${PEER}@c.us`;

/** In the page: sends as the driver does. A failure comes back as its name. */
async function sendText(key, text) {
  try {
    await WPP.chat.sendTextMessage(key.split('_')[1], text, { messageId: key, waitForAck: false, linkPreview: false, markIsRead: false });
    return null;
  } catch (error) {
    return error.code || error.name;
  }
}

/** In the page: a message's ack, or why there is none. */
const ackOf = (key) => WPP.chat.getMessageById(key).then((m) => m.ack, (error) => error.code);
const infoIs = (wanted) => WPP.conn.getStreamData().info === wanted;

/** A world of its own with one linked page. `port`: which address of the simulator. */
export class Stage {
  /** `before`: what is done in the world before the page is linked. */
  async start(port, before = () => {}) {
    await this.unlinked(port);
    await before(this.sim);
    await this.link();
  }

  async unlinked(port) {
    this.sim = await startSimulator();
    this.address = this.sim[port];
    await this.sim.account(ME, 'Ana');
    await this.sim.account(PEER, 'Bruno');
    this.profile = new Profile();
    await this.open();
  }

  async link() {
    await this.sim.scan(ME, await this.code());
    await this.page.connected();
  }

  code() {
    const shown = () => document.querySelector('[data-ref]')?.getAttribute('data-ref');
    return until('a code', 10_000, () => this.page.run(shown));
  }

  async open() {
    this.browser = await Browser.start(this.sim, this.address, this.profile);
    this.page = await Page.open(this.browser, new Set());
  }

  async restart(between = () => {}) {
    await this.browser.close();
    await between();
    await this.open();
    await this.page.connected();
  }

  async stop() {
    await this.browser?.close();
    this.profile?.remove();
    await this.sim?.stop();
  }

  /** Sends under a key of our own and answers it. */
  async send(text, chat = CHAT) {
    const key = `true_${chat}_3EB0${randomBytes(9).toString('hex').toUpperCase()}`;
    assert.equal(await this.page.run(sendText, key, text), null);
    return key;
  }

  ack = (key) => this.page.run(ackOf, key);
  acked = (key, ack) => this.page.heard('chat.msg_ack_change', (a) => a.ack === ack && a.ids.includes(key));
  acks = (key) => this.page.count('chat.msg_ack_change', (a) => a.ids.includes(key));
  lost = () => until('the loss of the socket', 5_000, () => this.page.run(infoIs, 'OPENING'));
  shown = async () => (await this.sim.messages(PEER, ME)).map((m) => m.body);
}

/** Both generations of the page: name and address. */
export const PROFILES = [['current', 'page'], ['legacy', 'pageLegacy']];
