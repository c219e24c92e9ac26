// wa-js 4.6.0 as published, against the simulator: what our driver takes from it, on both profiles of the page.
//
//   what the driver uses                                  promise tested here
//   ----------------------------------------------------  ----------------------------------------------------------------------
//   require(WAWebSocketModel, …StreamModel, …)            the modules are there with the members that are read
//   isFullReady                                           becomes true, and is so before anybody links
//   conn.getAuthCode, conn.auth_code_change               the code in four parts; a change of it is told
//   WAWebLaunchSocketUtils.refreshQR                      another code, the one before is refused
//   conn.isRegistered, conn.getStreamData                 false and QR before the scan, true and MAIN after
//   conn.getMyUserId, conn.getMyUserLid                   both forms of our id
//   conn.genLinkDeviceCodeForPhoneNumber                  a code of eight characters that links when the phone enters it
//   conn.logout_reason, Cmd logout_from_bridge            told when the phone removes the device; conn.logout by older pages only
//   Socket.logout                                         the device is gone, the page loads anew and shows a code
//   chat.find                                             the chat's id; a group's too
//   chat.sendTextMessage, chat.msg_ack_change             our own key is kept, the answer does not wait; then 1, 2, 3; a quote is kept
//   DuplicateMessageError                                 a key that is known is refused, nothing is sent twice
//   chat.getMessageById                                   the message, or the code msg_not_found
//   chat.new_message                                      once per message, with sender and text
//   chat.markIsRead, chat.list, chat.getMessages          the unread count goes to 0, the phone's message turns read; the history
//   indexdb.getMessagesFromRowId                          rows ascending above a row number, ids and acks readable
//   contact.queryExists, contact.getPnLidEntry            an account or null; both forms of its id
//   group.create and a send to it                         the key ends in our hidden id; the receipt names the member
//   a kept profile                                        a restart shows no code, and has the history and what came meanwhile
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, Profile } from './lib/browser.js';
import { startSimulator } from './lib/simulator.js';
import { NOTHING } from './lib/stage.js';
import { until } from './lib/wait.js';
import { Page } from './lib/wajs.js';

let simulator;
before(async () => void (simulator = await startSimulator()));
after(() => simulator?.stop());

/** A browser with a profile of its own. Closed and opened anew it keeps the profile. */
class Client {
  static async start(address) {
    const client = new Client();
    Object.assign(client, { address, profile: new Profile(), hosts: new Set() });
    try {
      await client.open();
    } catch (error) {
      await client.stop();
      throw error;
    }
    return client;
  }
  async open() {
    this.browser = await Browser.start(simulator, this.address, this.profile);
    this.page = await Page.open(this.browser, this.hosts);
  }
  async stop() {
    await this.browser?.close();
    this.profile.remove();
  }
}

/** In the page: sends as the driver does. A failure comes back as its name. */
async function send(key, text, quoted) {
  const options = { messageId: key, waitForAck: false, linkPreview: false, markIsRead: false, detectMentioned: false };
  if (quoted) options.quotedMsg = quoted;
  try {
    const sent = await WPP.chat.sendTextMessage(key.split('_')[1], text, options);
    return { id: String(sent.id), ack: Number(sent.ack) };
  } catch (error) {
    return { refused: error.code || error.name };
  }
}

/** In the page: the message under a key. */
async function byKey(key) {
  try {
    const found = await WPP.chat.getMessageById(key);
    return { id: String(found.id), field: found.id._serialized, body: found.body, ack: found.ack, quoted: found.quotedStanzaID ?? null };
  } catch (error) {
    return { refused: error.code };
  }
}

