import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { beginEvictions, obeyEvictions } from './evictions.js';
import { encodeRecord, encodeRepository, type RepositoryRecord } from './records.js';
import { intercepting } from './testing/fault-coordinator.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';

const id = 'ab'.repeat(16);
const storeId = 'cd'.repeat(16);

interface Removal {
  readonly confirm?: () => Promise<void>;
}

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

test('a word of a later version removes nothing, and stays', async (t) => {
  const set = await openReplicaSet(1);
  t.after(() => set.close());
  const key = keys.eviction(storeId, id);
  await put(set, key, encodeRecord({ archived: true }));
  assert.deepEqual(await obey(set), []);
  assert.ok((await set.coordinator.get(key)) !== undefined);
});

test('a copy that somebody still reads keeps no other from going, and is waited for once', async () => {
  const set = await openReplicaSet(1);
  const other = 'ef'.repeat(16);
  const reader = new AbortController();
  const read = once(reader.signal, 'abort');
  const asked: string[] = [];
  const destroy = async (one: string): Promise<void> => {
    asked.push(one);
    if (one === id) await read;
  };
  const replica = { storeId, destroy, destroyPool: destroy, setAside: destroy };
  const underWay = new Map<string, Promise<void>>();
  const obeying = { coordinator: set.coordinator, replica, logger: silentLogger };
  const left = async (): Promise<number> => {
    const prefix = keys.evictions(storeId);
    const range = { rangeEnd: prefixEnd(prefix) };
    return (await set.coordinator.range(prefix, range)).entries.length;
  };
  try {
    await put(set, keys.eviction(storeId, id), encodeRecord({}));
    await put(set, keys.eviction(storeId, other), encodeRecord({}));
    await beginEvictions(obeying, underWay);
    await until('the other one is gone', async () => (await left()) === 1 && underWay.size === 1);
    await beginEvictions(obeying, underWay);
    assert.deepEqual(asked.toSorted(), [id, other]);
    reader.abort();
    await until('the first one is gone', () => underWay.size === 0);
    assert.equal(await left(), 0);
  } finally {
    await set.close();
  }
});

/** A repository whose only voter is the store. */
const votedFor: RepositoryRecord = {
  id,
  name: 'app',
  objectFormat: 'sha1',
  createdAtMs: 0,
  state: 'active',
  voters: [{ nodeId: 'a', storeId, joinedEpoch: 1 }],
  learners: [],
  epoch: 1,
  settings: {},
  access: { public: false, grants: {} },
};

for (const word of [{}, { setAside: true }] as const) {
  test(`a word that was taken back while the copy had readers removes nothing (${JSON.stringify(word)})`, async () => {
    const set = await openReplicaSet(1);
    const reader = new AbortController();
    const read = once(reader.signal, 'abort');
    const waiting = new AbortController();
    const gone: string[] = [];
    const remove = async (one: string, { confirm }: Removal = {}): Promise<void> => {
      waiting.abort();
      await read;
      await confirm?.();
      gone.push(one);
    };
    const replica = { storeId, destroy: remove, destroyPool: remove, setAside: remove };
    try {
      await put(set, keys.eviction(storeId, id), encodeRecord(word));
      const obeyed = obeyEvictions({
        coordinator: set.coordinator,
        replica,
        logger: silentLogger,
      });
      await until('it waits for the reader', () => waiting.signal.aborted);
      await set.coordinator.transaction({
        compares: [],
        success: [
          { type: 'delete', key: keys.eviction(storeId, id) },
          { type: 'put', key: keys.repo(id), value: encodeRepository(votedFor) },
        ],
        failure: [],
      });
      reader.abort();
      await obeyed;
      assert.deepEqual(gone, []);
    } finally {
      await set.close();
    }
  });
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
      await put(set, keys.repo(id), encodeRepository(votedFor));
      assert.deepEqual(await obey(set), []);
      await put(set, keys.repo(id), encodeRepository({ ...votedFor, voters: [] }));
    });
    await t.test('that holds', async () => {
      assert.deepEqual(await obey(set), [id]);
      assert.deepEqual(await obey(set), [], 'once');
    });
  } finally {
    await set.close();
  }
});

test('a word that takes the place of another, while that waits for its turn or is obeyed, is obeyed', async (t) => {
  const key = keys.eviction(storeId, id);
  const aside = encodeRecord({ setAside: true });
  const scene = async (
    scan: (set: ReplicaSet, done: string[]) => Promise<void>,
  ): Promise<readonly string[]> => {
    const set = await openReplicaSet(1);
    const done: string[] = [];
    try {
      await put(set, key, encodeRecord({}));
      await scan(set, done);
      return done;
    } finally {
      await set.close();
    }
  };
  const replicaOf = (done: string[], removing: () => Promise<void>) => ({
    storeId,
    destroy: async () => {
      done.push('destroyed');
      await removing();
    },
    destroyPool: async () => void done.push('a pool'),
    setAside: async () => void done.push('set aside'),
  });

  await t.test('waits', async () => {
    const done = await scene(async (set, told) => {
      let changed = false;
      const coordinator = intercepting(set.coordinator, ({ binding }) =>
        binding !== true || changed
          ? undefined
          : async (run) => {
              changed = true;
              await put(set, key, aside);
              return run();
            },
      );
      const replica = replicaOf(told, () => Promise.resolve());
      for (let round = 0; round < 2; round++) {
        await obeyEvictions({ coordinator, replica, logger: silentLogger });
      }
    });
    assert.deepEqual(done, ['set aside']);
  });
  await t.test('is obeyed', async () => {
    const done = await scene(async (set, told) => {
      const replica = replicaOf(told, () => put(set, key, aside));
      for (let round = 0; round < 2; round++) {
        await obeyEvictions({ coordinator: set.coordinator, replica, logger: silentLogger });
      }
    });
    assert.deepEqual(done, ['destroyed', 'set aside']);
  });
});
