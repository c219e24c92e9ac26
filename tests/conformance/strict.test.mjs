// What strict mode notices: names that the real page does not have, requests to other hosts, paths that nobody serves. And that the
// page itself and wa-js in it do none of that.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ME, NOTHING, PEER, PROFILES, Stage } from './lib/stage.js';
import { until } from './lib/wait.js';

for (const [name, port] of PROFILES) {
  describe(`strict mode on the ${name} page`, () => {
    const stage = new Stage();
    before(() => stage.start(port));
    after(() => stage.stop({ strict: false }));
    const noticed = (list, fits) => until(`a stray in ${list}`, 5_000, async () => (await stage.sim.strict())[list].find(fits));

    test('linking, sending and receiving by wa-js asks for nothing that the real site does not have', async () => {
      await stage.acked(await stage.send('strict'), 2);
      const id = await stage.sim.send(PEER, ME, 'too');
      await stage.page.heard('chat.new_message', (m) => m.id.endsWith(id));
      const { names, requests, unserved } = await stage.sim.strict();
      assert.deepEqual({ names, requests, unserved }, NOTHING);
      assert.equal((await stage.sim.stats()).strays, 0);
    });

    test('no export of the page is one that the real page lacks', async () => {
      await stage.page.run(() => {
        for (const id of Object.keys(window.require('__debug').modulesMap)) window.importNamespace(id);
      });
      assert.deepEqual(await stage.page.run(() => window.__SIM.dropped), []);
    });

    test('a module and an export that the real page lacks are noticed', async () => {
      await stage.page.run(() => {
        try {
          window.require('WAWebOfOurOwnMaking');
        } catch {
          // the loader refuses it
        }
        return String(window.require('WAWebSocketModel').Sockett);
      });
      await noticed('names', (text) => text === 'WAWebOfOurOwnMaking');
      await noticed('names', (text) => text === 'WAWebSocketModel.Sockett');
    });

    test('a request to another host is noticed, though it reaches nobody', async () => {
      await stage.page.run(() => fetch('https://elsewhere.example/beacon').catch(() => null));
      await noticed('requests', (text) => text.includes('elsewhere.example'));
    });

    test('a path that nobody serves is noticed', async () => {
      await stage.page.run(() => fetch('/nothing/here').then((answer) => answer.status));
      await noticed('unserved', (text) => text === 'GET /nothing/here');
      assert.ok((await stage.sim.stats()).strays >= 4);
    });

    test('armed, a function that the page only names throws; unarmed it is listed', async () => {
      const call = () => {
        try {
          return String(window.require('WAWebLogoutReason').getPrevLogoutReasonCode());
        } catch (error) {
          return error.message;
        }
      };
      assert.equal(await stage.page.run(call), 'undefined');
      await noticed('stubs', (text) => text === 'WAWebLogoutReason.getPrevLogoutReasonCode');
      await stage.sim.fault('strict', { times: 1 });
      await stage.restart();
      assert.match(await stage.page.run(call), /does not act out/);
    });
  });
}
