import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { Clock } from '../contract/environment.js';
import { until } from '../contract/testing/until.js';
import { judging, packOf, pushRequest } from '../local/testing/local-fixture.js';
import { create } from '../local/testing/replica-scene.js';
import {
  openReplicaSet,
  type ReplicaSet,
  type TestStore,
  unhurried,
} from './testing/replica-set.js';

let set: ReplicaSet;
before(async () => {
  set = await openReplicaSet();
});
after(() => set.close());

/** On which a minute is soon over. */
const clock: Clock = {
  ...unhurried,
  sleep: (ms, over) => unhurried.sleep(ms === 60_000 ? 1 : ms, over),
};

test('while hooks run for long, every store hears that the push goes on, and none once it is over', async () => {
  const told = new Map<string, number>();
  const times = (store: TestStore): number => told.get(store.storeId) ?? 0;
  for (const store of set.stores) {
    store.interfere = (name, go) => {
      if (name === 'keep') told.set(store.storeId, times(store) + 1);
      return go();
    };
  }
  const pipeline = judging({
    preReceive: async () => {
      await until('all to be told', () => set.stores.every((store) => times(store) > 2));
      return undefined;
    },
  });
  const { backend } = await set.frontEnd({ pipeline, clock });
  const repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  const tip = await set.commit('one');
  const pack = await packOf(set.source, [tip], []);
  const { refs } = await backend.push(
    repository,
    pushRequest([create('refs/heads/main', tip)], { pack }),
  );
  assert.equal(refs[0]?.status, 'ok');
  const afterwards = new Map(told);
  await setTimeout(20);
  assert.deepEqual(told, afterwards);
});
