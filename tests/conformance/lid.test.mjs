// Hidden ids: both forms of a person, chats that move from one to the other, numbers that move to another hidden id.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CHAT, ME, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const entry = async (id) => {
  const { lid, phoneNumber } = await WPP.contact.getPnLidEntry(id);
  return { lid: lid?._serialized ?? null, phone: phoneNumber?._serialized ?? null };
};
const helpers = (phone, lid) => {
  const wid = (id) => window.require('WAWebWidFactory').createWid(id);
  const { toPn, toLid, toUserLidOrThrow, shouldHaveAccountLid } = window.require('WAWebLidMigrationUtils');
  const text = (id) => (id ? String(id) : null);
  return {
    toPn: text(toPn(wid(lid))),
    toLid: text(toLid(wid(phone))),
    orThrow: text(toUserLidOrThrow(wid(phone))),
    has: shouldHaveAccountLid(wid(phone)),
    state: WPP.conn.getMigrationState().isLidMigrated,
  };
};
const found = async (id) => String((await WPP.chat.find(id)).id);
const listed = async () => (await WPP.chat.list({ ignoreGroupMetadata: true })).map((c) => String(c.id));
const texts = async (chat) => (await WPP.chat.getMessages(chat, { count: -1 })).map((m) => m.body);
const rowIds = async () => (await WPP.indexdb.getMessagesFromRowId({ minRowId: 0, limit: -1 })).map((row) => row.id);
const mapped = (id, name) => {
  const answer = window.require('WAWebApiContact')[name](window.require('WAWebWidFactory').createWid(id));
  return answer ? String(answer) : null;
};
/** In the page: what a send with a key of the other form ends in. */
const mismatched = async (chat, key) =>
  WPP.chat.sendTextMessage(chat, 'x', { messageId: key, waitForAck: false }).then(() => null, (error) => error.code);

for (const [name, port] of PROFILES) {
  describe(`hidden ids on the ${name} page`, () => {
    const stage = new Stage();
    let lid;
    let old;
    before(async () => {
      await stage.start(port);
      ({ lid } = await stage.sim.account(PEER));
    });
    after(() => stage.stop());

    test('both forms of a contact are known, by every helper', async () => {
      const both = { lid, phone: CHAT };
      assert.deepEqual([await stage.page.run(entry, CHAT), await stage.page.run(entry, lid)], [both, both]);
      const expected = { toPn: CHAT, toLid: lid, orThrow: lid, has: false, state: false };
      assert.deepEqual(await stage.page.run(helpers, CHAT, lid), expected);
    });

    test('a chat that moves to the hidden id is found under it by either form, and has its messages', async () => {
      old = await stage.send('before');
      await stage.acked(old, 1);
      const theirs = await stage.sim.send(PEER, ME, 'reply');
      await stage.page.heard('chat.new_message', (m) => m.id.endsWith(theirs));
      await stage.sim.flip(ME, PEER, 'lid');
      await until('the chat under the hidden id', 5_000, async () => (await stage.page.run(found, CHAT)) === lid);
      assert.equal(await stage.page.run(found, lid), lid);
      assert.deepEqual(await stage.page.run(listed), [lid]);
      assert.deepEqual(await stage.page.run(texts, lid), ['before', 'reply']);
      assert.equal((await stage.page.run(rowIds))[0], old, 'keys of stored messages stay');
    });

    test('from then on keys have the hidden id, in both directions, and one of the other form is refused', async () => {
      const key = await stage.send('after', lid);
      await stage.acked(key, 1);
      const id = await stage.sim.send(PEER, ME, 'hidden');
      const told = await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
      assert.deepEqual([told.id, told.from], [`false_${lid}_${id}`, lid]);
      const refused = await stage.page.run(mismatched, CHAT, `true_${CHAT}_3EB0000000000000000099`);
      assert.equal(refused, 'message_key_remote_id_is_not_same_of_chat');
      assert.deepEqual(await stage.shown(), ['before', 'reply', 'after', 'hidden']);
    });

    test('a receipt for a message from before the move names the chat as it is now, and raises the stored ack', async () => {
      await stage.sim.read(PEER, ME);
      await stage.page.heard('chat.msg_ack_change', (a) => a.ack === 3 && a.ids.some((id) => id === old.replace(CHAT, lid)));
      await until('the ack of the stored row', 5_000, () =>
        stage.page.run(async (id) => (await WPP.indexdb.getMessagesFromRowId({ minRowId: 0, limit: -1 })).find((r) => r.id === id).ack === 3, old),
      );
    });

    test('after a restart the chat is still under the hidden id, and one move back undoes it', async () => {
      await stage.restart();
      assert.equal(await stage.page.run(found, CHAT), lid);
      await stage.sim.flip(ME, PEER, 'phone');
      await until('the chat under the number', 5_000, async () => (await stage.page.run(found, lid)) === CHAT);
      assert.deepEqual(await stage.page.run(texts, CHAT), ['before', 'reply', 'after', 'hidden']);
    });

    test('a move may rewrite the keys of stored messages', async () => {
      await stage.sim.flip(ME, PEER, 'lid', { rekey: true });
      const rewritten = old.replace(CHAT, lid);
      await until('the other key', 5_000, async () => (await stage.page.run(rowIds)).includes(rewritten));
      assert.ok((await stage.page.run(rowIds)).every((id) => id.includes(lid)));
      assert.equal(await stage.page.run((key) => WPP.chat.getMessageById(key).then((m) => m.body), rewritten), 'before');
      await stage.sim.flip(ME, PEER, 'phone', { rekey: true });
      await until('the first key', 5_000, async () => (await stage.page.run(rowIds)).includes(old));
    });

    test('the migration of the account moves every private chat and leaves groups alone', async () => {
      const group = await stage.page.run(async (member) => String((await WPP.group.create('Time', [member])).gid), CHAT);
      await stage.sim.migrate(ME, true);
      await until('the migration', 5_000, () => stage.page.run(() => WPP.conn.getMigrationState().isLidMigrated));
      await until('the moved chat', 5_000, async () => (await stage.page.run(listed)).includes(lid));
      assert.deepEqual((await stage.page.run(listed)).toSorted(), [lid, group].toSorted());
      assert.equal((await stage.page.run(helpers, CHAT, lid)).has, true);
    });

    test('a number that moves to another hidden id is another chat; the former id still leads to the number', async () => {
      const moved = await stage.sim.moveLid(PEER);
      assert.equal(moved.from, lid);
      await until('the new id', 5_000, async () => (await stage.page.run(entry, CHAT)).lid === moved.lid);
      assert.equal(await stage.page.run(mapped, lid, 'getPhoneNumber'), CHAT);
      assert.equal(await stage.page.run(mapped, lid, 'getPnIfLidIsLatestMapping'), null);
      assert.equal(await stage.page.run(mapped, moved.lid, 'getPnIfLidIsLatestMapping'), CHAT);
      const id = await stage.sim.send(PEER, ME, 'new owner');
      const told = await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
      assert.equal(told.from, moved.lid);
      assert.deepEqual([await stage.page.run(found, CHAT), await stage.page.run(found, lid)], [moved.lid, lid]);
    });
  });
}
