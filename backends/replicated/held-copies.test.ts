import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CopiesPage, Replica } from '../contract/replica.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { stubReplica } from '../node/testing/stub-replica.js';
import { eachOf, listCopies, Questions } from './held-copies.js';
import { openReplicaSet } from './testing/replica-set.js';
import type { ReplicaDirectory, StorageNode } from './voters.js';

const { signal } = new AbortController();
const id = (n: number): string => String(n).padStart(32, '0');

/** Nodes `n0`, `n1`, ..., each with one of these stores. */
function directoryOf(replicas: readonly Replica[]): ReplicaDirectory {
  const nodes = replicas.map(({ storeId }, n): StorageNode => {
    const shape = { address: '', zone: '', weight: 1, capacityBytes: 0, usedBytes: 0 };
    return { ...shape, nodeId: `n${n}`, storeId, draining: false, local: false };
  });
  return {
    nodes: () => nodes,
    find: (wanted) => replicas.find(({ storeId }) => storeId === wanted),
    load: () => 0,
    place: () => [],
  };
}

test('every node is asked until it has told all; one that fails, says the same again or takes too long is named', async (t) => {
  const set = await openReplicaSet(1);
  t.after(() => set.close());
  const asked: string[] = [];
  const paged = (after: string): Promise<CopiesPage> => {
    asked.push(after);
    const from = Number(after) + 1;
    return Promise.resolve({ ids: [id(from), id(from + 1)], more: from < 5 });
  };
  const replicas = directoryOf([
    stubReplica({ copies: paged }, 'a'),
    stubReplica({ copies: () => Promise.resolve({ ids: [id(2)], more: false }) }, 'b'),
    stubReplica({}, 'c'),
    stubReplica({ copies: () => new Promise(() => undefined) }, 'd'),
    stubReplica({ copies: () => Promise.resolve({ ids: [id(7)], more: true }) }, 'e'),
  ]);
  // Whoever waits for an answer waits no longer than the others take to give theirs.
  const clock = {
    ...systemClock,
    sleep: (ms: number, over?: AbortSignal) => systemClock.sleep(ms > 1_000 ? 500 : ms, over),
  };
  const { coordinator } = set;
  const { holders, nodes } = await listCopies({ coordinator, replicas, clock }, signal);
  assert.deepEqual(asked, [id(0), id(2), id(4)]);
  assert.equal(holders.size, 6);
  assert.deepEqual(
    nodes.map(({ copies, trouble }) => copies ?? trouble),
    [
      6,
      1,
      'this stub has no such call',
      'it took too long to answer',
      'it tells the same copies again',
    ],
  );
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map((n) =>
      holders
        .get(id(n))
        ?.map(({ nodeId }) => nodeId)
        .sort(),
    ),
    [['n0'], ['n0', 'n1'], ['n0'], ['n0'], ['n0'], ['n0']],
  );
});

test('so many at a time, and no more once one has failed', async () => {
  let running = 0;
  let most = 0;
  const done: number[] = [];
  const work = async (n: number): Promise<void> => {
    most = Math.max(most, ++running);
    await new Promise(setImmediate);
    running -= 1;
    if (n === 5) throw new Error('five');
    done.push(n);
  };
  const numbers = Array.from({ length: 20 }, (_, n) => n);
  await assert.rejects(eachOf(numbers, 3, work), /five/);
  assert.deepEqual([most, running], [3, 0]);
  assert.ok(done.length < 10, String(done));
  done.length = 0;
  await eachOf(numbers.slice(6), 3, work);
  assert.equal(done.length, 14);
});

const aTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Asks a store, in rounds of three, until it is asked no more, which answers these questions; returns how many it was asked. */
async function askedOf(answers: (n: number) => boolean): Promise<number> {
  const questions = new Questions({ ...systemClock, sleep: aTurn });
  let asked = 0;
  const ask = (n: number): Promise<unknown> =>
    questions.ask('a', () => {
      asked += 1;
      return answers(n) ? Promise.resolve('here') : new Promise(() => undefined);
    });
  for (let n = 0; n < 99; n += 3) {
    const ends = await Promise.allSettled([ask(n), ask(n + 1), ask(n + 2)]);
    for (const end of ends) {
      if (end.status === 'rejected') assert.match(String(end.reason), /it took too long to answer/);
    }
  }
  assert.equal(await questions.ask('b', () => Promise.resolve('here')), 'here');
  return asked;
}

test('a store that says nothing is asked no more in a run; others are', async () => {
  assert.equal(await askedOf(() => false), 3);
});

test('a store with a few copies that take their time is asked of all others; not when there is no end of them', async () => {
  assert.equal(await askedOf((n) => ![1, 2, 50, 70].includes(n)), 99);
  assert.equal(await askedOf((n) => n % 3 === 0), 48);
});
