// More of what may go wrong, on both profiles of the page: frames that are lost, late, doubled or overtaken, documents that do not start.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CHAT, ME, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const bodies = (stage, from) => stage.page.events.slice(from).filter((e) => e.name === 'chat.new_message').map((e) => e.data.body);

function frames(stage) {
  const sendAll = async (texts) => {
    for (const text of texts) await stage.sim.send(PEER, ME, text);
  };
  const told = (from, count) => until(`${count} messages`, 5_000, () => bodies(stage, from).length >= count && bodies(stage, from));

  test('a message whose frame is lost comes with the next connection', async () => {
    const from = stage.page.events.length;
    await stage.sim.fault('frame_drop', { account: ME, frame: 'msg', times: 1 });
    await sendAll(['lost', 'kept']);
    assert.deepEqual(await told(from, 1), ['kept']);
    await stage.sim.fault('kill_socket', { account: ME });
    assert.deepEqual(await told(from, 2), ['kept', 'lost']);
  });

  test('messages overtake one another, and one that comes twice or late is told once', async () => {
    const from = stage.page.events.length;
    await stage.sim.fault('frame_reorder', { account: ME, frame: 'msg', times: 1 });
    await sendAll(['first', 'second']);
    assert.deepEqual(await told(from, 2), ['second', 'first']);
    await stage.sim.fault('frame_duplicate', { account: ME, frame: 'msg', times: 1 });
    await stage.sim.fault('frame_delay', { account: ME, frame: 'msg', times: 1, ms: 300 });
    await sendAll(['twice and late', 'after it']);
    assert.deepEqual(await told(from, 4), ['second', 'first', 'after it', 'twice and late']);
  });

  test('receipts that overtake one another leave the higher ack', async () => {
    const key = await stage.send('acks');
    await stage.acked(key, 2);
    await stage.sim.fault('frame_reorder', { account: ME, frame: 'ack', times: 1 });
    const next = await stage.send('its receipt waits for the other');
    await stage.acked(next, 1);
    await stage.sim.read(PEER, ME);
    await stage.acked(next, 2);
    await until('the higher ack', 5_000, async () => (await stage.ack(next)) === 3 && (await stage.ack(key)) === 3);
  });

  test('a send whose answer is lost stays at 0 until the receipt of the phone', async () => {
    await stage.sim.fault('frame_drop', { account: ME, frame: 'res', times: 1 });
    await stage.sim.fault('frame_delay', { account: ME, frame: 'ack', times: 1, ms: 2_000 });
    const key = await stage.send('unanswered');
    await until('the message on the other phone', 5_000, async () => (await stage.shown()).includes('unanswered'));
    assert.equal(await stage.ack(key), 0);
    await stage.acked(key, 2);
  });

  test('a send that comes to the server twice is shown once and counted', async () => {
    const before = (await stage.sim.stats()).duplicates;
    await stage.sim.fault('frame_duplicate', { account: ME, frame: 'send', times: 1 });
    await stage.acked(await stage.send('doubled on the way'), 2);
    assert.equal((await stage.sim.stats()).duplicates, before + 1);
    assert.equal((await stage.shown()).filter((body) => body === 'doubled on the way').length, 1);
  });

  test('a message to a phone that is off is not shown before it is back', async () => {
    await stage.sim.offline(PEER);
    const key = await stage.send('later');
    await stage.acked(key, 1);
    assert.equal((await stage.shown()).includes('later'), false);
    await stage.sim.online(PEER);
    await stage.acked(key, 2);
    assert.equal((await stage.shown()).at(-1), 'later');
  });
}

function servers(stage) {
  test('an outdated page says so, by event and by call', async () => {
    assert.equal(await stage.page.run(() => !!WPP.conn.needsUpdate()), false);
    await stage.sim.fault('update', { account: ME });
    await stage.page.heard('conn.needs_update');
    assert.equal(await stage.page.run(() => !!WPP.conn.needsUpdate()), true);
  });

  test('a server that says 503 is told by a Cmd event', async () => {
    await stage.sim.fault('unavailable', { account: ME });
    await stage.page.heard('cmd', (command) => command === 'service_unavailable_503_from_bridge');
  });

  test('a page that hangs answers when it is over, and has lost nothing', async () => {
    const began = performance.now();
    await stage.sim.fault('hang', { account: ME, ms: 1_500 });
    const id = await stage.sim.send(PEER, ME, 'while it hung');
    await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
    assert.ok(performance.now() - began >= 1_400, 'the page stood still');
  });
}

