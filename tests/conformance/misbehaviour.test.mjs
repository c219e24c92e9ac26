// The simulator's faults as wa-js meets them, on both profiles of the page: what is lost, late, doubled or refused.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CHAT, ME, NEWCOMER, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const rowIds = async () => (await WPP.indexdb.getMessagesFromRowId({ minRowId: 0, limit: -1 })).map((row) => row.id);
const isNew = (ids) => ids.map((id) => WPP.whatsapp.MsgStore.get(id).isNewMsg);

function receipts(stage) {
  test('a phone that is off gives its tick when it is back', async () => {
    await stage.sim.offline(PEER);
    const key = await stage.send('are you there?');
    await stage.acked(key, 1);
    assert.equal(await stage.ack(key), 1);
    await stage.sim.online(PEER);
    await stage.acked(key, 2);
  });

  test('an ack that is dropped leaves ack 0, one that is late comes, a refused send ends in ack -1', async () => {
    const { sim } = stage;
    await sim.fault('ack_drop', { account: ME, times: 1 });
    const dropped = await stage.send('dropped');
    await sim.fault('ack_delay', { account: ME, times: 1, ms: 500 });
    const late = await stage.send('late');
    assert.equal(await stage.ack(late), 0);
    await stage.acked(late, 1);
    assert.deepEqual([await stage.ack(dropped), stage.acks(dropped)], [0, 0]);
    await sim.fault('send_error', { account: ME, times: 1 });
    const refused = await stage.send('refused');
    await until('the failed ack', 5_000, async () => (await stage.ack(refused)) === -1);
    assert.deepEqual((await stage.shown()).slice(-2), ['dropped', 'late']);
  });
}

function deliveries(stage) {
  test('a message that is delivered twice is one event', async () => {
    const { page, sim } = stage;
    await sim.fault('redeliver', { account: ME, times: 1 });
    const twice = await sim.send(PEER, ME, 'twice');
    const next = await sim.send(PEER, ME, 'next');
    await page.heard('chat.new_message', (m) => m.id.includes(next));
    assert.equal(page.count('chat.new_message', (m) => m.id.includes(twice)), 1);
  });

  test('a message that our own phone sent is told as ours', async () => {
    const id = await stage.sim.send(ME, PEER, 'from the phone');
    const told = await stage.page.heard('chat.new_message', (m) => m.id.includes(id));
    assert.equal(told.fromMe, true);
  });

  test('a socket that dies comes back by itself, with what was missed, in order', async () => {
    const { page, sim } = stage;
    const from = page.events.length;
    await sim.fault('kill_socket', { account: ME });
    const sent = [];
    for (const text of ['one', 'two', 'three']) sent.push(await sim.send(PEER, ME, text));
    await page.heard('conn.stream_info_changed', (info) => info === 'OPENING', from);
    await page.heard('chat.new_message', (m) => m.id.includes(sent[2]), from);
    const told = page.events.slice(from).filter((e) => e.name === 'chat.new_message').map((e) => e.data.body);
    assert.deepEqual(told, ['one', 'two', 'three']);
    await page.connected();
  });

  test('a number that is new since the sync exists, under both its ids', async () => {
    await stage.sim.account(NEWCOMER);
    const exists = (id) => WPP.contact.queryExists(id).then((found) => found && [String(found.wid), String(found.lid)]);
    const [wid, lid] = await stage.page.run(exists, `${NEWCOMER}@c.us`);
    assert.equal(wid, `${NEWCOMER}@c.us`);
    assert.match(lid, /^\d+@lid$/);
  });
}

function connections(stage) {
  test('a send without a connection waits for it, and leaves once', async () => {
    const { sim } = stage;
    const refusing = await sim.fault('refuse_connect', { account: ME });
    await sim.fault('kill_socket', { account: ME });
    await stage.lost();
    const key = await stage.send('later');
    assert.equal(await stage.ack(key), 0);
    await sim.mend(refusing);
    await stage.acked(key, 1);
    assert.equal((await stage.shown()).filter((body) => body === 'later').length, 1);
  });

  test('a conflict stays until the page takes over, and another account notices nothing', async () => {
    const { page, sim } = stage;
    await sim.fault('conflict', { account: PEER });
    await sim.fault('conflict', { account: ME });
    await page.mode('CONFLICT');
    await page.run(() => WPP.whatsapp.Socket.takeover());
    await page.connected();
  });

  test('a ban is told by a Cmd event', async () => {
    const { page, sim } = stage;
    const listen = () => void window.require('WAWebCmd').Cmd.on('account_temporarily_banned_from_bridge', () => window.heard('ban', true));
    await page.run(listen);
    await sim.fault('ban', { account: ME });
    await page.heard('ban');
  });
}

function documents(stage) {
  test('frames lost before or after the server took them keep their rows, and no document sends them again', async () => {
    const { sim } = stage;
    await sim.fault('lose_frame_before', { account: ME, times: 1 });
    const before = await stage.send('lost before');
    await stage.lost();
    await stage.page.connected();
    await sim.fault('lose_frame_after', { account: ME, times: 1 });
    const after = await stage.send('lost after');
    await until('the message on the other phone', 5_000, async () => (await stage.shown()).includes('lost after'));
    await stage.restart();
    assert.deepEqual([await stage.ack(before), await stage.ack(after)], [0, 0]);
    assert.equal((await stage.shown()).includes('lost before'), false);
    assert.equal((await sim.stats()).duplicates, 0);
  });

  test('what came while the browser was closed is stored as new, in order, above the rows that were there', async () => {
    const { sim } = stage;
    const known = await stage.page.run(rowIds);
    const sent = [];
    await stage.restart(async () => {
      for (const text of ['um', 'dois', 'três']) sent.push(`false_${CHAT}_${await sim.send(PEER, ME, text)}`);
    });
    await until('three more rows', 5_000, async () => (await stage.page.run(rowIds)).length === known.length + 3);
    assert.deepEqual(await stage.page.run(rowIds), [...known, ...sent]);
    assert.deepEqual(await stage.page.run(isNew, sent), [true, true, true]);
  });

  test('on a page whose bundles come late, what is injected behind the gate hears messages', async () => {
    await stage.sim.fault('slow_modules', { times: 1, gapMs: 900 });
    await stage.restart();
    const id = await stage.sim.send(PEER, ME, 'late page');
    await stage.page.heard('chat.new_message', (m) => m.id.includes(id));
  });
}

for (const [name, port] of PROFILES) {
  describe(`misbehaviour on the ${name} page`, () => {
    const stage = new Stage();
    before(() => stage.start(port));
    after(() => stage.stop());
    for (const part of [receipts, deliveries, connections, documents]) part(stage);
  });
}
