// What a phone hands over after linking, as wa-js sees it: chats, contacts and messages from before, none of them new.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ME, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const SAVED = '5511666660001';
const MET = '5511666660002';

const progress = () => WPP.conn.getHistorySyncProgress();
const rows = async () => (await WPP.indexdb.getMessagesFromRowId({ minRowId: 0, limit: -1 })).map(({ id, t, ack }) => ({ id, t, ack }));
const texts = async (chat) => (await WPP.chat.getMessages(chat, { count: -1 })).map((m) => m.body);
const contact = (id) => {
  const { name, pushname, isMyContact } = WPP.whatsapp.ContactStore.get(id);
  return { name: name ?? null, pushname, isMyContact };
};
const chatList = async () =>
  (await WPP.chat.list({ ignoreGroupMetadata: true })).map((c) => ({ id: String(c.id), unread: c.unreadCount, t: c.t }));

for (const [name, port] of PROFILES) {
  describe(`history on the ${name} page`, () => {
    const stage = new Stage();
    let chats;
    const done = () => until('the history is there', 10_000, () => stage.page.run(() => WPP.conn.getHistorySyncProgress().progress === 100));

    before(() =>
      stage.start(port, async (sim) => {
        chats = await sim.history(ME, { chats: 3, messages: 50, unread: 2, chunk: 40 });
        await sim.contacts(ME, [{ phone: SAVED, name: 'Carla (Mercado)', pushname: 'Carla' }, { phone: MET, pushname: 'Davi' }]);
        await sim.history(ME, { items: [{ chat: PEER, text: 'long ago', at: 1_600_000_000, fromMe: true, id: '3A0001' }] });
        await sim.fault('history_delay', { account: ME, ms: 250 });
      }),
    );
    after(() => stage.stop());

    test('it comes in chunks beside the work, and its progress is told up to 100', async () => {
      const { progress: early, inProgress } = await stage.page.run(progress);
      assert.ok(early < 100 && inProgress, `${early} when the page was already connected`);
      await done();
      assert.deepEqual(await stage.page.run(progress), { progress: 100, paused: false, inProgress: false });
    });

    test('every message is stored once, with its time and ack, and no event tells of any', async () => {
      const stored = await stage.page.run(rows);
      const ids = chats.flatMap((c) => c.ids.map((id, n) => `${n % 2 === 1}_${c.phone}@c.us_${id}`));
      assert.deepEqual(stored.map((row) => row.id).toSorted(), [...ids, `true_${PEER}@c.us_3A0001`].toSorted());
      assert.deepEqual(stored.find((row) => row.id.endsWith('_3A0001')), { id: `true_${PEER}@c.us_3A0001`, t: 1_600_000_000, ack: 3 });
      assert.equal(stage.page.count('chat.new_message', () => true), 0);
      assert.equal((await stage.sim.stats()).sends, 0);
    });

    test('chats have their unread count, the time of their last message, and their messages in order', async () => {
      const listed = await stage.page.run(chatList);
      for (const { phone } of chats) {
        const chat = listed.find((c) => c.id === `${phone}@c.us`);
        assert.equal(chat.unread, 2);
        const bodies = await stage.page.run(texts, chat.id);
        assert.deepEqual(bodies, Array.from({ length: 50 }, (_, n) => `history ${n + 1} of ${phone}`));
      }
    });

    test('a contact has the name it was saved under and the one it gave itself; one that is not saved has only that', async () => {
      const saved = { name: 'Carla (Mercado)', pushname: 'Carla', isMyContact: true };
      assert.deepEqual(await stage.page.run(contact, `${SAVED}@c.us`), saved);
      assert.deepEqual(await stage.page.run(contact, `${MET}@c.us`), { name: null, pushname: 'Davi', isMyContact: false });
      await stage.sim.contacts(ME, [{ phone: MET, name: 'Davi Souza' }]);
      await until('the saved name', 5_000, async () => (await stage.page.run(contact, `${MET}@c.us`)).name === 'Davi Souza');
    });

    test('a new message comes after it, and a restart has all of it and asks for nothing again', async () => {
      const [{ phone }] = chats;
      const id = await stage.sim.send(phone, ME, 'now');
      await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
      const known = await stage.page.run(rows);
      assert.ok(known.at(-1).id.endsWith(id));
      await stage.restart();
      assert.deepEqual(await stage.page.run(rows), known);
      assert.equal((await stage.page.run(texts, `${phone}@c.us`)).at(-1), 'now');
    });
  });

  describe(`a broken history on the ${name} page`, () => {
    const stage = new Stage();
    before(() => stage.start(port, async (sim) => {
      await sim.history(ME, { chats: 2, messages: 40, chunk: 20 });
      await sim.fault('history_delay', { account: ME, ms: 400 });
    }));
    after(() => stage.stop());

    test('a browser that is closed in the middle of it gets the rest when it is back, and nothing twice', async () => {
      const count = async () => (await stage.page.run(rows)).length;
      await until('some of it', 5_000, async () => (await count()) > 0);
      assert.ok((await count()) < 80);
      await stage.restart();
      await until('all of it', 10_000, async () => (await count()) === 80);
      assert.equal(new Set((await stage.page.run(rows)).map((row) => row.id)).size, 80);
    });
  });
}