/** In the page: what of the driver's needs the page itself lacks. */
function lacking(needs) {
  const paths = Object.entries(needs).flatMap(([module, members]) => members.map((member) => `${module}.${member}`));
  const read = ([module, ...names]) => names.reduce((at, name) => at?.[name], window.require(module));
  return paths.filter((path) => read(path.split('.')) === undefined);
}
const NEEDS = {
  WAWebSocketModel: ['Socket.state', 'Socket.on', 'Socket.logout'],
  WAWebStreamModel: ['Stream.mode', 'Stream.info', 'Stream.on'],
  WAWebCollections: ['Msg.on', 'Msg.get', 'Chat'],
  WAWebCmd: ['Cmd.on'],
  WAWebConnModel: ['Conn.on', 'Conn.refTTL'],
  WAWebUserPrefsMeUser: ['getMaybeMeLidUser', 'getMaybeMePnUser'],
  WAWebUserPrefsMultiDevice: ['isRegistered'],
  WAWebApiContact: ['getCurrentLid', 'getPhoneNumber'],
  WAWebLaunchSocketUtils: ['refreshQR'],
  WAWebCompanionRegClientUtils: ['DEVICE_PLATFORM'],
};

const rows = (minRowId) => WPP.indexdb.getMessagesFromRowId({ minRowId, limit: 100 });
const history = async (chat) => (await WPP.chat.getMessages(chat, { count: -1 })).map((m) => ({ id: String(m.id), body: m.body }));

