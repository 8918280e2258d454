import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Meter } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { silentMeter } from '../local/testing/local-fixture.js';
import { encodeRepository, type RepositoryRecord, type Voter } from './records.js';
import { plainRecord } from './testing/plain-record.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';
import { findWithoutMajority } from './without-majority.js';
import { keeperOf } from './testing/set-keeper.js';

async function open(t: TestContext): Promise<ReplicaSet> {
  const set = await openReplicaSet(3);
  t.after(() => set.close());
  return set;
}

function votersOf({ stores }: ReplicaSet, states: readonly Voter['state'][] = []): Voter[] {
  return stores.map(({ storeId }, index) => {
    const state = states[index];
    const voter = { nodeId: `node-${index}`, storeId, joinedEpoch: 1 };
    return state === undefined ? voter : { ...voter, state };
  });
}

async function putRepositories(
  { coordinator }: ReplicaSet,
  records: readonly Partial<RepositoryRecord>[],
): Promise<void> {
  for (let from = 0; from < records.length; from += 100) {
    await coordinator.transaction({
      compares: [],
      success: records.slice(from, from + 100).map((record, index) => {
        const id = String(from + index).padStart(32, '0');
        const value = encodeRepository({ ...plainRecord, id, name: `r-${id}`, ...record });
        return { type: 'put', key: keys.repo(id), value };
      }),
      failure: [],
    });
  }
}

function takeAway({ stores }: ReplicaSet, ...indexes: readonly number[]): void {
  for (const [index, store] of stores.entries()) store.down = indexes.includes(index);
}

test('a repository has no majority when most of its voters, or those that count, do not answer', async (t) => {
  const set = await open(t);
  const voters = votersOf(set);
  await putRepositories(set, [
    { voters },
    { voters: votersOf(set, [undefined, 'stale']) },
    { voters: voters.slice(1, 2) },
    // Whose copies only are read, or are being made, count for nothing.
    { voters: voters.slice(0, 1), learners: voters.slice(1, 2), readers: voters.slice(2) },
    { voters, state: 'deleted' },
  ]);
  const found = async (...down: readonly number[]): Promise<readonly unknown[]> => {
    takeAway(set, ...down);
    const { repositories, nodes } = await findWithoutMajority(set);
    return [repositories, ...nodes];
  };
  assert.deepEqual(await found(), [0]);
  assert.deepEqual(await found(1), [1, 'node-1']);
  assert.deepEqual(await found(2), [1, 'node-2'], 'the stale one does not count');
  assert.deepEqual(await found(1, 2), [3, 'node-1', 'node-2']);
  assert.deepEqual(await found(0, 1, 2), [4, 'node-0', 'node-1', 'node-2']);
});

test('a node that came back with another store does not make a majority', async (t) => {
  const set = await open(t);
  const lost = votersOf(set).map((voter, index) =>
    index === 0 ? voter : { ...voter, storeId: 'f'.repeat(31) + index },
  );
  await putRepositories(set, [{ voters: lost }]);
  assert.deepEqual(await findWithoutMajority(set), {
    repositories: 1,
    nodes: ['node-1', 'node-2'],
  });
});

test('repositories without a majority are counted, however many there are', async (t) => {
  const set = await open(t);
  const voters = votersOf(set);
  await putRepositories(
    set,
    Array.from({ length: 1_200 }, () => ({ voters })),
  );
  takeAway(set, 0, 2);
  assert.deepEqual(await findWithoutMajority(set), {
    repositories: 1_200,
    nodes: ['node-0', 'node-2'],
  });
});

test('who keeps the replica sets tells how many have no majority, until it keeps them no more', async (t) => {
  const set = await open(t);
  await putRepositories(set, [{ voters: votersOf(set) }, { voters: votersOf(set).slice(0, 1) }]);
  const { locks, lease } = await set.frontEnd();
  let read: (() => number) | undefined;
  const gauge: Meter['gauge'] = (name, _labels, value) => {
    if (name === 'repositories_without_majority') read = value;
  };
  const controller = keeperOf(set, { lease, locks }, { meter: { ...silentMeter, gauge } });
  assert.equal(read?.(), 0);
  takeAway(set, 1, 2);
  controller.start();
  await until('the one of three voters is told of', () => read?.() === 1);
  takeAway(set);
  await until('all have their majority again', () => read?.() === 0);
  takeAway(set, 0, 1);
  await until('both are told of', () => read?.() === 2);
  await controller.close();
  assert.equal(read?.(), 0);
});
