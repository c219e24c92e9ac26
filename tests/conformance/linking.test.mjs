// How a page is linked and let go: the drawn code, pairing codes, removal, conflict, ban, logout, on both profiles of the page.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import jsQR from 'jsqr';
import { PNG } from 'pngjs';
import { ME, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const OTHER = '5511777770009';
const pairingCode = (phone) => WPP.conn.startLinkDeviceCodeForPhoneNumber(phone);
const rawCode = (phone) => WPP.conn.genLinkDeviceCodeForPhoneNumber(phone).then((code) => code, (error) => ({ refused: error.code ?? error.name }));
const busEvents = (names) => {
  const bus = window.require('WAWebLinkDeviceEvents').WAWebLinkDeviceEvents;
  for (const name of names) bus.on(`link_device_events:${name}`, () => window.heard('bus', name));
};
const click = (label) => [...document.querySelectorAll('button')].find((b) => b.textContent === label).click();
const shows = (text) => document.body.innerText.includes(text);
const wrong = (error) => error.status === 409;

/** What a phone's camera reads on the page. */
async function read(page) {
  const { data, width, height } = PNG.sync.read(Buffer.from(await page.tab.screenshot()));
  return jsQR(new Uint8ClampedArray(data), width, height)?.data;
}

function codes(port) {
  const stage = new Stage();
  beforeEach(() => stage.unlinked(port));
  afterEach(() => stage.stop());

  test('the code on a screenshot of the page is the one that links', async () => {
    const text = await stage.code();
    assert.equal(await until('a readable code', 5_000, () => read(stage.page)), text);
    await stage.sim.scan(ME, text);
    await stage.page.connected();
  });

  test('codes rotate, the list of them ends idle, and the button of the page asks for another', async () => {
    const fast = await stage.sim.fault('qr_fast', { ms: 1_200 });
    const first = await stage.code();
    const { refs } = await stage.sim.stats();
    await stage.page.tab.reload(); // the faster codes begin with a list
    await stage.page.inject();
    const seen = new Set();
    await until('the idle state', 20_000, async () => {
      seen.add(await stage.page.run(() => document.querySelector('[data-ref]')?.getAttribute('data-ref')));
      return stage.page.run(() => WPP.whatsapp.Socket.state === 'UNPAIRED_IDLE');
    });
    assert.equal((await stage.sim.stats()).refs - refs, 6);
    assert.ok(seen.size > 1 && !seen.has(first), `${seen.size} codes seen`);
    await stage.page.heard('conn.qrcode_idle');
    await assert.rejects(stage.sim.scan(ME, [...seen].at(-1)), wrong);
    await stage.sim.mend(fast);
    await stage.page.run(click, 'Reload');
    await until('the code links', 5_000, async () => stage.sim.scan(ME, await stage.code()));
    await stage.page.connected();
  });

  test('a pairing code links the number it is for, and the page hears the phone', async () => {
    await stage.page.run(busEvents, ['primary_hello_received']);
    const code = await stage.page.run(pairingCode, ME);
    assert.match(code, /^[A-Z0-9]{8}$/);
    assert.equal(await stage.page.run(shows, `${code.slice(0, 4)}-${code.slice(4)}`), true);
    await assert.rejects(stage.sim.enterCode(PEER, code), wrong);
    await stage.sim.enterCode(ME, `${code.slice(0, 4)}-${code.slice(4)}`);
    assert.equal(await stage.page.heard('bus'), 'primary_hello_received');
    await stage.page.connected();
  });

  test('a pairing code that expires is followed by another, and links nobody', async () => {
    await stage.sim.fault('pairing_fast', { ms: 400, times: 1 });
    const first = await stage.page.run(pairingCode, ME);
    const second = await stage.page.heard('conn.link_code_change', (code) => code !== first);
    await assert.rejects(stage.sim.enterCode(ME, first), wrong);
    await stage.sim.enterCode(ME, second);
    await stage.page.connected();
  });

  test('a third wrong try ends a pairing code', async () => {
    const first = await stage.page.run(pairingCode, ME);
    for (let n = 0; n < 3; n++) await assert.rejects(stage.sim.enterCode(ME, 'WRONGWRO'), wrong);
    const second = await stage.page.heard('conn.link_code_change', (code) => code !== first);
    await assert.rejects(stage.sim.enterCode(ME, first), wrong);
    await stage.sim.enterCode(ME, second);
    await stage.page.connected();
  });

  test('a pairing code may end for good, and the server may give none', async () => {
    await stage.sim.fault('pairing_fast', { ms: 300, times: 1 });
    await stage.sim.fault('pairing_manual', { times: 1 });
    await stage.page.run(pairingCode, ME);
    await stage.page.heard('conn.link_code_expired');
    await stage.sim.fault('pairing_refused', { account: ME, times: 1 });
    assert.deepEqual(await stage.page.run(rawCode, ME), { refused: 'rate_overlimit' });
    assert.match(await stage.page.run(rawCode, ME), /^[A-Z0-9]{8}$/);
  });

  test('a phone without a connection links nothing', async () => {
    await stage.sim.offline(ME);
    const code = await stage.code();
    await assert.rejects(stage.sim.scan(ME, code), wrong);
    await stage.sim.online(ME);
    await stage.sim.scan(ME, code);
  });
}

function endings(port) {
  const stage = new Stage();
  beforeEach(() => stage.start(port));
  afterEach(() => stage.stop());

  const goesBackToACode = async () => {
    await until('the page loads anew', 8_000, () => stage.page.tab.url().includes('post_logout=1'));
    await stage.page.inject();
    assert.equal(await stage.page.run(() => WPP.conn.isRegistered()), false);
    await stage.code();
  };

  test('a device that the phone removes is told the reason and goes back to a code, which links another phone', async () => {
    await stage.sim.account(OTHER);
    const [{ id }] = await stage.sim.devices(ME);
    await stage.sim.removeDevice(ME, id, 'account_locked');
    assert.equal(await stage.page.heard('conn.logout_reason'), 'account_locked');
    await goesBackToACode();
    await stage.sim.scan(OTHER, await stage.code());
    await stage.page.connected();
    assert.equal(await stage.page.run(() => String(WPP.conn.getMyUserId())), `${OTHER}@c.us`);
  });

  test('a device that was removed while its browser was closed learns it when it comes', async () => {
    const [{ id }] = await stage.sim.devices(ME);
    await stage.browser.close();
    await stage.sim.removeDevice(ME, id);
    await stage.open(false);
    await until('the page loads anew', 8_000, () => stage.page.tab.url().includes('post_logout=1'));
    await until('no registration', 8_000, () => stage.page.run(() => !!window.Debug && !window.require('WAWebUserPrefsMultiDevice').isRegistered()));
  });

  test('another browser takes the account; the page asks, a click takes it back, and the server counts that', async () => {
    await stage.sim.fault('conflict', { account: ME });
    await stage.page.mode('CONFLICT');
    assert.equal(await stage.page.run(shows, 'open in another window'), true);
    assert.equal((await stage.sim.stats()).takeovers, 0);
    await stage.page.run(click, 'Use here');
    await stage.page.connected();
    assert.equal((await stage.sim.stats()).takeovers, 1);
  });

  test('the other browser may take the account again at once; takeover without a conflict is an error', async () => {
    const takeover = () => {
      try {
        return WPP.whatsapp.Socket.takeover() ?? 'taken';
      } catch (error) {
        return error.message;
      }
    };
    assert.match(await stage.page.run(takeover), /not in conflict/);
    await stage.sim.fault('conflict_on_connect', { account: ME, times: 1 });
    await stage.sim.fault('conflict', { account: ME });
    await stage.page.mode('CONFLICT');
    await stage.page.run(takeover);
    await until('the takeover', 5_000, async () => (await stage.sim.stats()).takeovers === 1);
    await stage.page.mode('CONFLICT');
    await stage.page.run(takeover);
    await stage.page.connected();
  });

  test('a banned account is cut off and refused, in a new browser too, until the ban is over', async () => {
    await stage.sim.ban(ME, 30);
    assert.equal(await stage.page.heard('ban'), 1800);
    await stage.lost();
    await until('a refused connect', 5_000, () => stage.page.count('ban', (seconds) => seconds > 1700 && seconds < 1801) > 1);
    await stage.browser.close();
    await stage.open(false);
    await until('the page says so', 8_000, () => stage.page.run(shows, 'temporarily banned'));
    await stage.sim.unban(ME);
    await stage.page.inject(); // wa-js is complete only on a page that shows a code or is connected
    await stage.page.connected();
  });

  test('a logout from the page removes the device from the phone', async () => {
    await stage.page.run(() => void WPP.whatsapp.Socket.logout());
    assert.equal(await stage.page.heard('conn.logout_reason'), 'user_initiated');
    await goesBackToACode();
    assert.deepEqual(await stage.sim.devices(ME), []);
  });

  test('storage that is wiped is a lost registration, while the phone still lists the device', async () => {
    await stage.sim.fault('wipe', { account: ME });
    await until('no registration', 8_000, () => stage.page.run(() => !!window.Debug && !window.require('WAWebUserPrefsMultiDevice').isRegistered()));
    await stage.code();
    assert.equal((await stage.sim.devices(ME)).length, 1);
  });
}

for (const [name, port] of PROFILES) {
  describe(`codes on the ${name} page`, () => codes(port));
  describe(`the end of a link on the ${name} page`, () => endings(port));
}