/** The promises, in the order of a session's life: each test starts where the one before it ended. */
function suite(name, address, area) {
  const me = `55${area}900000001`;
  const peer = `55${area}900000002`;
  const other = `55${area}900000003`;
  const chat = `${peer}@c.us`;
  const keyOf = (id) => `true_${chat}_3EB0${id}`;
  const first = keyOf('000000000000000001');
  let client;
  let page;
  const acked = (key, ack) => page.heard('chat.msg_ack_change', (a) => a.ack === ack && a.ids.includes(key));

  describe(`on the ${name} page`, () => {
    before(async () => {
      await simulator.account(me, 'Ana');
      await simulator.account(peer, 'Bia');
      await simulator.account(other, 'Caio');
      client = await Client.start(address());
      page = client.page;
    });
    after(() => client?.stop());

    test('wa-js is complete before anybody links, and the page has what the driver reads', async () => {
      assert.equal(await page.run(() => WPP.isFullReady), true);
      assert.deepEqual(await page.run(lacking, NEEDS), []);
    });

    test('a page without a device shows a code, told by call and by event', async () => {
      const told = await page.heard('conn.auth_code_change', (code) => !!code);
      const code = await page.run(() => WPP.conn.getAuthCode());
      assert.equal(code.fullCode, told);
      assert.equal(code.fullCode.split(',').length, 4);
      assert.ok(code.fullCode.startsWith('2@'));
      assert.equal(await page.run(() => WPP.conn.isRegistered()), false);
      await page.mode('QR');
    });

    test('a refreshed code is told, and the one before links nobody', async () => {
      const old = (await page.run(() => WPP.conn.getAuthCode())).fullCode;
      await page.run(() => void window.require('WAWebLaunchSocketUtils').refreshQR());
      await page.heard('conn.auth_code_change', (code) => code && code !== old);
      await assert.rejects(simulator.scan(me, old), { status: 409 });
    });

    test('a scanned code leads to MAIN, and both forms of our id are known', async () => {
      const drawn = async () => {
        const { fullCode } = await WPP.conn.getAuthCode();
        return `${fullCode},${window.require('WAWebCompanionRegClientUtils').DEVICE_PLATFORM}`;
      };
      await simulator.scan(me, await page.run(drawn));
      await page.mode('MAIN');
      assert.equal(await page.run(() => WPP.conn.isRegistered()), true);
      const ids = await page.run(() => [String(WPP.conn.getMyUserId()), String(WPP.conn.getMyUserLid())]);
      assert.equal(ids[0], `${me}@c.us`);
      assert.match(ids[1], /^\d+@lid$/);
      assert.equal(await page.run(() => WPP.conn.getAuthCode()), null);
    });

    test('a contact is found by number under both ids, and an unknown number is null', async () => {
      const exists = (id) => WPP.contact.queryExists(id).then((found) => found && [String(found.wid), String(found.lid)]);
      const [wid, lid] = await page.run(exists, chat);
      assert.equal(wid, chat);
      assert.match(lid, /^\d+@lid$/);
      assert.equal(await page.run(exists, `55${area}900009999@c.us`), null);
      const entry = (id) => WPP.contact.getPnLidEntry(id).then((e) => [e.phoneNumber._serialized, e.lid._serialized]);
      assert.deepEqual(await page.run(entry, chat), [chat, lid]);
      assert.deepEqual(await page.run(entry, lid), [chat, lid]);
    });

    test('a text goes out under our own key and its receipts follow', async () => {
      assert.equal(await page.run(async (id) => String((await WPP.chat.find(id)).id), chat), chat);
      assert.deepEqual(await page.run(send, first, 'olá'), { id: first, ack: 0 });
      await acked(first, 1);
      await acked(first, 2);
      assert.deepEqual(await simulator.read(peer, me), { read: 1 });
      await acked(first, 3);
      const heard = page.events.filter((e) => e.name === 'chat.msg_ack_change' && e.data.ids.includes(first)).map((e) => e.data.ack);
      assert.deepEqual(heard, [1, 2, 3]);
      const [shown] = await simulator.messages(peer, me);
      assert.deepEqual([shown.body, shown.duplicates], ['olá', 0]);
    });

    test('a key that is known is refused and nothing is sent', async () => {
      const { sends } = await simulator.stats();
      const { refused } = await page.run(send, first, 'again');
      assert.match(String(refused), /DuplicateMessage/);
      assert.equal((await simulator.stats()).sends, sends);
      assert.equal((await simulator.messages(peer, me)).length, 1);
    });

    test('a message is found by its key, and an unknown key is msg_not_found', async () => {
      const found = await page.run(byKey, first);
      assert.deepEqual(found, { id: first, field: first, body: 'olá', ack: 3, quoted: null });
      assert.deepEqual(await page.run(byKey, keyOf('00000000000000FFFF')), { refused: 'msg_not_found' });
    });

    test('an incoming text is told once, with its sender, and can be quoted', async () => {
      const key = `false_${chat}_${await simulator.send(peer, me, 'tudo bem?')}`;
      const told = await page.heard('chat.new_message', (m) => m.id === key);
      assert.deepEqual(told, { id: key, body: 'tudo bem?', type: 'chat', from: chat, fromMe: false });
      const reply = keyOf('000000000000000002');
      assert.equal((await page.run(send, reply, 'tudo', key)).id, reply);
      await acked(reply, 2);
      assert.equal((await page.run(byKey, reply)).quoted, key.split('_')[2]);
      assert.equal(page.count('chat.new_message', (m) => m.id === key), 1);
    });

    test('marking a chat read clears its count and tells the sender', async () => {
      const unread = async (id) => (await WPP.chat.list({ ignoreGroupMetadata: true })).find((c) => String(c.id) === id)?.unreadCount;
      await simulator.send(peer, me, 'leia');
      await page.heard('chat.new_message', (m) => m.body === 'leia');
      await until('the chat has two unread', 5_000, async () => (await page.run(unread, chat)) === 2);
      await page.run(async (id) => void (await WPP.chat.markIsRead(id)), chat);
      assert.equal(await page.run(unread, chat), 0);
      await until('the sender sees blue ticks', 5_000, async () => {
        const sent = (await simulator.messages(peer, me)).filter((m) => m.from === chat);
        return sent.length === 2 && sent.every((m) => m.ack === 3);
      });
    });

    test('the history is there in order, as models and as rows', async () => {
      const models = await page.run(history, chat);
      assert.deepEqual(models.map((m) => m.body), ['olá', 'tudo bem?', 'tudo', 'leia']);
      const stored = (await page.run(rows, 0)).filter((row) => row.type === 'chat');
      assert.deepEqual(stored.map((row) => row.id), models.map((m) => m.id));
      assert.equal(stored[0].ack, 3);
      assert.ok(stored.every((row, n) => n === 0 || row.rowId > stored[n - 1].rowId));
      const above = await page.run(rows, stored[1].rowId);
      assert.deepEqual(above.filter((row) => row.type === 'chat').map((row) => row.id), models.slice(2).map((m) => m.id));
    });

    test('a group is made, and a text to it goes out under a key that ends in our hidden id', async () => {
      const group = await page.run(async (member) => String((await WPP.group.create('Time', [member])).gid), chat);
      assert.match(group, /@g\.us$/);
      assert.equal(await page.run(async (id) => String((await WPP.chat.find(id)).id), group), group);
      const lid = await page.run(() => String(WPP.conn.getMyUserLid()));
      const key = `true_${group}_3EB0000000000000000003_${lid}`;
      assert.deepEqual(await page.run(send, key, 'a todos'), { id: key, ack: 0 });
      // wa-js builds the key of a group's receipt with the member in it: the id part is what it shares with ours.
      const receipt = (ack) => page.heard('chat.msg_ack_change', (a) => a.ack === ack && a.idParts.includes(key.split('_')[2]));
      assert.equal((await receipt(2)).sender, chat);
      await simulator.read(peer, group);
      assert.equal((await receipt(3)).sender, chat);
      assert.deepEqual((await simulator.messages(peer, group)).map((m) => [m.body, m.duplicates]), [['a todos', 0]]);
      assert.equal((await page.run(byKey, key)).body, 'a todos');
    });

    test('a restart with the kept profile shows no code and has the history and what came meanwhile', async () => {
      const known = await page.run(history, chat);
      await client.browser.close();
      const late = `false_${chat}_${await simulator.send(peer, me, 'cadê você?')}`;
      await client.open();
      page = client.page;
      await page.mode('MAIN');
      assert.equal(page.count('conn.auth_code_change', (code) => !!code), 0);
      assert.equal(await page.run(() => WPP.conn.isRegistered()), true);
      await until('the late message is stored', 5_000, async () => (await page.run(rows, 0)).some((row) => row.id === late));
      assert.deepEqual(await page.run(history, chat), [...known, { id: late, body: 'cadê você?' }]);
      assert.match(String((await page.run(send, first, 'again')).refused), /DuplicateMessage/);
    });

    test('a code for a phone number links, and a device that the phone removes is logged out', async () => {
      const second = await Client.start(address());
      try {
        const code = await second.page.run((phone) => WPP.conn.genLinkDeviceCodeForPhoneNumber(phone), other);
        assert.match(code, /^[A-Z0-9]{8}$/);
        await simulator.enterCode(other, code);
        await second.page.mode('MAIN');
        assert.equal(await second.page.run(() => String(WPP.conn.getMyUserId())), `${other}@c.us`);
        const [{ id }] = await simulator.devices(other);
        await simulator.removeDevice(other, id);
        assert.equal(await second.page.heard('conn.logout_reason'), 'device_removed');
        await second.page.heard('cmd', (command) => command === 'logout_from_bridge');
        if (name === 'legacy') await second.page.heard('conn.logout');
        else assert.equal(second.page.count('conn.logout', () => true), 0);
      } finally {
        await second.stop();
      }
    });

    test('a logout from the page removes the device, and the page loads anew with a code', async () => {
      const loaded = page.tab.waitForNavigation({ timeout: 10_000 });
      await page.run(() => void window.require('WAWebSocketModel').Socket.logout());
      await loaded;
      assert.match(page.tab.url(), /[?&]post_logout=1/);
      assert.deepEqual(await simulator.devices(me), []);
      await page.inject();
      assert.ok(await until('a code', 5_000, () => page.run(() => WPP.conn.getAuthCode())));
      assert.equal(await page.run(() => WPP.conn.isRegistered()), false);
    });

    test('nothing was asked of any other host, and no name that the real page lacks', async () => {
      assert.deepEqual([...client.hosts], ['web.whatsapp.com']);
      const { names, requests, unserved } = await simulator.strict();
      assert.deepEqual({ names, requests, unserved }, NOTHING);
    });
  });
}

suite('current', () => simulator.page, '11');
suite('legacy', () => simulator.pageLegacy, '21');
