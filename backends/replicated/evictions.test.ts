import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { obeyEvictions } from './evictions.js';
import { encodeRecord, encodeRepository } from './records.js';
import { intercepting } from './testing/fault-coordinator.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';

const id = 'ab'.repeat(16);
const storeId = 'cd'.repeat(16);

async function obey(
  set: ReplicaSet,
  coordinator: ReplicaSet['coordinator'] = set.coordinator,
): Promise<readonly string[]> {
  const destroyed: string[] = [];
  const destroy = async (one: string): Promise<void> => void destroyed.push(one);
  const replica = { storeId, destroy, destroyPool: destroy, setAside: destroy };
  await obeyEvictions({ coordinator, replica, logger: silentLogger });
  return destroyed;
}

async function put(set: ReplicaSet, key: string, value: Uint8Array): Promise<void> {
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value }],
    failure: [],
  });
}

/** As a guarded coordinator that is one from before the last commit that somebody knows. */
function olderCopy(coordinator: ReplicaSet['coordinator']): ReplicaSet['coordinator'] {
  return intercepting(coordinator, ({ binding }) =>
    binding === true
      ? () => Promise.reject(new QuorateError('unavailable', 'the coordinator is an older copy'))
      : undefined,
  );
}

test('a copy is removed on a word that counts, and on no other', async (t) => {
  const set = await openReplicaSet(1);
  try {
    await t.test('none', async () => assert.deepEqual(await obey(set), []));
    await put(set, keys.eviction(storeId, id), encodeRecord({}));

    await t.test('of a coordinator that is an older copy', async () => {
      assert.deepEqual(await obey(set, olderCopy(set.coordinator)), []);
    });
    await t.test('against the configuration', async () => {
      const members = { voters: [{ nodeId: 'a', storeId, joinedEpoch: 1 }], learners: [] };
      const record = {
        name: 'app',
        objectFormat: 'sha1',
        createdAtMs: 0,
        state: 'active',
      } as const;
      const access = { public: false, grants: {} };
      const repository = { ...record, ...members, id, epoch: 1, settings: {}, access };
      await put(set, keys.repo(id), encodeRepository(repository));
      assert.deepEqual(await obey(set), []);
      await put(set, keys.repo(id), encodeRepository({ ...repository, voters: [] }));
    });
    await t.test('that holds', async () => {
      assert.deepEqual(await obey(set), [id]);
      assert.deepEqual(await obey(set), [], 'once');
    });
  } finally {
    await set.close();
  }
});