function media(stage) {
  const PNG = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  const sendImage = async (chat, data) => {
    const sent = await WPP.chat.sendFileMessage(chat, data, { type: 'image', caption: 'a dot', waitForAck: false, markIsRead: false });
    return String(sent.id);
  };
  const size = (key) => WPP.chat.downloadMedia(key).then((blob) => blob.size, (error) => error.code ?? error.message);

  test('an upload that is refused ends the message in ack -1, and one that stalls goes out late', async () => {
    await stage.sim.fault('upload_error', { times: 1 });
    const refused = await stage.page.run(sendImage, CHAT, PNG);
    await until('the failed ack', 5_000, async () => (await stage.ack(refused)) === -1);
    await stage.sim.fault('upload_stall', { times: 1, ms: 1_500 });
    const late = await stage.page.run(sendImage, CHAT, PNG);
    assert.equal(await stage.ack(late), 0);
    await stage.acked(late, 2);
  });

  test('media can be downloaded, and is gone where the server says so', async () => {
    const { directPath } = await stage.page.run(async (chat) => {
      const [message] = (await WPP.chat.getMessages(chat, { count: -1 })).filter((m) => m.type === 'image' && m.ack > 0);
      return { directPath: message.directPath };
    }, CHAT);
    const media = { type: 'image', mimetype: 'image/png', directPath, filehash: 'hash-a' };
    const send = async (filehash) => (await stage.sim.ask('POST', `/accounts/${PEER}/send`, { to: ME, ...media, filehash })).id;
    const first = await send('hash-a');
    await stage.page.heard('chat.new_message', (m) => m.id.endsWith(first));
    assert.ok((await stage.page.run(size, `false_${CHAT}_${first}`)) > 60);
    await stage.sim.fault('download_gone', { times: 1 });
    const second = await send('hash-b');
    await stage.page.heard('chat.new_message', (m) => m.id.endsWith(second));
    assert.equal(typeof (await stage.page.run(size, `false_${CHAT}_${second}`)), 'string');
  });
}

function documents(stage) {
  const versionOf = (tab) => tab.evaluate(() => window.Debug?.VERSION ?? null);
  const reload = () => stage.page.tab.goto('https://web.whatsapp.com/', { waitUntil: 'load' });

  test('a page that lacks an export is not whole for wa-js, and one that syncs late is connected late', async () => {
    const { sim, page } = stage;
    await sim.fault('break_export', { times: 1, export: 'WAWebCmd.Cmd,WAWebStreamModel.Stream' });
    await reload();
    await until('the page runs', 5_000, () => versionOf(page.tab));
    const left = () => [typeof window.require('WAWebCmd').Cmd, typeof window.require('WAWebCmd').CmdImpl, typeof window.require('WAWebStreamModel').Stream];
    assert.deepEqual(await page.run(left), ['undefined', 'function', 'undefined']);
    await sim.fault('synced_after', { times: 1, ms: 2_500 });
    await reload();
    await page.inject();
    const lasted = await until('the page has synced', 8_000, () => page.run(() => WPP.whatsapp.Socket.hasSynced && performance.now() - window.__SIM.versionShownAt));
    assert.ok(lasted >= 2_400, `${lasted} ms`);
  });

  test('a document may be blank, an error, or late; the next one is whole', async () => {
    const { sim, page } = stage;
    await sim.fault('blank_page', { times: 1 });
    await reload();
    assert.deepEqual([await versionOf(page.tab), await page.run(() => document.body.innerText)], [null, '']);
    await sim.fault('page_error', { times: 1 });
    assert.equal((await reload()).status(), 503);
    await sim.fault('slow_start', { times: 1, ms: 900 });
    const began = performance.now();
    await reload();
    assert.ok(performance.now() - began >= 900);
    await page.inject();
    await page.connected();
  });
}

for (const [name, port] of PROFILES) {
  describe(`more misbehaviour on the ${name} page`, () => {
    const stage = new Stage();
    before(() => stage.start(port));
    after(() => stage.stop());
    for (const part of [frames, media, servers, documents]) part(stage);
  });
}
