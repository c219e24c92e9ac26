// What the driver reads of chats, groups and contacts beyond sending and receiving, on both profiles of the page.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CHAT, ME, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const MET = '5511666660009';
const LATER = '5511666660010';

/** In the page: people as the driver lists them. */
const people = () =>
  WPP.whatsapp.ContactStore.getModelsArray()
    .filter((c) => c.id?.isUser?.() && !c.id.isPSA?.())
    .map((c) => ({ id: String(c.id), name: c.name ?? null, pushname: c.pushname ?? null }));

/** In the page: a chat as the driver lists it. */
const chat = async (id) => {
  const found = (await WPP.chat.list({ ignoreGroupMetadata: true })).find((c) => String(c.id) === id);
  const { name, formattedTitle, unreadCount, archive, groupMetadata } = found;
  const members = groupMetadata?.participants.getModelsArray().map((p) => ({ id: String(p.id), admin: !!p.isAdmin }));
  return { name: name ?? null, formattedTitle, unreadCount, archive: !!archive, stale: groupMetadata?.stale, members };
};
const sendAndRead = async (to) =>
  String((await WPP.chat.sendTextMessage(to, 'read by sending', { waitForAck: false, linkPreview: false, markIsRead: true })).id);

for (const [name, port] of PROFILES) {
  describe(`chats, groups and contacts on the ${name} page`, () => {
    const stage = new Stage();
    before(() => stage.start(port, (sim) => sim.contacts(ME, [{ phone: MET, pushname: 'Met' }])));
    after(() => stage.stop());

    test('people are listed under both their ids, with saved name and own name, and so is who comes later', async () => {
      const { lid } = await stage.sim.account(PEER);
      const listed = await stage.page.run(people);
      for (const id of [CHAT, lid]) {
        assert.deepEqual(listed.find((p) => p.id === id), { id, name: 'Bruno', pushname: 'Bruno' });
      }
      assert.deepEqual(listed.find((p) => p.id === `${MET}@c.us`), { id: `${MET}@c.us`, name: null, pushname: 'Met' });
      await stage.sim.contacts(ME, [{ phone: LATER, name: 'Saved later' }]);
      await until('who came later', 5_000, async () => (await stage.page.run(people)).some((p) => p.id === `${LATER}@c.us` && p.name === 'Saved later'));
    });

    test('a group has its title, its members and who of them is an admin', async () => {
      const group = await stage.page.run(async (member) => String((await WPP.group.create('Time A', [member])).gid), CHAT);
      const { members, ...rest } = await stage.page.run(chat, group);
      assert.deepEqual(rest, { name: 'Time A', formattedTitle: 'Time A', unreadCount: 0, archive: false, stale: false });
      assert.deepEqual(members, [{ id: `${ME}@c.us`, admin: true }, { id: CHAT, admin: false }]);
    });

    test('a send that marks its chat read tells the other side and clears the count', async () => {
      const id = await stage.sim.send(PEER, ME, 'unread');
      await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
      await until('one unread', 5_000, async () => (await stage.page.run(chat, CHAT)).unreadCount === 1);
      const key = await stage.page.run(sendAndRead, CHAT);
      await stage.acked(key, 2);
      await until('blue ticks', 5_000, async () => (await stage.sim.messages(PEER, ME)).find((m) => m.id === id).ack === 3);
      assert.equal((await stage.page.run(chat, CHAT)).unreadCount, 0);
    });
  });
}
