import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import { keys } from '../contract/keys.js';
import { QuorateError } from '../contract/errors.js';
import type { Repository } from '../contract/repository.js';
import { obeyEvictions } from './evictions.js';
import { readRepairs } from './leadership.js';
import { markNode } from './node-marks.js';
import { encodeRepository } from './records.js';
import { takeStep } from './set-steps.js';
import { readGround } from './set-view.js';
import { until } from '../contract/testing/until.js';

import { ControllerScene } from './testing/controller-scene.js';

let scene: ControllerScene;
beforeEach(async () => {
  scene = await ControllerScene.open();
});
afterEach(() => scene.close());

test('a node that stays away is declared down, then replaced, while pushes go on; then it holds nothing', async () => {
  scene.controller.start();
  const [lost] = scene.stores(1);
  assert.ok(lost !== undefined);
  lost.down = true;
  await until('it is declared down', async () =>
    (await scene.record()).voters.some(({ state }) => state === 'down'),
  );
  const two = await scene.set.commit('two', scene.tip);
  await scene.pushTip(scene.tip, two);
  await until('another is in its place', scene.votersAre(scene.stores(0, 2, 3)));
  await scene.assertSound(scene.stores(0, 2, 3));
  lost.down = false;
  const { coordinator } = scene.set;
  await obeyEvictions({ coordinator, replica: lost.replica, logger: silentLogger });
  assert.equal(await lost.replica.state(scene.repository.id), undefined);
  const left = await coordinator.get(keys.eviction(lost.storeId, scene.repository.id));
  assert.equal(left, undefined);
});

test('a node that drains gives up its copies when others have them', async () => {
  scene.controller.start();
  await markNode(scene.set.coordinator, 'node-0', 'draining');
  await until('it is drained', scene.votersAre(scene.stores(1, 2, 3)));
  await scene.assertSound(scene.stores(1, 2, 3));
});

test('when one set is as it should be the next one is begun, not at the next look around', async () => {
  const others = [];
  for (const name of ['team/b', 'team/c', 'team/d', 'team/e'])
    others.push(await scene.create(name));
  await markNode(scene.set.coordinator, 'node-0', 'draining');
  scene.ticks = 1;
  scene.controller.start();
  for (const one of [scene.repository, ...others]) {
    await until('it is drained', scene.votersAre(scene.stores(1, 2, 3), one));
  }
});

test('a set that somebody else changes is looked at, before the next look around', async () => {
  scene.ticks = 1;
  scene.controller.start();
  await until('it has looked around', () => scene.ticks === 0);
  await scene.change({ target: ['node-1', 'node-2', 'node-3'] });
  await until('it has moved', scene.votersAre(scene.stores(1, 2, 3)));
  await scene.assertSound(scene.stores(1, 2, 3));
});

test('what is being repaired, and waits for it, is told to all', async () => {
  const others = [scene.repository];
  for (const name of ['team/b', 'team/c', 'team/d']) others.push(await scene.create(name));
  const [slow] = scene.stores(3);
  assert.ok(slow !== undefined);
  let mayFill = false;
  slow.interfere = async (call, go) => {
    if (call === 'catchUp') await until('it may be filled', () => mayFill);
    return go();
  };
  await markNode(scene.set.coordinator, 'node-0', 'draining');
  scene.controller.start();
  await until(
    'all are counted',
    async () => (await readRepairs(scene.set.coordinator)).repairing === 4,
  );
  mayFill = true;
  await until(
    'none is left',
    async () => (await readRepairs(scene.set.coordinator)).repairing === 0,
  );
  for (const one of others) assert.equal(await scene.votersAre(scene.stores(1, 2, 3), one)(), true);
});

test('copies that are long in the making hold up nothing else', async () => {
  const others: Repository[] = [];
  for (const name of ['team/b', 'team/c', 'team/d']) others.push(await scene.create(name));
  const [, away, , slow] = scene.stores(0, 1, 2, 3);
  assert.ok(away !== undefined && slow !== undefined);
  let mayFill = false;
  let filling = 0;
  let most = 0;
  slow.interfere = async (call, go) => {
    if (call !== 'catchUp') return go();
    filling++;
    most = Math.max(most, filling);
    await until('it may be filled', () => mayFill);
    await go();
    filling--;
    return undefined;
  };
  await markNode(scene.set.coordinator, 'node-0', 'draining');
  scene.controller.start();
  await until('as many are filled as may be', () => filling === 2);
  away.down = true;
  await until('the others go on without the node that is away', async () => {
    const records = await Promise.all(
      [scene.repository, ...others].map((one) => scene.record(one)),
    );
    return records.filter(({ voters }) => voters.some(({ state }) => state === 'down')).length >= 2;
  });
  away.down = false;
  mayFill = true;
  for (const one of [scene.repository, ...others]) {
    await until('it is drained', scene.votersAre(scene.stores(1, 2, 3), one));
  }
  assert.equal(most, 2);
});

