// The common path of whatsapp-web.js 1.34.7, which only knows the older message keys. Left out: that it injects itself anew after a logout,
// which on this page it does not always do.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import whatsapp from 'whatsapp-web.js';
import { Browser, Profile } from './lib/browser.js';
import { startSimulator } from './lib/simulator.js';
import { until } from './lib/wait.js';

const ME = '5511999990001';
const PEER = '5511888880001';
const EVENTS = ['qr', 'authenticated', 'ready', 'message', 'message_create', 'message_ack'];

describe('whatsapp-web.js 1.34.7 on the page profile legacy', { timeout: 90_000 }, () => {
  let sim, profile, browser, client;
  const events = [];

  const heard = (name, fits = () => true) =>
    until(`event ${name}`, 20_000, () => events.find((e) => e.name === name && fits(...e.args))?.args);

  /** A client in a tab of a running browser: the library starts none of its own. */
  async function connect() {
    events.length = 0;
    browser = await Browser.start(sim, sim.pageLegacy, profile);
    const puppeteer = { browserWSEndpoint: browser.endpoint, defaultViewport: null };
    client = new whatsapp.Client({ puppeteer, webVersionCache: { type: 'none' } });
    for (const name of EVENTS) client.on(name, (...args) => void events.push({ name, args }));
    await client.initialize();
  }

  before(async () => {
    sim = await startSimulator();
    profile = new Profile();
    await sim.account(ME, 'Ana');
    await sim.account(PEER, 'Bruno');
    await connect();
  });

  after(async () => {
    await browser?.close();
    profile?.remove();
    await sim?.stop();
  });

  test('qr, authenticated, ready', async () => {
    const [qr] = await heard('qr');
    assert.equal(qr.split(',').length, 5);
    await sim.scan(ME, qr);
    await heard('authenticated');
    await heard('ready');
    assert.equal(client.info.wid._serialized, `${ME}@c.us`);
  });

  test('sendMessage, and message_ack 1, 2, 3', async () => {
    const sent = await client.sendMessage(`${PEER}@c.us`, 'bom dia');
    assert.equal(sent.fromMe, true);
    for (const ack of [1, 2]) await heard('message_ack', (m, got) => m.id._serialized === sent.id._serialized && got === ack);
    await sim.read(PEER, ME);
    await heard('message_ack', (m, got) => m.id._serialized === sent.id._serialized && got === 3);
    assert.deepEqual((await sim.messages(PEER, ME)).map((m) => [m.body, m.duplicates]), [['bom dia', 0]]);
  });

  test('message, getChat and fetchMessages', async () => {
    const id = await sim.send(PEER, ME, 'tudo bem?');
    const [message] = await heard('message', (m) => m.id.id === id);
    assert.deepEqual([message.body, message.from, message.type], ['tudo bem?', `${PEER}@c.us`, 'chat']);
    const chat = await message.getChat();
    const bodies = (await chat.fetchMessages({ limit: 10 })).map((m) => m.body);
    assert.deepEqual(bodies.slice(-2), ['bom dia', 'tudo bem?']);
    assert.equal(await client.isRegisteredUser(`${PEER}@c.us`), true);
    assert.equal(await client.getState(), 'CONNECTED');
  });

  test('a restart with the same profile is ready without a code', async () => {
    await browser.close();
    await connect();
    await heard('ready');
    assert.equal(events.some((e) => e.name === 'qr'), false);
    await client.sendMessage(`${PEER}@c.us`, 'again');
    await until('the message', 5_000, async () => (await sim.messages(PEER, ME)).some((m) => m.body === 'again'));
  });
});
