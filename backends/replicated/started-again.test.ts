import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { keys } from '../contract/keys.js';
import { comeTo } from '../local/testing/come-to.js';
import { judging, zeroOid } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import { decodeRepository, encodeRepository, type Voter } from './records.js';
import { settleQuarantines } from './settle-quarantines.js';
import { intercepting, isCommit } from './testing/fault-coordinator.js';
import type { ReplicaSet, TestStore } from './testing/replica-set.js';
import { openSetScene, type SetScene } from './testing/set-scene.js';

const main = 'refs/heads/main';

let scene: SetScene;
let set: ReplicaSet;
beforeEach(async () => {
  scene = await openSetScene();
  ({ set } = scene);
});
afterEach(async () => {
  await scene.close();
});

/** Its process dies, and another one is there at once. */
async function startAgain(store: TestStore): Promise<void> {
  await store.reopen();
  const { replica } = store;
  const quarantines = replica.leftQuarantines;
  await settleQuarantines({
    coordinator: set.coordinator,
    replica,
    quarantines,
    logger: silentLogger,
  });
}

/** The next request to prepare finds another process. */
function startAgainBeforePrepare(store: TestStore): void {
  store.interfere = async (name, go) => {
    if (name !== 'prepare') return go();
    store.interfere = undefined;
    await startAgain(store);
    return go();
  };
}

for (const index of [0, 2]) {
  test(`store ${index} is started again between the upload and the request to prepare: it is left out`, async () => {
    const store = set.stores[index];
    assert.ok(store !== undefined);
    startAgainBeforePrepare(store);
    const one = await set.commit('one');
    assert.deepEqual((await scene.push([create(main, one)], { slowly: true })).reasons, []);
    assert.deepEqual(await scene.refsSeen(), { [main]: one });
    await scene.assertConverged();
  });
}

test('deletions too many for the log are kept by stores that are started again before the commit', async () => {
  const one = await set.commit('one');
  const long = 'x'.repeat(240);
  const refs = Array.from({ length: 320 }, (_, n) => `refs/heads/${long}/${long}/${long}/${n}`);
  await scene.push([create(main, one), ...refs.map((ref) => create(ref, one))]);
  let left = 1;
  const wrap: Parameters<typeof set.frontEnd>[0] = {
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) =>
        !isCommit(transaction) || left-- <= 0
          ? undefined
          : async (run) => {
              for (const store of set.stores) await startAgain(store);
              return run();
            },
      ),
  };
  const { backend: through } = await set.frontEnd(wrap);
  const deletions = refs.map((ref) => ({ ref, oldOid: one, newOid: zeroOid }));
  assert.deepEqual((await scene.push(deletions, { through })).reasons, []);
  assert.deepEqual(await scene.refsSeen(), { [main]: one });
  await scene.assertConverged();
});

test('a small pack is sent again to a store that was started again before the push was judged again', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  const one = await set.commit('one');
  let losses = 1;
  const { backend: through } = await set.frontEnd({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) =>
        !isCommit(transaction) || losses-- <= 0
          ? undefined
          : async (run) => {
              // The push loses its race, and is judged again.
              await scene.push([create('refs/heads/other', one)]);
              for (const store of set.stores) {
                await store.reopen();
                for (const key of store.replica.leftQuarantines) await store.replica.abort(key);
              }
              return run();
            },
      ),
  });
  const two = await set.commit('two', one);
  assert.deepEqual((await scene.push([create(main, two)], { through })).reasons, []);
  assert.deepEqual(await scene.refsSeen(), { [main]: two, 'refs/heads/other': one });
  await scene.assertConverged();
});

test('a push that is refused when it is judged again leaves nothing at a store that was asked only then', async () => {
  const change = async (of: (voter: Voter) => Voter): Promise<void> => {
    const key = keys.repo(scene.repository.id);
    const kv = await set.coordinator.get(key);
    assert.ok(kv !== undefined);
    const { voters, epoch, ...record } = decodeRepository(kv);
    const value = encodeRepository({ ...record, voters: voters.map(of), epoch: epoch + 1 });
    const success = [{ type: 'put' as const, key, value }];
    await set.coordinator.transaction({ compares: [], success, failure: [] });
  };
  const late = set.stores[2];
  assert.ok(late !== undefined);
  await change((voter) => (voter.storeId === late.storeId ? { ...voter, state: 'stale' } : voter));
  let rounds = 0;
  const { backend: through } = await set.frontEnd({
    pipeline: judging({
      preReceive: async () => {
        if (rounds++ > 0) return 'closed';
        await change(({ state: _stale, ...voter }) => voter);
        return undefined;
      },
    }),
  });
  const one = await set.commit('one');
  assert.deepEqual((await scene.push([create(main, one)], { through })).reasons, ['closed']);
  assert.equal(rounds, 2);
  for (const { root } of set.stores) {
    await comeTo([], () => readdirSync(join(root, 'quarantine')));
  }
});