test('all sets are compared, also when they are more than may wait', async () => {
  const copied = await scene.record();
  const head = await scene.set.coordinator.get(keys.head(scene.repository.id));
  assert.ok(head !== undefined);
  const ids = Array.from({ length: 120 }, (_, n) => n.toString(16).padStart(32, '0'));
  for (const id of ids) {
    await scene.set.coordinator.transaction({
      compares: [],
      success: [
        { type: 'put', key: keys.repo(id), value: encodeRepository(copied) },
        { type: 'put', key: keys.head(id), value: head.value },
      ],
      failure: [],
    });
  }
  const asked = new Set<unknown>();
  for (const store of scene.stores(0)) {
    store.interfere = (call, go, id) => {
      if (call === 'state') asked.add(id);
      return go();
    };
  }
  scene.controller.start();
  await until('all were asked about', () => asked.size === ids.length + 1);
});

test('a repository moves to the nodes that were asked for', async () => {
  await scene.change({ target: ['node-1', 'node-2', 'node-3'] });
  scene.controller.start();
  await until('it has moved', scene.votersAre(scene.stores(1, 2, 3)));
  await scene.assertSound(scene.stores(1, 2, 3));
});

test('a node that was asked for and is gone is replaced; when it is back, the repository is too', async () => {
  await scene.change({ target: ['node-0', 'node-1', 'node-2'] });
  scene.controller.start();
  const [lost] = scene.stores(1);
  assert.ok(lost !== undefined);
  lost.down = true;
  await until('another is in its place', scene.votersAre(scene.stores(0, 2, 3)));
  lost.down = false;
  const { coordinator } = scene.set;
  await obeyEvictions({ coordinator, replica: lost.replica, logger: silentLogger });
  await until('it is as it was asked for', scene.votersAre(scene.stores(0, 1, 2)));
  await scene.assertSound(scene.stores(0, 1, 2));
});

const full = (): Promise<never> => Promise.reject(new QuorateError('storage-failure', 'full'));

test('a copy that cannot be filled any more leaves the node that drains', async () => {
  const [broken] = scene.stores(1);
  assert.ok(broken !== undefined);
  broken.interfere = (call, go) =>
    ['catchUp', 'apply', 'prepare'].includes(String(call)) ? full() : go();
  const second = await scene.set.commit('two', scene.tip);
  await scene.pushTip(scene.tip, second);
  const { coordinator } = scene.set;
  const now = await scene.record();
  const voters = now.voters.map((voter) =>
    voter.storeId === broken.storeId ? { ...voter, state: 'stale' as const } : voter,
  );
  const value = encodeRepository({ ...now, voters, epoch: now.epoch + 1 });
  const success = [{ type: 'put' as const, key: keys.repo(now.id), value }];
  await coordinator.transaction({ compares: [], success, failure: [] });
  await markNode(coordinator, 'node-1', 'draining');
  scene.controller.start();
  await until('it is elsewhere', scene.votersAre(scene.stores(0, 2, 3)));
  await scene.assertSound(scene.stores(0, 2, 3));
});

test('a copy that cannot be filled keeps no other from being made', async () => {
  const [broken, lost] = scene.stores(1, 2);
  assert.ok(broken !== undefined && lost !== undefined);
  broken.interfere = (call, go) => (call === 'catchUp' ? full() : go());
  lost.down = true;
  const now = await scene.record();
  const [, demoted] = now.voters;
  assert.ok(demoted?.storeId === broken.storeId);
  // A copy that was set aside, on a disk that takes nothing any more.
  await broken.replica.destroy(now.id);
  const voters = now.voters.filter((voter) => voter !== demoted);
  const value = encodeRepository({ ...now, voters, learners: [demoted], epoch: now.epoch + 1 });
  const success = [{ type: 'put' as const, key: keys.repo(now.id), value }];
  await scene.set.coordinator.transaction({ compares: [], success, failure: [] });
  scene.controller.start();
  const [other] = scene.stores(3);
  await until('another one has it', async () => {
    const state = await other?.replica.state(now.id);
    return state?.generation === 1;
  });
});

test('nobody becomes a voter of a set in which too few have the head', async () => {
  const [learning] = scene.stores(3);
  assert.ok(learning !== undefined);
  const { storeId } = learning;
  await scene.change({ learners: [{ nodeId: 'node-3', storeId, joinedEpoch: 2 }] });
  const ground = await readGround(scene.set.coordinator, scene.repository.id);
  assert.ok(ground !== undefined);
  const step = { type: 'promote', storeId } as const;
  const { signal } = new AbortController();
  for (const store of scene.stores(1, 2)) store.down = true;
  await assert.rejects(takeStep(scene.stepping, ground, step, signal), { code: 'aborted' });
  for (const store of scene.stores(1, 2)) store.down = false;
  assert.equal(await takeStep(scene.stepping, ground, step, signal), true);
  assert.equal((await scene.record()).voters.length, 4);
});

test('nobody takes the place of a voter that has left meanwhile', async () => {
  const { voters } = await scene.record();
  const learner = voters.at(-1);
  assert.ok(learner !== undefined);
  const { storeId } = learner;
  await scene.change({ voters: voters.slice(0, -1), learners: [learner] });
  const ground = await readGround(scene.set.coordinator, scene.repository.id);
  assert.ok(ground !== undefined);
  const step = { type: 'promote', storeId, inPlaceOf: 'gone' } as const;
  const { signal } = new AbortController();
  assert.equal(await takeStep(scene.stepping, ground, step, signal), false);
  assert.deepEqual((await scene.record()).learners, [learner]);
});
