import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Clock } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { pauseMs, quietMs, StalledFill, whileFilling } from './fill-patience.js';
import { readRepairs } from './leadership.js';
import { markNode } from './node-marks.js';
import { decodeRepository } from './records.js';
import { SetController } from './set-controller.js';
import { openReplicaSet, type ReplicaSet, unhurried } from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

let aheadMs: number;
let set: ReplicaSet;
let controller: SetController;
let hangs: AbortController;

const clock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() + aheadMs,
  // What stores are given to answer stays as it is.
  sleep: (ms, signal) => systemClock.sleep(ms < 10_000 ? Math.min(ms, 50) : ms, signal),
};

beforeEach(async () => {
  aheadMs = 0;
  hangs = new AbortController();
  set = await openReplicaSet(4);
  const { backend, locks, lease } = await set.frontEnd({ clock: unhurried });
  for (const name of ['team/a', 'team/b']) {
    await backend.repositories.create({
      name,
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
  }
  controller = keeperOf(
    set,
    { lease, locks },
    {
      clock,
      settings: {
        downAfterMs: 86_400_000,
        repairAfterMs: 86_400_000,
        compareEveryMs: 86_400_000,
        maxFills: 1,
      },
    },
  );
});
afterEach(async () => {
  hangs.abort();
  await controller.close();
  await set.close();
});

async function isOn(id: string, storeId: string): Promise<boolean> {
  const kv = await set.coordinator.get(keys.repo(id));
  assert.ok(kv !== undefined);
  return decodeRepository(kv).voters.some((voter) => voter.storeId === storeId);
}

test('a fill of which nothing is heard gives its place to others, is told of, and is tried again', async () => {
  const [, , , fourth] = set.stores;
  assert.ok(fourth !== undefined);
  const asked: string[] = [];
  fourth.interfere = async (call, go, id) => {
    if (call !== 'catchUp') return go();
    asked.push(String(id));
    if (id !== asked[0] || hangs.signal.aborted) return go();
    await new Promise<void>((resolve) => {
      hangs.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    return go();
  };
  await markNode(set.coordinator, 'node-0', 'draining');
  controller.start();
  await until('a fill hangs', () => asked.length === 1);
  const [stuck = ''] = asked;
  aheadMs += 10 * 60_000;
  await until('others are filled', async () => {
    const other = asked.find((id) => id !== stuck);
    return other !== undefined && (await isOn(other, fourth.storeId));
  });
  const { givenUp } = await readRepairs(set.coordinator);
  assert.deepEqual(givenUp, [
    {
      repositoryId: stuck,
      storeId: fourth.storeId,
      times: 1,
      reason: 'nothing came of it for 10 minutes',
    },
  ]);
  assert.equal(asked.filter((id) => id === stuck).length, 1, 'it has a pause');
  hangs.abort();
  aheadMs += 60_000;
  await until('it is filled', () => isOn(stuck, fourth.storeId));
  await until('nothing is told any more', async () => {
    return (await readRepairs(set.coordinator)).givenUp.length === 0;
  });
});

test('a fill is given up when its store says for a minute that its disk hangs, not while it is heard of', async () => {
  const [first] = set.stores;
  assert.ok(first !== undefined);
  const { storeId } = first;
  const filling = { replicas: set.replicas, clock, storeId };
  const { signal } = new AbortController();
  const run = async (quietForMs: number, passMs: number): Promise<string> => {
    let left = 5;
    return whileFilling({ ...filling, quietForMs, signal }, async (given, heard) => {
      while (left-- > 0) {
        aheadMs += passMs;
        heard();
        await clock.sleep(100, given);
      }
      return 'done';
    });
  };
  assert.equal(await run(1_000, 900), 'done');
  first.hangs = true;
  assert.equal(await run(Infinity, 30_000), 'done', 'what it writes may keep the disk busy');
  const hanging = whileFilling(
    { ...filling, quietForMs: Infinity, signal },
    () => new Promise(() => undefined),
  );
  aheadMs += 61_000;
  await assert.rejects(
    hanging,
    (error) => error instanceof StalledFill && /disk of its storage node hangs/.test(error.message),
  );
});

test('each fill that is given up is given more time, later, within bounds', () => {
  assert.deepEqual([0, 1, 2, 9].map(quietMs), [600_000, 1_200_000, 2_400_000, 14_400_000]);
  assert.deepEqual([1, 2, 3, 99].map(pauseMs), [60_000, 120_000, 240_000, 3_600_000]);
});
